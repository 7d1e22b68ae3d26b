"""A real server reads while rows are built anew, switched, switched back and removed: each answer is of one set."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastserve.online import OnlineStore, open_store
from fastserve.timeutil import now_us
from materializer.reclaim import prefix_of
from materializer.refresh import RefreshRequest, SetsSummary, reclaim, refresh, rollback
from tests.integration.materializer.repo import DAY, HOUR, T0, Repo
from tests.servers import serving, start_redis
from tests.support import put

USERS = [f"u{n}" for n in range(40)]
OLD, NEW = 1.0, 2.0
BODY = json.dumps({"features": ["stats:amount"], "entities": {"user": USERS}})


@pytest.fixture(params=["lmdb", "redis"])
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Repo]:
    """All rows served say OLD, though the history says NEW."""
    server = start_redis(tmp_path) if request.param == "redis" else None
    repo = Repo.make(tmp_path / "repo", online=server.url if server else f"lmdb://{tmp_path}/online?sync=off")
    repo.write([{"user": user, "event_timestamp": T0, "created": T0, "amount": NEW} for user in USERS])
    repo.materialize(T0 + DAY, incremental=True)

    async def spoil() -> None:
        store = open_store(repo.config.online_store)
        rows = [{"user": user, "amount": OLD} for user in USERS]
        await put(store, repo.view(), rows, event_us=T0 + HOUR)
        await store.close()

    asyncio.run(spoil())
    yield repo
    if server:
        server.stop()


class Reader:
    """A thread that asks without pause.

    Attributes:
        last: the value of the newest answer.
        answers: how many there were.
        wrong: those that were not all of one value, and failures.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self._news = threading.Condition()
        self.last: float | None = None
        self.answers = 0
        self.wrong: list[Any] = []
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def until(self, value: float) -> None:
        """Wait until an answer says so."""
        self._wait(lambda: self.last == value)

    def more(self, n: int = 50) -> None:
        """Wait for so many more answers."""
        enough = self.answers + n
        self._wait(lambda: self.answers >= enough)

    def _wait(self, ready: Any) -> None:
        with self._news:
            assert self._news.wait_for(lambda: self.wrong or ready(), 30), (self.last, self.answers)
        assert not self.wrong

    def _read(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._over.is_set():
            try:
                connection.request(
                    "POST", "/online-features/batch", BODY, {"content-type": "application/json"}
                )
                answer = connection.getresponse()
                told = json.loads(answer.read())
                values = set(told["values"][0])
                right = answer.status == 200 and len(values) == 1 and values <= {OLD, NEW}
            except Exception as error:
                told, values, right = repr(error), set(), False
            with self._news:
                if right:
                    self.answers += 1
                    [self.last] = values
                else:
                    self.wrong.append(told)
                self._news.notify_all()
        connection.close()


def refreshed(repo: Repo) -> SetsSummary:
    summary = refresh(repo.config, RefreshRequest(view="stats", now_us=T0 + DAY))
    assert summary.status == "ok", summary.error
    return summary


def reclaimed(repo: Repo, rows: int) -> None:
    assert reclaim(repo.config, now_us=now_us() + 2 * HOUR).removed.rows == rows


def test_no_answer_has_rows_of_both_and_none_fails(repo: Repo) -> None:
    with serving(repo.path, "--workers", "2") as (port, _), Reader(port) as one, Reader(port) as two:
        both = (one, two)
        for reader in both:
            reader.until(OLD)
        refreshed(repo)
        for reader in both:
            reader.until(NEW)
        rollback(repo.config, "stats")
        for reader in both:
            reader.until(OLD)
        rollback(repo.config, "stats")
        for reader in both:
            reader.until(NEW)
            reader.more()
        reclaimed(repo, len(USERS))
        for reader in both:
            reader.more()
            assert reader.last == NEW


def test_a_server_without_the_registry_follows_the_store(repo: Repo, tmp_path: Path) -> None:
    with serving(repo.path) as (port, _), Reader(port) as reader:
        reader.until(OLD)
        elsewhere = repo.copy(tmp_path / "elsewhere")
        for path in repo.path.glob(".fastserve/registry.db*"):
            os.rename(path, path.with_name(f"away-{path.name}"))
        refreshed(elsewhere)
        reader.until(NEW)
        reclaimed(elsewhere, len(USERS))
        assert rows_of(elsewhere, 1) == 0
        reader.more()
        assert reader.last == NEW


def rows_of(repo: Repo, online_id: int) -> int:
    async def look() -> int:
        store: OnlineStore = open_store(repo.config.online_store)
        n = len([key async for key in store.scan(prefix_of(online_id))])
        await store.close()
        return n

    return asyncio.run(look())
