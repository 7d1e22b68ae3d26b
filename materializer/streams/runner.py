"""`fastserve stream run --engine spark`: a worker whose hands are a Spark cluster.

    settle   where a Spark engine lives, it has all shards, and workers stand by (members.py): claim them
    flows    a streaming query for each feed, once all of its shards are ours; one that failed is begun anew
    look     definitions that changed go to the flows with their next batch

Spark is asked for nothing but to run tasks: what was done is known from the shards' states alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fastserve.config import Config
from fastserve.errors import FastserveError, MaterializeError, StoreError
from fastserve.loading import show_pandas
from fastserve.streaming.base import FeedStore
from fastserve.streaming.feeds import Feed, heard
from fastserve.streaming.members import SPARK, Members, share, worker_name
from fastserve.streaming.owned import claimed
from fastserve.streaming.settings import StreamSettings
from fastserve.streaming.state import ShardState, decode_state
from fastserve.timeutil import now_us
from materializer.engine.reach import check_reach
from materializer.engine.spark import open_context, session_of
from materializer.streams.flow import Flow, told
from materializer.streams.kafka import check_connector
from materializer.streams.tasks import Ticket

log = logging.getLogger(__name__)

_TURN_S: Final = 0.2
_TRIM_S: Final = 30.0
_BACKOFF_S: Final = (0.5, 10.0)
_RELEASE_TRIES: Final = 100


@dataclass(frozen=True, slots=True)
class Claimed:
    """A shard that is ours, and the state it was claimed with."""

    feed: Feed
    shard: int
    state: ShardState


class SparkRunner:
    """See the module's docstring; a fastserve.streaming.run.Runner.

    Args:
        open_store: makes a FeedStore; one for the runner, one for its life sign.
        feeds: the feeds now.
        master: of Spark; None for what fastserve.toml or Spark's own configuration says.

    Raises:
        ConfigError: pyspark or a connector is missing, Spark does not start, or does not reach the stores.
        StoreError: the store does not answer.
    """

    def __init__(
        self,
        config: Config,
        open_store: Callable[[], FeedStore],
        feeds: Callable[[], Sequence[Feed]],
        settings: StreamSettings,
        master: str | None = None,
    ) -> None:
        self.name = worker_name(SPARK)
        self.owned: dict[tuple[str, int], Claimed] = {}
        self._config, self._settings, self._feeds = config, settings, feeds
        self._flows: dict[str, Flow] = {}
        self._known: Sequence[Feed] = ()
        self._trim_at = 0.0
        if known := master or config.spark.get("spark.master"):
            check_reach(config, {"online"}, known)  # before a start that takes a while
        show_pandas()  # pyspark has uses for it
        self._context, self._is_ours = open_context(config.spark, master)
        try:
            check_reach(config, {"online"}, str(self._context.master))
            if settings.kafka_reader == "connector":
                check_connector(self._context)
            self._session = session_of(self._context)
            self._store = open_store()
        except BaseException:
            self._close_context()
            raise
        self._members = Members(open_store, config.project, self.name)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; then give all shards back.

        Raises:
            StoreError: the store does not answer at the start.
            MaterializeError: Spark is gone.
        """
        try:
            self._members.start()
            failures = 0
            while not stop.is_set():
                try:
                    self._turn()
                    failures = 0
                except StoreError as error:
                    failures += 1
                    log.warning("%s; trying again", error.message)
                    self._let_go(list(self._flows))
                    self.owned.clear()
                    stop.wait(min(_BACKOFF_S[0] * 2 ** min(failures, 8), _BACKOFF_S[1]))
                stop.wait(_TURN_S)
        finally:
            self._let_go(list(self._flows))
            self._release_all()
            self._members.stop()
            self._store.close()
            self._close_context()

    # ---- a turn ------------------------------------------------------------------------------

    def _turn(self) -> None:
        if self._is_spark_gone():
            raise MaterializeError(
                "Spark has stopped", where="--engine spark", hint="its log says why; start again"
            )
        feeds = self._look()
        if not share([0], self._members.alive, self.name):  # another Spark engine's, or nobody heard of us
            self._let_go(list(self._flows))
            self._release_all()
            return
        for name, flow in list(self._flows.items()):
            if (failure := flow.failure()) is not None:
                self._let_go([name])
                self._forget(name)
                raise StoreError(f"{name}: {told(failure)}")
        self._trim()
        for feed in feeds:
            if feed.name not in self._flows:
                self._begin(feed)

    def _look(self) -> Sequence[Feed]:
        """The feeds; flows hear of what changed."""
        feeds = heard(self._feeds, self._known)
        if feeds is not self._known:
            self._known = feeds
            now = {feed.name: feed for feed in feeds}
            gone = [name for name in self._flows if name not in now]
            self._let_go(gone)
            for name in gone:
                self._release(name)
            for name, flow in self._flows.items():
                flow.redefine(now[name])
        return feeds

    def _begin(self, feed: Feed) -> None:
        """Claim what is free; when all shards are ours, begin."""
        count = self._store.shard_count(feed, self._settings.shards)
        for shard in range(count):
            if (feed.name, shard) not in self.owned:
                state = claimed(self._store, feed, shard, self.name, self._members.alive)
                if state is None:
                    return
                self.owned[feed.name, shard] = Claimed(feed, shard, state)
                log.info("%s, shard %d: ours, from %s on", feed.name, shard, state.offset)
        states = {shard: self.owned[feed.name, shard].state for shard in range(count)}
        ticket = Ticket(
            self._config,
            feed,
            self.name,
            {shard: state.epoch for shard, state in states.items()},
            {shard: state.offset for shard, state in states.items()},
            f"{self.name}/{sum(state.epoch for state in states.values())}",
        )
        try:
            self._flows[feed.name] = Flow(self._session, ticket, self._settings, self._checkpoint())
        except FastserveError:
            raise
        except Exception as error:
            raise MaterializeError(
                f"Spark does not begin a query: {told(error)}",
                where=f"{feed.name}, checkpoint {self._checkpoint()}",
                hint="[streaming] checkpoint is to be a directory, or a URL that Spark can open",
            ) from None

    def _trim(self) -> None:
        """Let logs go of what was applied long ago."""
        if time.monotonic() < self._trim_at:
            return
        self._trim_at = time.monotonic() + _TRIM_S
        for one in list(self.owned.values()):
            self._store.trim(
                one.feed,
                one.shard,
                self._state(one)[1].offset,
                now_us() - self._settings.retention_us,
                archived=self._settings.archive_us is not None,
            )

    # ---- an end ------------------------------------------------------------------------------

    def _let_go(self, names: Sequence[str]) -> None:
        """End flows."""
        for name in names:
            try:
                self._flows.pop(name).stop()
            except Exception as error:  # a Spark that is gone runs nothing
                log.warning("%s: %s", name, told(error))

    def _forget(self, name: str) -> None:
        """Claim a feed's shards anew: in another epoch than tasks that may still run."""
        self.owned = {place: one for place, one in self.owned.items() if place[0] != name}

    def _release(self, name: str) -> None:
        """Give a feed's shards back."""
        for place, one in list(self.owned.items()):
            if place[0] != name:
                continue
            del self.owned[place]
            for _ in range(_RELEASE_TRIES):  # a cancelled task may have one transaction left
                held, state = self._state(one)
                if (state.owner, state.epoch) != (self.name, one.state.epoch):
                    break
                if self._store.swap(one.feed, one.shard, held, state.released().encode()):
                    break

    def _release_all(self) -> None:
        for name in {name for name, _ in self.owned}:
            try:
                self._release(name)
            except StoreError as error:
                log.warning("%s: its shards are not given back: %s", name, error.message)

    def _close_context(self) -> None:
        if self._is_ours:
            try:
                self._context.stop()
            except Exception as error:
                log.warning("Spark: %s", told(error))

    # ---- small things ------------------------------------------------------------------------

    def _state(self, one: Claimed) -> tuple[bytes | None, ShardState]:
        (held,) = self._store.states([(one.feed, one.shard)])
        return held, decode_state(held, f"{one.feed.name}, shard {one.shard}")

    def _checkpoint(self) -> str:
        """Where Spark's notes are: a URL, or a path as seen from the repo."""
        given = self._settings.checkpoint
        return given if "://" in given else str(self._config.repo / given)

    def _is_spark_gone(self) -> bool:
        try:
            return bool(self._context._jsc.sc().isStopped())
        except Exception:
            return True
