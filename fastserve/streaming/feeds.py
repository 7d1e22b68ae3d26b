"""Feeds: the events of one source as the views over it need them dealt out, and what their keys are called.

    payments:card_id             views by card of the source `payments`
    payments:card_id,merchant    views by card and merchant of it: another feed, for its entities lie in other shards

All feeds of a source carry the whole event: its schema is the source's (`event_schema`), with the join keys of all of
its views.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from fastserve.definitions import AggregatedFeatureView, EventSource
from fastserve.errors import FastserveError, RequestError, StoreError, UnknownObjectError
from fastserve.offline.schema import CREATED_TS, EVENT_TS
from fastserve.registry import RegisteredView, Snapshot
from fastserve.types import DType, Timestamp, arrow_type, parse_dtype

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Feed:
    """See the module's docstring.

    Attributes:
        project: the project.
        source: whose events they are.
        join_keys: name -> type, sorted by name: by these the events are dealt out.
        columns: name -> type of every event, see `event_columns`.
        views: those that are computed from it, by name and version.
    """

    project: str
    source: EventSource
    join_keys: Mapping[str, str]
    columns: Mapping[str, DType]
    views: tuple[RegisteredView, ...]

    @property
    def name(self) -> str:
        """``payments:card_id``."""
        return f"{self.source.name}:{','.join(self.join_keys)}"

    @property
    def schema(self) -> pa.Schema:
        """Of its events."""
        return pa.schema([(name, arrow_type(dtype)) for name, dtype in self.columns.items()])

    def key(self, what: str, shard: int | None = None) -> bytes:
        """A key of the feed in the store; no entity's key begins with "!"."""
        of = "" if shard is None else f":{shard}"
        return f"!stream:{self.project}:{self.name}:{what}{of}".encode()


def feeds_of(snapshot: Snapshot, source: str | None = None) -> list[Feed]:
    """The feeds of one event source, or of all, by name.

    Raises:
        UnknownObjectError: there is no such source.
        RequestError: no view that is kept online is computed from it.
    """
    if source is not None and source not in snapshot.event_sources:
        raise UnknownObjectError.of("event source", source, snapshot.event_sources)
    found: dict[tuple[str, tuple[str, ...]], list[RegisteredView]] = {}
    for _, rv in sorted(snapshot.views.items()):
        if isinstance(rv.view, AggregatedFeatureView) and rv.view.online:
            if source in (None, rv.view.events.name):
                found.setdefault((rv.view.events.name, tuple(rv.join_keys)), []).append(rv)
    if source is not None and not found:
        raise RequestError(
            f"no feature view is computed from the events {source!r}",
            hint="declare an AggregatedFeatureView with source=…, and apply it",
        )
    keys: dict[str, dict[str, str]] = {}
    for (name, _), views in found.items():
        keys.setdefault(name, {}).update(views[0].join_keys)
    return [
        Feed(
            snapshot.project,
            snapshot.event_sources[name],
            views[0].join_keys,
            event_columns(snapshot.event_sources[name], keys[name]),
            tuple(views),
        )
        for (name, _), views in sorted(found.items())
    ]


def heard(feeds: Callable[[], Sequence[Feed]], known: Sequence[Feed]) -> Sequence[Feed]:
    """The feeds now; those known so far while the registry is away, for what it said last still holds.

    Raises:
        StoreError: the store does not answer.
    """
    try:
        return feeds()
    except StoreError:
        raise
    except FastserveError as error:
        log.warning("%s", error.message)
        return known


def workers_key(project: str) -> bytes:
    """Beside the feeds' keys: which workers of a project live."""
    return f"!stream:{project}:workers".encode()


def event_columns(source: EventSource, join_keys: Mapping[str, str]) -> dict[str, DType]:
    """Column -> type of a source's events: join keys, event_timestamp, created_timestamp, event id, its schema."""
    found = {name: parse_dtype(join_keys[name]) for name in sorted(join_keys)}
    found |= {EVENT_TS: Timestamp, CREATED_TS: Timestamp}
    if source.event_id:
        found.setdefault(source.event_id, source.event_id_type)
    for column in source.schema:
        found.setdefault(column.name, parse_dtype(column.dtype))
    return found
