"""The supervisor, as a process of its own with real workers."""

import asyncio
import re
import signal
import socket

import pytest

from fastserve.errors import ConfigError
from fastserve.http.workers import run_workers
from tests.integration.http.wire import WAIT_S, Raw
from tests.integration.http.worker_targets import serve


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("count", [1, 3])
async def test_serves_on_one_port_and_stops_cleanly(supervise, count, number):
    workers = "1 worker" if count == 1 else f"{count} workers"
    supervised = await (await supervise("serve", count)).ready(workers)
    answers = set()
    async with asyncio.timeout(WAIT_S):
        while len(answers) < count:  # the kernel spreads connections over the workers
            answers.add(await supervised.get())
    slow = asyncio.ensure_future(supervised.get("/slow"))
    assert await supervised.line() == "slow begins"
    status, out, err = await supervised.stop(number)
    assert (status, err) == (0, "")
    assert sorted(out.split("\n")[:-1]) == [f"draining {i}" for i in range(count)]
    assert await slow == b"slow"


async def test_crashed_worker_is_replaced(supervise):
    supervised = await (await supervise("serve", 2)).ready("2 workers")
    async with asyncio.timeout(WAIT_S):
        before = set()
        while len(before) < 2:
            before.add(await supervised.get())
        await supervised.get("/crash")
        now = set()
        while len(now - {None}) < 2 or not now - before - {None}:
            pid = await supervised.get()
            now.add(pid)
    status, _, err = await supervised.stop()
    assert status == 0
    assert re.search(r"worker \d ended with status 3: again in 0\.1 s", err)


async def test_a_failed_start_is_tried_again(supervise, tmp_path):
    supervised = await (await supervise("fail_once", 2, 0, tmp_path)).ready("2 workers")
    status, _, err = await supervised.stop()
    assert status == 0 and err.count("ended with status 5") == 2


async def test_gives_up_when_workers_cannot_start(supervise):
    status, out, err = await (await supervise("fail", 2)).end()
    assert status == 1 and out == ""
    assert "RuntimeError: cannot start" in err
    assert "failed 3 times before it was ready" in err and "giving up" in err


async def test_a_stubborn_worker_is_killed(supervise):
    supervised = await (await supervise("stubborn", 2)).ready("2 workers")
    status, _, err = await supervised.stop()
    assert status == 1 and err.count("did not stop in 0.5 s: killed") == 2


async def test_a_stop_that_comes_twice_at_once_still_drains(supervise):
    """As from a launcher that signals its child and then the whole group."""
    supervised = await (await supervise("serve", 2)).ready("2 workers")
    slow = asyncio.ensure_future(supervised.get("/slow"))
    assert await supervised.line() == "slow begins"
    supervised.process.send_signal(signal.SIGTERM)
    assert (await supervised.line()).startswith("draining")
    status, _, err = await supervised.stop()
    assert (status, err, await slow) == (0, "", b"slow")


@pytest.mark.parametrize("count", [1, 2])
async def test_busy_port(supervise, count):
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as busy:
        port = busy.getsockname()[1]
        status, out, err = await (await supervise("serve", count, port)).end()
    assert status == 1 and out == ""
    assert f"127.0.0.1:{port}: the port is taken" in err and "hint: " in err


async def test_workers_stop_when_the_supervisor_is_killed(supervise):
    supervised = await (await supervise("serve", 2)).ready("2 workers")
    pids = set()
    async with asyncio.timeout(WAIT_S):
        while len(pids) < 2:
            pids.add(await supervised.get())
    supervised.process.kill()
    _, out, _ = await supervised.end()  # their ends of stdout close when they are gone
    assert sorted(out.split("\n")[:-1]) == ["draining 0", "draining 1"]
    with pytest.raises(OSError):
        await Raw.connect(supervised)


def test_at_least_one_worker():
    with pytest.raises(ConfigError, match="1 or more"):
        run_workers(0, serve)
