"""Aggregated feature views: features that the store computes from events, by windows of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from fastserve.definitions.aggregation import EVERY, FUNCTIONS, Aggregation
from fastserve.definitions.entity import Entity
from fastserve.definitions.event_source import EventSource
from fastserve.definitions.field import Field
from fastserve.definitions.freeze import freeze
from fastserve.definitions.source import Source
from fastserve.definitions.view import FeatureView
from fastserve.display import html_table
from fastserve.types import SCALARS


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatedFeatureView(FeatureView):
    """Aggregations of an entity's events over windows that end at the time asked for.

    Args:
        name, entities, max_staleness, version, online, description, tags, owner: as of a FeatureView.
        source: an EventSource.
        aggregations: what is computed; the view's schema follows from it, in this order.
        filter: an SQL condition on the events' columns (``"status = 'paid'"``); other events do not count.

    Attributes:
        schema: the features. Those that count have a default of 0: what an entity without events has.
    """

    aggregations: tuple[Aggregation, ...] = ()
    filter: str = ""

    def __init__(
        self,
        name: str,
        *,
        source: EventSource,
        aggregations: Sequence[Aggregation],
        entities: Sequence[Entity | str] | Entity | str = (),
        filter: str = "",
        max_staleness: timedelta | str | None = None,
        version: int = 1,
        online: bool = True,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str = "",
    ) -> None:
        FeatureView.__init__(
            self,
            name,
            entities=entities,
            schema=tuple(_fields(source, tuple(aggregations))),
            source=source,
            max_staleness=max_staleness,
            version=version,
            online=online,
            offline=False,  # its history is the events'
            description=description,
            tags=tags,
            owner=owner,
        )
        freeze(self, aggregations=tuple(aggregations), filter=filter)

    @property
    def events(self) -> EventSource:
        """Its source."""
        assert isinstance(self.source, EventSource)  # validate.py refuses others
        return self.source

    def _repr_html_(self) -> str:
        about = f"by {', '.join(self.entities) or 'nothing: one global row'}; of events {self.events.name}"
        about += f" where {self.filter}" if self.filter else ""
        windows = [(a, name, window) for a in self.aggregations for name, window in a.features()]
        rows = [
            (name, field.dtype, a.function, a.column, window, a.hop or "default")
            for field, (a, name, window) in zip(self.schema, windows, strict=True)
        ]
        header = ("feature", "type", "function", "column", "window", "hop")
        return html_table(f"AggregatedFeatureView {self.name}@v{self.version}", header, rows, about)


def _fields(source: Source, aggregations: Sequence[Aggregation]) -> Iterator[Field]:
    """The schema that follows. Of what is wrong, a field of some type: validate_windows.py says what it is."""
    for aggregation in aggregations:
        counts = aggregation.function in ("count", "count_distinct")
        dtype = aggregation.dtype(_column_type(source, aggregation))
        for name, _ in aggregation.features():
            yield Field(
                name,
                dtype,
                default=0 if counts else None,
                description=aggregation.description,
                tags=aggregation.tags,
            )


def _column_type(source: Source, aggregation: Aggregation) -> str:
    column = source.column(aggregation.column) if isinstance(source, EventSource) else None
    if aggregation.column == EVERY or aggregation.function not in FUNCTIONS or column is None:
        return "float64"
    return column.dtype if column.dtype in SCALARS else "float64"
