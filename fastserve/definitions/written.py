"""Views written as functions: one that gives a query, makes the rows itself, or computes features when asked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastserve.definitions.field import Field
from fastserve.definitions.inputs import Input
from fastserve.definitions.on_demand import ARGUMENTS, Given, OnDemandFeatureView
from fastserve.definitions.reach import function_text, reached_text
from fastserve.definitions.source import RUN_TIMES, FileSource, SQLSource, TransformSource
from fastserve.definitions.view import FeatureView

Inputs = Mapping[str, Input | FileSource | str | Path]


def sql_view(
    *,
    inputs: Inputs,
    timestamp_field: str = "event_timestamp",
    created_timestamp_column: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    **view: Any,
) -> Callable[[Callable[[], str]], FeatureView]:
    """A view of a function's name whose source is the query that the function returns; called once, at once.

    Args:
        inputs, timestamp_field, created_timestamp_column, parameters: of the SQLSource.
        view: what FeatureView takes: entities, schema, ttl, …; ``description`` is by default the docstring.
    """

    def declare(function: Callable[[], str]) -> FeatureView:
        name = function.__name__
        source = SQLSource(
            function(),
            inputs,
            timestamp_field,
            created_timestamp_column,
            parameters=parameters,
            name=name,
        )
        return _view(function, source, view)

    return declare


def batch_feature_view(
    *,
    inputs: Inputs,
    timestamp_field: str = "event_timestamp",
    created_timestamp_column: str | None = None,
    **view: Any,
) -> Callable[[Callable[..., Any]], FeatureView]:
    """A view of a function's name whose rows the function makes: ``def f(trips: pa.Table, *, end) -> pa.Table``.

    It is called with each input by name, and with those times of the run that it names: ``start``, ``end``,
    ``created_after``, ``as_of``, aware datetimes. Rows later in its table win over equal ones before. The whole of
    the inputs and of the answer are in memory.

    Args:
        inputs, timestamp_field, created_timestamp_column: as of `sql_view`.
        view: what FeatureView takes; ``description`` is by default the docstring.
    """

    def declare(function: Callable[..., Any]) -> FeatureView:
        named = inspect.signature(function).parameters
        source = TransformSource(
            f"{function.__module__}:{function.__name__}",
            function_text(function),
            inputs,
            timestamp_field,
            created_timestamp_column,
            arguments=[name for name in RUN_TIMES if name in named and name not in inputs],
            call=function,
        )
        return _view(function, source, view)

    return declare


def on_demand_feature_view(
    *, sources: Sequence[Given], schema: Sequence[Field], **view: Any
) -> Callable[[Callable[..., Any]], OnDemandFeatureView]:
    """A view of a function's name that computes its features whenever they are asked for: ``def f(inputs) -> dict``.

    The function gets a dict of columns, one value for each row asked for, and gives a dict of as many columns as
    `schema` names. It must treat each row by itself. It runs on a server's batches and on training rows alike. Where
    an input is null the features are null, and the function is not asked, unless it has an argument ``valid``: then
    that is a dict of bool arrays, inputs are masked arrays, and the function is told of every row. With an argument
    ``at`` it gets the time that each row is asked for, datetime64[us]. docs/on-demand.md says all of it.

    Args:
        sources: views, projections, references (``"view:feature"``) and RequestSources; on-demand views too.
        schema: the features it gives.
        view: ``name``, ``version``, ``budget`` (how long a call on a server should take at most, ``"5ms"``),
            ``description`` (by default the docstring), ``tags``, ``owner``.
    """

    def declare(function: Callable[..., Any]) -> OnDemandFeatureView:
        named = inspect.signature(function).parameters
        options = {"name": function.__name__, "description": inspect.getdoc(function) or "", **view}
        return OnDemandFeatureView(
            sources=sources,
            schema=schema,
            function=f"{function.__module__}:{function.__qualname__}",
            code=reached_text(function),
            arguments=[name for name in ARGUMENTS if name in named],
            call=function,
            **options,
        )

    return declare


def _view(
    function: Callable[..., Any], source: SQLSource | TransformSource, view: dict[str, Any]
) -> FeatureView:
    options = {"name": function.__name__, "description": inspect.getdoc(function) or "", **view}
    return FeatureView(source=source, **options)
