"""One feed's streaming query."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

from fastserve.errors import FastserveError
from fastserve.streaming.feeds import Feed
from fastserve.streaming.settings import StreamSettings
from materializer.engine.spark import reason_of
from materializer.streams.kafka import topic_frame
from materializer.streams.tasks import Answer, Row, Ticket, applied


class Flow:
    """Runs from its making until it fails or is stopped.

    Args:
        session: a SparkSession.
        ticket: the feed, and its shards, all of which are the runner's.
        checkpoint: path or URL of Spark's own notes; it may be gone, or be old.

    Raises:
        Exception: Spark does not start it.
    """

    def __init__(self, session: Any, ticket: Ticket, settings: StreamSettings, checkpoint: str) -> None:
        self._ticket = ticket
        self._changes = 0
        self._failure: Exception | None = None
        self._stopping = False
        writer = _entries(session, ticket, settings).writeStream.foreachBatch(self._batch)
        if settings.kafka_reader == "client":
            writer = writer.option("checkpointLocation", f"{checkpoint}/{_plain(ticket.feed)}")
        interval = f"{settings.trigger_us // 1_000} milliseconds"
        self._query = writer.queryName(ticket.feed.name).trigger(processingTime=interval).start()

    @property
    def feed(self) -> Feed:
        """As it is defined."""
        return self._ticket.feed

    def redefine(self, feed: Feed) -> None:
        """From the next batch on it is defined so."""
        self._changes += 1
        self._ticket = replace(self._ticket, feed=feed, version=f"{self._ticket.version}+{self._changes}")

    def failure(self) -> Exception | None:
        """Why it ended; None while it runs."""
        if self._query.isActive:
            return None
        return self._failure or self._query.exception() or RuntimeError("somebody stopped it")

    def stop(self) -> None:
        """End it; tasks that run are cancelled."""
        self._stopping = True
        self._query.stop()

    def _batch(self, frame: Any, batch_id: int) -> None:
        """One of Spark's batches. What it is called does not matter, see materializer.streams."""
        ticket = self._ticket

        def work(rows: Iterable[Row]) -> Iterator[Answer]:
            return applied(ticket, rows)

        try:
            answers = frame.rdd.mapPartitions(work).collect()
        except Exception as error:
            if self._stopping:  # it was cancelled; that Spark takes it for done does not matter either
                return
            self._failure = error
            # Pages of stack traces would overflow the stack of Spark's thread, which looks through them by a pattern.
            raise RuntimeError(told(error)) from None
        reached = {shard: offset for shard, _, offset, _ in answers if offset is not None}
        self._ticket = replace(self._ticket, reached={**self._ticket.reached, **reached})
        errors = [pickle.loads(error) for _, _, _, error in answers if error is not None]
        if errors:
            self._failure = errors[0]
            raise RuntimeError(told(errors[0]))


def _entries(session: Any, ticket: Ticket, settings: StreamSettings) -> Any:
    """The feed's logs as a stream of tasks.ENTRIES."""
    if settings.kafka_reader == "connector":
        from fastserve.streaming.kafka_feeds import topic_of  # noqa: PLC0415  (needs confluent-kafka)

        return topic_frame(session, settings.kafka, topic_of(ticket.feed), ticket.reached)
    from materializer.streams.source import source_of  # noqa: PLC0415  (pyspark)

    made = source_of(ticket.config, ticket.feed, f"fastserve_{_plain(ticket.feed)}_{uuid4().hex}")
    session.dataSource.register(made)
    return session.readStream.format(made.name()).load()


def _plain(feed: Feed) -> str:
    """A name for it that no file system minds."""
    return re.sub(r"\W", "-", f"{feed.project}.{feed.name}", flags=re.ASCII)


def told(error: Exception) -> str:
    """An error in a line."""
    if isinstance(error, FastserveError):
        return str(error)
    return reason_of(str(error))
