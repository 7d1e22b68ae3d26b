"""Event sources: what happened, one row an event; aggregated views are computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from fastserve.definitions.field import Field
from fastserve.definitions.freeze import freeze, frozen_tags
from fastserve.timeutil import MICROS, parse_duration
from fastserve.types import DType, String, parse_dtype

if TYPE_CHECKING:
    from fastserve.definitions.source import BatchSource

LATENESS_US: Final = 3_600 * MICROS
"""How late an event may come where nothing is said: an hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSource:
    """Events, and the table that holds their history.

    Args:
        name: the source's name.
        batch_source: their history, one row an event. Its timestamp field is the event's time; its created column,
            if it has one, the time at which the event became known.
        schema: the events' columns that aggregations and filters may use, of scalar types. Join keys need not be
            listed: entities say what they are.
        event_id: column that identifies an event, so that one which comes twice counts once: of the rows with one id
            the one with the least (event time, created time, position) holds. Text, unless the schema lists it with
            another type. '' for none: every row is an event.
        lateness: how long after newer events of a stream an event may still come and count. History takes all.
        description, tags, owner: for people; they change nothing that is computed.
    """

    name: str
    batch_source: BatchSource | None = None
    schema: tuple[Field, ...] = ()
    event_id: str = ""
    lateness_us: int = LATENESS_US
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    owner: str = ""

    def __init__(
        self,
        name: str,
        batch_source: BatchSource | None = None,
        *,
        schema: Sequence[Field] = (),
        event_id: str = "",
        lateness: timedelta | str | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str = "",
    ) -> None:
        freeze(
            self,
            name=name,
            batch_source=batch_source,
            schema=tuple(schema),
            event_id=event_id,
            lateness_us=LATENESS_US if lateness is None else parse_duration(lateness),
            description=description,
            tags=frozen_tags(tags),
            owner=owner,
        )

    def column(self, name: str) -> Field | None:
        """The column of that name, if the schema lists it."""
        return next((f for f in self.schema if f.name == name), None)

    @property
    def event_id_type(self) -> DType:
        """The type of event ids."""
        listed = self.column(self.event_id)
        return String if listed is None else parse_dtype(listed.dtype)
