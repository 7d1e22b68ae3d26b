"""The stream worker: owns its share of all shards, and applies what comes.

    settle   give back shards that another is to have, claim those that we are to have and nobody owns
    step     the owned shards, in threads where the store can: their next entries, a transaction each time
    wait     nothing anywhere: until an entry comes, or a moment

Nothing that is in a log stops it (dead letters), and neither does a store that is gone for a while: it lets go of what
it knows, and claims anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final

from fastserve.errors import FastserveError, StoreError
from fastserve.streaming.base import FeedStore, LostShardError, Place
from fastserve.streaming.feeds import Feed, heard
from fastserve.streaming.members import Members, share
from fastserve.streaming.owned import OwnedShard, claim
from fastserve.streaming.settings import StreamSettings
from fastserve.timeutil import now_us

log = logging.getLogger(__name__)

_SETTLE_S: Final = 0.2
_WAIT_S: Final = 0.2
_TURN_S: Final = 0.05
"""So long a shard that has much may keep one waiting that had nothing a moment ago."""
_TRIM_S: Final = 30.0
_BACKOFF_S: Final = (0.1, 2.0)


class Worker:
    """See the module's docstring. One thread runs it; others may look at `owned`.

    Args:
        open_store: makes a FeedStore; one for the worker, one for its life sign.
        project: the project.
        name: the worker's, members.worker_name().
        feeds: the feeds now; asked again every few seconds.
        settings: how many shards a new feed gets, and how long applied entries stay.
        now: the clock, microseconds UTC: when rows were written.
    """

    def __init__(
        self,
        open_store: Callable[[], FeedStore],
        project: str,
        name: str,
        feeds: Callable[[], Sequence[Feed]],
        *,
        settings: StreamSettings,
        now: Callable[[], int] = now_us,
    ) -> None:
        self.name = name
        self.owned: dict[tuple[str, int], OwnedShard] = {}
        self._store = open_store()
        self._members = Members(open_store, project, name)
        self._feeds, self._settings, self._now = feeds, settings, now
        self._places: list[Place] = []
        self._known: Sequence[Feed] = ()
        self._settle_at = self._trim_at = 0.0
        self._lanes = ThreadPoolExecutor(self._store.lanes, "fastserve-lane")

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; then give all shards back.

        Raises:
            StoreError: the store does not answer at the start.
        """
        self._members.start()
        try:
            failures = 0
            while not stop.is_set():
                try:
                    self._turn(stop)
                    failures = 0
                except StoreError as error:
                    failures += 1
                    log.warning("%s; trying again", error.message)
                    self.owned.clear()
                    self._settle_at = 0.0
                    stop.wait(min(_BACKOFF_S[0] * 2 ** min(failures, 8), _BACKOFF_S[1]))
        finally:
            self._lanes.shutdown()
            self._release_all()
            self._members.stop()
            self._store.close()

    def _turn(self, stop: threading.Event) -> None:
        """All owned shards once."""
        if time.monotonic() >= self._settle_at:
            self._settle()
            self._settle_at = time.monotonic() + _SETTLE_S
        if time.monotonic() >= self._trim_at:
            for shard in self.owned.values():
                shard.trim(
                    self._now() - self._settings.retention_us, archived=self._settings.archive_us is not None
                )
            self._trim_at = time.monotonic() + _TRIM_S
        self._step_all(stop)
        if any(shard.behind for shard in self.owned.values()):
            return
        places = {(shard.feed, shard.shard): shard.state.offset for shard in self.owned.values()}
        if places:
            self._store.wait(places, _WAIT_S)
        else:
            stop.wait(_WAIT_S)

    def _step_all(self, stop: threading.Event) -> None:
        """What the shards have, for a while, several at once where the store can."""
        until = time.monotonic() + _TURN_S
        run = self._lanes.submit if self._store.lanes > 1 else _here
        tasks = {place: run(_steps, shard, until, stop) for place, shard in self.owned.items()}
        wait(tasks.values())
        for place, task in tasks.items():
            try:
                task.result()
            except LostShardError:
                log.warning("%s, shard %d: another worker owns it now", *place)
                del self.owned[place]

    def _settle(self) -> None:
        self._look()
        alive = self._members.alive
        ours = {(feed.name, shard): feed for feed, shard in share(self._places, alive, self.name)}
        for place in [place for place in self.owned if place not in ours]:
            self.owned.pop(place).release()
        for (name, shard), feed in ours.items():
            if (name, shard) not in self.owned:
                cache_bytes = self._settings.cache_bytes
                made = claim(self._store, feed, shard, self.name, alive, self._now, cache_bytes)
                if made is not None:
                    log.info("%s, shard %d: ours, from %s on", name, shard, made.state.offset)
                    self.owned[name, shard] = made

    def _look(self) -> None:
        """The feeds, if they changed: what we own of them is claimed anew."""
        feeds = heard(self._feeds, self._known)
        if feeds is self._known:
            return
        for place in list(self.owned):
            self.owned.pop(place).release()
        self._known = feeds
        self._places = [
            (feed, shard)
            for feed in feeds
            for shard in range(self._store.shard_count(feed, self._settings.shards))
        ]

    def _release_all(self) -> None:
        for place in list(self.owned):
            try:
                self.owned.pop(place).release()
            except StoreError as error:
                log.warning("%s, shard %d is not given back: %s", *place, error.message)


def _here(work: Callable[..., None], *arguments: Any) -> Future[None]:
    """As an executor would do it, at once and in this thread."""
    done: Future[None] = Future()
    try:
        work(*arguments)
        done.set_result(None)
    except FastserveError as error:
        done.set_exception(error)
    return done


def _steps(shard: OwnedShard, until: float, stop: threading.Event) -> None:
    """What a shard has, for some time at most."""
    shard.step()
    while shard.behind and not stop.is_set() and time.monotonic() < until:
        shard.step()
