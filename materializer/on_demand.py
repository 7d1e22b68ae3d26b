"""On-demand views in training sets: their functions called on the labels, a range of them at a time.

A view's inputs are features that other views have for the labels, joined as if they had been asked for, and request
columns of the spine. So what is joined is more than what is asked for, and the rest is made of it where the values are
put together, on the driver, in bounded memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from fastserve.definitions import FeatureViewProjection, OnDemandFeatureView, RequestSource
from fastserve.errors import RequestError
from fastserve.offline.cast import cast_column, cell
from fastserve.offline.frames import one_array
from fastserve.offline.schema import feature_types
from fastserve.on_demand.call import OnDemandFunction
from fastserve.on_demand.columns import Column, of_arrow
from fastserve.on_demand.functions import Functions
from fastserve.registry import RegisteredView
from fastserve.types import parse_dtype
from materializer.joining import Ranged
from materializer.pit.chunks import Ints

Part = tuple[FeatureViewProjection, RegisteredView]
Same = Callable[[FeatureViewProjection, RegisteredView], Any]


def views_of(parts: Sequence[Part]) -> dict[int, RegisteredView]:
    """View id -> view of all that parts read, what on-demand views are computed from included; each once."""
    found: dict[int, RegisteredView] = {}
    for _, rv in parts:
        found.setdefault(rv.view_id, rv)
        found |= {view_id: one for view_id, one in views_of(rv.sources).items() if view_id not in found}
    return found


def stored_parts(parts: Sequence[Part]) -> Iterator[Part]:
    """What has to be joined for these parts: those of stored views, and what on-demand views are computed from."""
    for part, rv in parts:
        if rv.view.is_stored:
            yield part, rv
        else:
            yield from stored_parts(inputs_of(part, rv))


def request_columns(parts: Sequence[Part]) -> Iterator[tuple[str, str, str]]:
    """(column, type, the view that reads it) of what on-demand views read of a request or spine, and those below."""
    for part, rv in parts:
        if isinstance(rv.view, OnDemandFeatureView):
            for field in rv.view.request:
                yield part.join_key_map.get(field.name, field.name), field.dtype, rv.view.name
            yield from request_columns(inputs_of(part, rv))


def inputs_of(part: FeatureViewProjection, rv: RegisteredView) -> list[Part]:
    """The sources of an on-demand view, with their columns named as the part names them."""
    made = []
    for source, other in rv.sources:
        columns = {column: source.join_key_map.get(column, column) for column in other.needs}
        renamed = {column: part.join_key_map.get(name, name) for column, name in columns.items()}
        made.append((replace(source, join_key_map=renamed), other))
    return made


class Computed:
    """The values of one on-demand view for n labels, as Answers of stored views.

    Args:
        rv: the view.
        function: its function.
        times: of the labels, microseconds UTC, [n].
        sources: what its inputs are read from: (values, feature -> input).
        request: input -> values of the spine, [n].
    """

    def __init__(
        self,
        rv: RegisteredView,
        function: OnDemandFunction,
        times: Ints,
        sources: Sequence[tuple[Ranged, Sequence[tuple[str, str]]]],
        request: Mapping[str, tuple[pa.Array, str]],
    ) -> None:
        self.rv = rv
        self._function = function
        self._times = times
        self._sources = sources
        self._request = request

    def of_range(self, start: int, stop: int, threads: int | None = None) -> dict[str, pa.ChunkedArray]:
        """The values of labels start … stop - 1.

        Raises:
            InvalidDataError: the function fails, or gives what does not fit.
        """
        inputs: dict[str, Column] = {}
        for source, pairs in self._sources:
            values = source.of_range(start, stop, threads)
            types = feature_types(source.rv, [feature for feature, _ in pairs])
            inputs |= {name: of_arrow(one_array(values[f]), types[f]) for f, name in pairs}
        for name, (column, dtype) in self._request.items():
            inputs[name] = of_arrow(column.slice(start, stop - start), parse_dtype(dtype))
        made = self._function(inputs, self._times[start:stop], start)
        return {name: pa.chunked_array([values]) for name, values in made.items()}


class Remembered:
    """Values whose last range is kept: what is answered may be an input too."""

    def __init__(self, of: Ranged) -> None:
        self.rv = of.rv
        self._of = of
        self._last: tuple[tuple[int, int], dict[str, pa.ChunkedArray]] | None = None

    def of_range(self, start: int, stop: int, threads: int | None = None) -> dict[str, pa.ChunkedArray]:
        """As of the values themselves."""
        if self._last is None or self._last[0] != (start, stop):
            self._last = None
            self._last = (start, stop), self._of.of_range(start, stop, threads)
        return self._last[1]


class OnDemand:
    """The on-demand views of one training set: checked before anything is read, computed after all was joined.

    Args:
        parts: what is asked for.
        table: the labels.
        times: of the labels.
        functions: of the repo.

    Raises:
        ConfigError: the repo does not have a function, or has another than was applied.
        RequestError: the spine lacks a request column.
        InvalidDataError: a value of one does not fit its type.
    """

    def __init__(self, parts: Sequence[Part], table: pa.Table, times: Ints, functions: Functions) -> None:
        self._table = table
        self._times = times
        self._columns: dict[tuple[str, str], pa.Array] = {}
        views = {i: rv.view for i, rv in views_of(parts).items() if isinstance(rv.view, OnDemandFeatureView)}
        functions.prepare(views.values())
        self._functions = {view_id: functions.of(view) for view_id, view in views.items()}
        for column in request_columns(parts):
            self._column(*column)  # every one is there and fits

    def answers(
        self,
        parts: Sequence[Part],
        same: Same,
        joined: Mapping[Any, Ranged],
    ) -> list[Ranged]:
        """The values of each part, in order.

        Args:
            same: what parts of one join have in common.
            joined: the values of stored views by that.
        """
        if not self._functions:
            return [joined[same(part, rv)] for part, rv in parts]
        kept: dict[Any, Ranged] = {key: Remembered(values) for key, values in joined.items()}
        return [self._of(part, rv, same, kept) for part, rv in parts]

    def _of(
        self, part: FeatureViewProjection, rv: RegisteredView, same: Same, kept: dict[Any, Ranged]
    ) -> Ranged:
        """The values of a part, of those that are kept or made now."""
        key = same(part, rv)
        if key not in kept:
            kept[key] = Remembered(self._computed(part, rv, same, kept))
        return kept[key]

    def _computed(
        self, part: FeatureViewProjection, rv: RegisteredView, same: Same, kept: dict[Any, Ranged]
    ) -> Computed:
        view = rv.view
        assert isinstance(view, OnDemandFeatureView)
        names: dict[int, list[tuple[str, str]]] = {}
        request: dict[str, tuple[pa.Array, str]] = {}
        for name, source, feature in view.inputs():
            if isinstance(source, RequestSource):
                dtype = next(field.dtype for field in source.schema if field.name == feature)
                request[name] = self._column(part.join_key_map.get(feature, feature), dtype, view.name), dtype
            else:
                names.setdefault(id(source), []).append((feature, name))
        sources = [
            (self._of(*mapped, same, kept), names[id(source)])
            for source, mapped in zip(view.views, inputs_of(part, rv), strict=True)
        ]
        return Computed(rv, self._functions[rv.view_id], self._times, sources, request)

    def _column(self, name: str, dtype: str, view: str) -> pa.Array:
        if (name, dtype) not in self._columns:
            if name not in self._table.column_names:
                raise RequestError(
                    f"on-demand view {view!r} needs a column {name!r} ({dtype}), which the spine does not have",
                    where=f"column {name!r}",
                    hint="give what the request would give, as a column of the spine",
                )
            place = partial(cell, name)
            cast = cast_column(one_array(self._table[name]), parse_dtype(dtype), place)
            self._columns[name, dtype] = cast
        return self._columns[name, dtype]
