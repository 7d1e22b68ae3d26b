"""What the supervised processes of test_workers.py run: `python worker_targets.py <scenario> <n> <port>`."""

import asyncio
import logging
import os
import sys
import time
from functools import partial
from pathlib import Path

import uvloop

from fastserve.errors import ConfigError
from fastserve.http.message import Response
from fastserve.http.server import Server
from fastserve.http.workers import Worker, run_workers

DRAIN_S = float(os.environ.get("DRAIN_S", "10"))


def say(text):
    os.write(1, f"{text}\n".encode())  # one write: workers share the pipe


def handler(request):
    if request.path == "/crash":
        os._exit(3)
    if request.path == "/slow":
        say("slow begins")
        return slow()
    return Response(200, "text/plain", b"%d" % os.getpid())


async def slow():
    await asyncio.sleep(0.3)
    return Response(200, "text/plain", b"slow")


def serve(worker: Worker) -> None:
    uvloop.run(serve_async(worker))


async def serve_async(worker: Worker) -> None:
    server = Server(handler)
    await server.start(sock=worker.listen())
    worker.report_ready(server.listen)
    await worker.stopped()
    say(f"draining {worker.index}")
    await server.drain(10, worker.hurry)


def fail(worker: Worker) -> None:
    raise RuntimeError("cannot start")


def fail_once(folder: str, worker: Worker) -> None:
    """Each worker's first start fails."""
    mark = Path(folder, f"failed-{worker.index}")
    if not mark.exists():
        mark.touch()
        os._exit(5)
    serve(worker)


def staged(folder: str, worker: Worker) -> None:
    """Tells of each stage. A file `fail` in the folder ends it before it is ready, at a FIFO `hold` it waits."""
    say(f"starting {worker.index}")
    if Path(folder, "fail").exists():
        worker.report_failure("found a file that says fail")
        sys.exit(4)
    if Path(folder, "hold").exists():
        Path(folder, "hold").open("rb").close()  # until the other end is opened
    uvloop.run(staged_async(worker))


async def staged_async(worker: Worker) -> None:
    here = b"%d %d" % (worker.index, os.getpid())
    server = Server(lambda request: Response(200, "text/plain", here))
    await server.start(sock=worker.listen())
    say(f"serving {worker.index}")
    worker.report_ready(server.listen)
    await worker.stopped()
    say(f"draining {worker.index}")
    await server.drain(DRAIN_S, worker.hurry)
    say(f"gone {worker.index}")


async def stubborn_async(worker: Worker) -> None:
    worker.report_ready()
    await worker.stopped()
    time.sleep(1000)  # does not react to the signal


def stubborn(worker: Worker) -> None:
    asyncio.run(stubborn_async(worker))


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    scenario, count, port, *rest = sys.argv[1:]
    targets = {
        "serve": serve,
        "fail": fail,
        "fail_once": partial(fail_once, *rest),
        "staged": partial(staged, *rest),
        "stubborn": stubborn,
    }
    try:
        status = run_workers(
            int(count),
            targets[scenario],
            port=int(port),
            stop_timeout_s=0.5 if scenario == "stubborn" else DRAIN_S + 10,
            start_timeout_s=float(os.environ.get("START_TIMEOUT_S", "20")),
        )
    except ConfigError as error:
        sys.exit(str(error))
    sys.exit(status)
