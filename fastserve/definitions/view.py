"""Feature views: typed columns of one source, about some entities, valid for a time to live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from fastserve.definitions.entity import Entity
from fastserve.definitions.field import Field
from fastserve.definitions.freeze import freeze, frozen_tags, names_of
from fastserve.definitions.source import Source
from fastserve.display import html_table
from fastserve.timeutil import format_duration, parse_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureView:
    """Features computed from one source, keyed by entities.

    Args:
        name: the view's name; refs read ``name:feature`` or ``name@v2:feature``.
        entities: entities (or their names) the rows are keyed by; none for a view with one global row.
        schema: the features.
        source: where rows come from; None for views only ever written to.
        ttl: how long after its event time a row holds (``"2h"`` or a timedelta); None for ever.
        max_staleness: how long a server may answer a copy of a row without asking the online store again (``"5s"``);
            ``"0s"`` for never. Servers hear of changes within milliseconds; this bounds what a lost message
            costs. None: a minute.
        retention: how long the history keeps a row after its event time (``"365d"``), to the end of a UTC date; not
            less than the ttl. `materializer optimize` removes what is older. None: for ever.
        version: declare the next one for a breaking change; versions are served side by side.
        online, offline: which stores materialization fills by default.
    """

    name: str
    entities: tuple[str, ...] = ()
    schema: tuple[Field, ...] = ()
    source: Source | None = None
    ttl_us: int | None = None
    max_staleness_us: int | None = None
    version: int = 1
    online: bool = True
    offline: bool = True
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    owner: str = ""
    retention_us: int | None = None

    def __init__(
        self,
        name: str,
        *,
        entities: Sequence[Entity | str] | Entity | str = (),
        schema: Sequence[Field] = (),
        source: Source | None = None,
        ttl: timedelta | str | None = None,
        max_staleness: timedelta | str | None = None,
        retention: timedelta | str | None = None,
        version: int = 1,
        online: bool = True,
        offline: bool = True,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str = "",
    ) -> None:
        if isinstance(entities, (Entity, str)):
            entities = (entities,)
        freeze(
            self,
            name=name,
            entities=tuple(e.name if isinstance(e, Entity) else e for e in entities),
            schema=tuple(schema),
            source=source,
            ttl_us=None if ttl is None else parse_duration(ttl),
            max_staleness_us=None if max_staleness is None else parse_duration(max_staleness),
            retention_us=None if retention is None else parse_duration(retention),
            version=version,
            online=online,
            offline=offline,
            description=description,
            tags=frozen_tags(tags),
            owner=owner,
        )

    @property
    def is_stored(self) -> bool:
        """Whether it has rows of its own; those of an on-demand view are computed when they are asked for."""
        return True

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features' names in schema order."""
        return tuple(f.name for f in self.schema)

    def field(self, name: str) -> Field | None:
        """The feature of that name, if the view has it."""
        return next((f for f in self.schema if f.name == name), None)

    def __getitem__(self, names: str | Sequence[str]) -> FeatureViewProjection:
        """Some of the features: ``view["a"]`` or ``view[["a", "b"]]``."""
        return replace(self.projection(), features=names_of(names))

    def with_name(self, alias: str) -> FeatureViewProjection:
        """This view under another name, so that it can be joined twice."""
        return self.projection().with_name(alias)

    def with_join_key_map(self, join_key_map: Mapping[str, str]) -> FeatureViewProjection:
        """This view joined on other columns: join key -> the request's or spine's column."""
        return self.projection().with_join_key_map(join_key_map)

    def _repr_html_(self) -> str:
        ttl = "holds for ever" if self.ttl_us is None else f"holds for {format_duration(self.ttl_us)}"
        about = f"by {', '.join(self.entities) or 'nothing: one global row'}; {ttl}"
        rows = [(f.name, f.dtype, f.default, f.description) for f in self.schema]
        header = ("feature", "type", "default", "description")
        return html_table(f"FeatureView {self.name}@v{self.version}", header, rows, about)

    def projection(self) -> FeatureViewProjection:
        """All features, under the view's own name and join keys."""
        return FeatureViewProjection(view=self.name, version=self.version, features=self.feature_names)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureViewProjection:
    """Part of a view as a service uses it.

    Attributes:
        view: the view's name.
        version: its version, or None for the newest registered one.
        features: feature names, in the order they are answered.
        alias: name used for output columns instead of the view's ('' for none).
        join_key_map: join key -> column of the request or spine.
    """

    view: str
    version: int | None
    features: tuple[str, ...]
    alias: str = ""
    join_key_map: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        freeze(self, join_key_map=frozen_tags(self.join_key_map))

    def with_name(self, alias: str) -> FeatureViewProjection:
        """The same under another name."""
        return replace(self, alias=alias)

    def with_join_key_map(self, join_key_map: Mapping[str, str]) -> FeatureViewProjection:
        """The same joined on other columns."""
        return replace(self, join_key_map=join_key_map)

    @property
    def output_name(self) -> str:
        """The prefix of full feature names: the alias, else the view's name."""
        return self.alias or self.view
