"""Views written as functions: one that gives a query, or one that makes the rows itself."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastserve.definitions.inputs import Input
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
            _text(function),
            inputs,
            timestamp_field,
            created_timestamp_column,
            arguments=[name for name in RUN_TIMES if name in named and name not in inputs],
            call=function,
        )
        return _view(function, source, view)

    return declare


def _view(
    function: Callable[..., Any], source: SQLSource | TransformSource, view: dict[str, Any]
) -> FeatureView:
    options = {"name": function.__name__, "description": inspect.getdoc(function) or "", **view}
    return FeatureView(source=source, **options)


def _text(function: Callable[..., Any]) -> str:
    """The function as it is written, from its ``def`` on."""
    text = textwrap.dedent(inspect.getsource(function))
    first = ast.parse(text).body[0]
    lines = text.splitlines()[first.lineno - 1 :]
    return "\n".join(line.rstrip() for line in lines).strip() + "\n"
