"""Worker processes that share one port, and the supervisor that keeps them running.

    def serve(worker: Worker) -> None:              # module-level, so that it can be pickled
        uvloop.run(serve_async(worker))

    async def serve_async(worker: Worker) -> None:
        server = Server(handler)
        await server.start(sock=worker.listen())
        worker.report_ready(server.listen)
        await worker.stopped()                      # SIGTERM or SIGINT, forwarded; or replaced
        await server.drain(10.0, hurry=worker.hurry)

    sys.exit(run_workers(4, serve, host="127.0.0.1", port=6566))

Each worker is a spawned process (a fresh interpreter) that accepts on a socket of its own; all are bound with
SO_REUSEPORT and the kernel spreads connections over them. The supervisor holds all of these sockets, so that none is
reset when a worker ends, and replaces the workers one by one on SIGHUP (supervisor.py). A worker whose supervisor
is gone stops by itself. With one worker there is no second process.
"""

from __future__ import annotations

import signal

from fastserve.errors import ConfigError
from fastserve.http.supervisor import Supervisor, Target
from fastserve.http.worker import RESTART_SIGNAL, Announce, Worker, open_sockets, ready_line

__all__ = ["Announce", "Target", "Worker", "run_workers"]


def run_workers(
    count: int,
    target: Target,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    stop_timeout_s: float = 30.0,
    start_timeout_s: float = 60.0,
    max_start_failures: int = 3,
    announce: Announce | None = None,
) -> int:
    """Run `target` in `count` processes until SIGTERM or SIGINT; call it in the main thread.

    Args:
        count: workers; 1 calls `target` in this process.
        target: a picklable callable; see the module's docstring.
        host, port: where the workers listen; port 0 takes a free one.
        stop_timeout_s: a worker still there this long after it was told to stop is killed.
        start_timeout_s: a worker not ready this long after its start is killed.
        max_start_failures: give up after a worker failed this often in a row before it was ready, and
            nobody else serves.
        announce: the line to print when all are ready, from (count, host, port); default `ready_line`.

    Returns:
        the exit status: 0 after a clean stop, 1 when a worker could not be started or had to be killed.

    Raises:
        ConfigError: the port is taken, or `count` is not positive.
    """
    if count < 1:
        raise ConfigError(f"{count} workers", where="workers", hint="give 1 or more")
    sockets = open_sockets(host, port, count)
    port = int(sockets[0].getsockname()[1])
    announce = announce or ready_line
    if count == 1:
        signal.signal(RESTART_SIGNAL, signal.SIG_IGN)  # until the worker says that it does nothing
        target(Worker(0, 1, host, port, None, {0: sockets[0]}, announce))
        return 0
    supervisor = Supervisor(
        target,
        host,
        sockets,
        stop_timeout_s=stop_timeout_s,
        start_timeout_s=start_timeout_s,
        max_start_failures=max_start_failures,
        announce=announce,
    )
    return supervisor.run()
