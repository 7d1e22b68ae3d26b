"""Clients against `fastserve serve` as a process of its own: it is stopped, it restarts; the client forks."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from fastserve import errors
from fastserve.client import AsyncClient, Client, Retry
from tests.integration.serving.test_serve_process import repo, serving
from tests.servers import free_port

__all__ = ["repo"]  # the fixture
ROOT = Path(__file__).resolve().parents[3]


async def test_a_stopped_server_costs_the_deadline_and_no_more(repo: Path, http: str) -> None:
    with serving(repo) as (port, process):
        async with AsyncClient(f"http://127.0.0.1:{port}", http=http) as client:
            right = await client.get_online_features(service="ranking", entities={"user_id": [1, 9]})
            assert right.to_dict() == {"clicks": [10, None], "name": ["u1", None]}
            process.send_signal(signal.SIGSTOP)
            try:
                calls = [client.health(deadline_ms=100) for _ in range(20)]
                outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20)
            finally:
                process.send_signal(signal.SIGCONT)
            assert {type(outcome) for outcome in outcomes} == {errors.DeadlineError}
            again = await client.get_online_features(service="ranking", entities={"user_id": [1, 9]})
            assert again.to_dict() == right.to_dict()


async def test_a_process_restarts_and_no_call_fails(repo: Path, http: str) -> None:
    port = free_port()
    retry = Retry(attempts=10_000, base_s=0.02, max_s=0.05, spare=1_000_000)
    async with AsyncClient(f"http://127.0.0.1:{port}", http=http, retry=retry, deadline_ms=60_000) as client:
        done = asyncio.Event()
        answered = threading.Semaphore(0)

        async def load() -> None:
            while not done.is_set():
                found = await client.get_online_features(service="ranking", entities={"user_id": [1]})
                assert found.to_dict()["clicks"] == [10]
                answered.release()

        def serve_for_a_while() -> None:
            with serving(repo, "--port", str(port)):  # ended by SIGTERM, in the middle of the load
                for _ in range(100):
                    assert answered.acquire(timeout=30)

        workers = [asyncio.create_task(load()) for _ in range(8)]
        for _ in range(3):
            await asyncio.to_thread(serve_for_a_while)
        done.set()
        for worker in workers:
            worker.cancel()  # the last server is gone: what is under way now has nobody to answer it
        ended = await asyncio.gather(*workers, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) or outcome is None for outcome in ended), ended


async def test_a_forked_process_makes_connections_of_its_own(repo: Path) -> None:
    script = """
import os, sys
from fastserve.client import Client
client = Client(sys.argv[1])
ask = lambda: client.get_online_features(service="ranking", entities={"user_id": [1]}).to_dict()["clicks"]
assert ask() == [10]
child = os.fork()
if child == 0:
    os._exit(0 if ask() == [10] else 1)
assert ask() == [10] and os.waitpid(child, 0)[1] == 0
client.close()
"""
    with serving(repo) as (port, _):
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", script, f"http://127.0.0.1:{port}"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_blocking_client_needs_no_loop(repo: Path) -> None:
    with serving(repo) as (port, _), Client(f"http://127.0.0.1:{port}") as client:
        assert client.get_online_features(["stats:name"], {"user_id": [2]}).to_dict() == {"name": ["u2"]}
