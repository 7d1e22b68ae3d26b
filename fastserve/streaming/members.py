"""Which workers live, and which shards each of them is to have.

Every worker notes in the store, twice a second, that it lives; one not heard of for `ALIVE_S` is dead. Shards are dealt
out in turn to the workers that live, sorted by name: all of them come to the same shares without a word. A share says
who *should* own a shard. Who does is in the shard's state, and a fence: see base.LostShardError.

A Spark engine is a worker that has all shards, and where one lives the others stand by: its sources read all of a feed.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from secrets import token_hex
from typing import Final, TypeVar

from fastserve.errors import StoreError
from fastserve.streaming.base import FeedStore

log = logging.getLogger(__name__)
T = TypeVar("T")

ALIVE_S: Final = 3.0
BEAT_S: Final = 0.5
SPARK: Final = "spark:"
"""How the name of a Spark engine begins."""


def worker_name(engine: str = "") -> str:
    """Of this process, never given twice; `engine` is SPARK for one that is to have all shards."""
    return f"{engine}{socket.gethostname()}-{os.getpid()}-{token_hex(3)}"


def share(things: Sequence[T], workers: Sequence[str], worker: str) -> list[T]:
    """The things that a worker is to have; none if it is not among the workers."""
    workers = [name for name in workers if name.startswith(SPARK)][:1] or workers
    if worker not in workers:
        return []
    return list(things[workers.index(worker) :: len(workers)])


class Members:
    """This worker's life sign, from a thread of its own: work that takes long is no death.

    Args:
        open_store: makes the thread's own store.
        project, worker: who lives.
    """

    def __init__(self, open_store: Callable[[], FeedStore], project: str, worker: str) -> None:
        self._open_store = open_store
        self._project, self._worker = project, worker
        self._alive: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fastserve-beat", daemon=True)

    @property
    def alive(self) -> list[str]:
        """The workers that live, as of the last life sign; none while the store does not answer."""
        return self._alive

    def start(self) -> None:
        """Give the first life sign, and go on with it.

        Raises:
            StoreError: the store does not answer.
        """
        store = self._open_store()
        try:
            self._alive = store.beat(self._project, self._worker, ALIVE_S)
        finally:
            store.close()
        self._thread.start()

    def stop(self) -> None:
        """Be gone, for all to see."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        store = self._open_store()
        while not self._ended.wait(BEAT_S):
            try:
                self._alive = store.beat(self._project, self._worker, ALIVE_S)
            except StoreError as error:
                self._alive = []
                log.warning("no life sign: %s", error.message)
        try:
            store.leave(self._project, self._worker)
        except StoreError as error:
            log.warning("the others will notice in %g s that this worker is gone: %s", ALIVE_S, error.message)
        store.close()
