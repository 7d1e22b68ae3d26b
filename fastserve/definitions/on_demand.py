"""Views whose features are computed when they are asked for, by a function, from other features and the request."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeAlias

from fastserve.definitions.field import Field
from fastserve.definitions.freeze import freeze
from fastserve.definitions.service import merge_refs
from fastserve.definitions.view import FeatureView, FeatureViewProjection
from fastserve.display import html_table
from fastserve.timeutil import parse_duration

ARGUMENTS: Final = ("at", "valid")
"""What a function can be told beside its inputs; see docs/on-demand.md."""
DEFAULT_BUDGET_US: Final = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSource:
    """Columns that whoever asks gives: beside the join keys of a request, or as columns of a spine.

    Args:
        name: what messages call it.
        schema: the columns; a request column has no default.
    """

    name: str
    schema: tuple[Field, ...] = ()
    description: str = ""

    def __init__(self, name: str, schema: Sequence[Field], *, description: str = "") -> None:
        freeze(self, name=name, schema=tuple(schema), description=description)


OnDemandSource: TypeAlias = FeatureViewProjection | RequestSource
Given: TypeAlias = FeatureView | FeatureViewProjection | RequestSource | str


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDemandFeatureView(FeatureView):
    """Features that a function of the repo computes for each row asked for. Made by `on_demand_feature_view`.

    Nothing is stored: it has no entities of its own, but needs the join keys of its sources and the request's columns.
    The registry keeps the function's name and text, to tell another one; the text is never executed.

    Attributes:
        sources: features of other views, and request columns, in the order declared.
        function: ``module:name``, module being a file of the repo.
        code: the function's text and that of all it reaches in the repo.
        arguments: of ARGUMENTS, those that it asks for.
        budget_us: how long a call may take on a server before it is counted and logged as slow.
        call: the function itself where the repo was imported, else None.
    """

    online: bool = False
    offline: bool = False
    sources: tuple[OnDemandSource, ...] = ()
    function: str = ""
    code: str = ""
    arguments: tuple[str, ...] = ()
    budget_us: int = DEFAULT_BUDGET_US
    call: Callable[..., Any] | None = field(
        default=None, compare=False, repr=False, metadata={"transient": True}
    )

    def __init__(
        self,
        name: str,
        *,
        sources: Sequence[Given],
        schema: Sequence[Field],
        function: str,
        code: str,
        arguments: Sequence[str] = (),
        budget: timedelta | str | None = None,
        call: Callable[..., Any] | None = None,
        version: int = 1,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str = "",
    ) -> None:
        FeatureView.__init__(
            self,
            name,
            schema=schema,
            version=version,
            online=False,
            offline=False,
            description=description,
            tags=tags,
            owner=owner,
        )
        freeze(
            self,
            sources=_sources(sources),
            function=function,
            code=code,
            arguments=tuple(arguments),
            budget_us=DEFAULT_BUDGET_US if budget is None else parse_duration(budget),
            call=call,
        )

    def _repr_html_(self) -> str:
        needed = ", ".join(name for name, _, _ in self.inputs())
        rows = [(f.name, f.dtype, f.description) for f in self.schema]
        about = f"computed by {self.function} from {needed}"
        return html_table(
            f"OnDemandFeatureView {self.name}@v{self.version}",
            ("feature", "type", "description"),
            rows,
            about,
        )

    def __getstate__(self) -> list[Any]:
        """Without the function: another process imports the repo for it."""
        return [None if f.name == "call" else getattr(self, f.name) for f in dataclasses.fields(self)]

    @property
    def code_sha256(self) -> str:
        """Of the function's text, in hex: what tells one function from another."""
        return hashlib.sha256(self.code.encode()).hexdigest()

    @property
    def is_stored(self) -> bool:
        """It is not."""
        return False

    @property
    def views(self) -> tuple[FeatureViewProjection, ...]:
        """The sources that are features."""
        return tuple(source for source in self.sources if isinstance(source, FeatureViewProjection))

    @property
    def request(self) -> tuple[Field, ...]:
        """The request columns, in the order declared."""
        return tuple(f for source in self.sources if isinstance(source, RequestSource) for f in source.schema)

    def inputs(self) -> Iterator[tuple[str, OnDemandSource, str]]:
        """(input, source, feature or column) of all that the function gets, in the order declared.

        A feature of a view under an alias is named ``<alias>__<feature>``, every other input as the feature or column.
        """
        for source in self.sources:
            if isinstance(source, RequestSource):
                yield from ((column.name, source, column.name) for column in source.schema)
            else:
                prefix = f"{source.alias}__" if source.alias and "@" not in source.alias else ""
                yield from ((prefix + feature, source, feature) for feature in source.features)


def columns_of(
    view: FeatureView,
    keys: Callable[[FeatureView], Mapping[str, str]],
    find: Callable[[FeatureViewProjection], FeatureView | None],
) -> Iterator[tuple[str, str, str]]:
    """(column, type, what reads it) of the request or spine that a view needs; one column may come several times.

    Args:
        keys: join key -> type of a view that is stored.
        find: the view that a projection means, None where there is none.
    """
    yield from _columns(view, keys, find, ())


def _columns(
    view: FeatureView,
    keys: Callable[[FeatureView], Mapping[str, str]],
    find: Callable[[FeatureViewProjection], FeatureView | None],
    above: tuple[FeatureView, ...],
) -> Iterator[tuple[str, str, str]]:
    if not isinstance(view, OnDemandFeatureView):
        yield from ((key, dtype, view.name) for key, dtype in keys(view).items())
        return
    for part in view.views:
        source = find(part)
        if source is None or source in (view, *above):
            continue  # a problem of its own: see validate_on_demand.py
        for column, dtype, reader in _columns(source, keys, find, (view, *above)):
            yield part.join_key_map.get(column, column), dtype, reader
    for field_ in view.request:
        yield field_.name, field_.dtype, view.name


def _sources(given: Sequence[Given]) -> tuple[OnDemandSource, ...]:
    """Views as projections; neighbouring references into one view as one."""
    made: list[OnDemandSource] = []
    run: list[FeatureView | FeatureViewProjection | str] = []
    for source in [given] if isinstance(given, (str, FeatureView)) else given:
        if isinstance(source, RequestSource):
            made += merge_refs(run)
            made.append(source)
            run = []
        else:
            run.append(source)
    return (*made, *merge_refs(run))
