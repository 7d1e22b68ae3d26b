"""Filters of events: an SQL condition as an Arrow expression.

sqlglot parses it, as DuckDB's dialect; the tree is walked here, so that nothing passes that is not in `_RULES`.
Null is SQL's: a condition that is neither true nor false keeps no event. It needs Arrow: imported late.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from fastserve.definitions.aggregated_view import AggregatedFeatureView
from fastserve.definitions.aggregation import NUMBERS, WHOLE_TYPES
from fastserve.definitions.validate import label
from fastserve.errors import DefinitionError, Problem, guess
from fastserve.timeutil import parse_timestamp
from fastserve.types import Timestamp, arrow_type, parse_dtype

_DEPTH: Final = 100
_ARGUMENTS: Final = (
    "this",
    "expression",
    "expressions",
    "low",
    "high",
    "to",
    "is_string",
    "negate",
    "table",
    "query",
)
"""Of sqlglot's nodes, those that are heeded; a node with others says more than is understood."""
_KNOWN: Final = "comparisons, AND, OR, NOT, IN, BETWEEN, IS NULL, LIKE, + - * / and literals"


def compile_filter(text: str, types: Mapping[str, str], where: str) -> tuple[pc.Expression, tuple[str, ...]]:
    """The condition as an expression that is a bool, and the columns it reads, in order of their names.

    Args:
        text: the condition.
        types: column -> type; what it may name.
        where: names it in messages.

    Raises:
        DefinitionError: it does not parse, says what filters cannot, names an unknown column, or compares types that do
            not compare; all problems.
    """
    tree = _parsed(text, where)
    walk = _Walk(types, where)
    made = walk.made(tree).value
    if walk.problems:
        raise DefinitionError(list(dict.fromkeys(walk.problems)))
    columns = tuple(sorted(walk.columns))
    schema = pa.schema([pa.field(name, arrow_type(parse_dtype(types[name]))) for name in columns])
    try:
        pa.Table.from_batches([], schema).append_column("", pa.array([], pa.null())).filter(made)
    except (pa.ArrowException, TypeError) as error:
        fix = "compare columns with values of their types; the types are those of the source's schema"
        raise DefinitionError([Problem(where, str(error), fix)]) from None
    return made, columns


def view_filter(view: AggregatedFeatureView) -> tuple[pc.Expression | None, dict[str, str]]:
    """The filter of a view, None without one, and column -> type of what it reads, in order of the names.

    Raises:
        DefinitionError: as `compile_filter`; not for a view that is registered.
    """
    if not view.filter:
        return None, {}
    types = {column.name: column.dtype for column in view.events.schema}
    made, used = compile_filter(view.filter, types, label(view))
    return made, {name: types[name] for name in used}


def passing(condition: pc.Expression, rows: pa.Table) -> npt.NDArray[np.int64]:
    """Which rows a condition keeps, rising.

    Raises:
        ArrowInvalid: it cannot be asked of a row, as where a sum overflows.
    """
    numbered = rows.append_column("", pa.array(np.arange(len(rows), dtype=np.int64)))  # no column's name
    found: npt.NDArray[np.int64] = numbered.filter(condition)[""].to_numpy()
    return found


def _parsed(text: str, where: str) -> Any:
    fix = "write an SQL condition, such as status = 'paid' AND amount > 0"
    try:
        tree = sqlglot.parse_one(text, dialect="duckdb")
    except SqlglotError as error:
        found = getattr(error, "errors", None) or [{}]
        place = f", line {found[0]['line']}, column {found[0]['col']}" if "line" in found[0] else ""
        message = str(found[0].get("description") or error)
        if message.startswith("Required keyword"):  # sqlglot names its own classes here
            message = "an operand is missing"
        raise DefinitionError([Problem(where + place, f"does not parse: {message}", fix)]) from None
    except RecursionError:
        raise DefinitionError([Problem(where, "is nested too deep", fix)]) from None
    return tree


class _Term(NamedTuple):
    """A part of a condition. Numbers are int64 or float64 and meet as float64: Arrow narrows what is written out."""

    value: Any
    kind: str = ""  # whole, float, or '' for what is no number

    def as_float(self) -> Any:
        return self.value if self.kind != "whole" else self.value.cast(pa.float64(), safe=False)


class _Walk:
    """Makes an expression of a tree, and collects what is wrong with it."""

    def __init__(self, types: Mapping[str, str], where: str) -> None:
        self.columns: set[str] = set()
        self.problems: list[Problem] = []
        self._types = types
        self._where = where
        self._depth = 0

    def made(self, node: Any) -> _Term:
        rule = _RULES.get(type(node))
        if rule is None or any(value for name, value in node.args.items() if name not in _ARGUMENTS):
            return self.refused(f"{_shown(node)} is not for filters", f"use {_KNOWN}")
        self._depth += 1
        if self._depth > _DEPTH:
            return self.refused("is nested too deep", f"at most {_DEPTH} levels")
        found = rule(self, node)
        self._depth -= 1
        return _Term(~found.value) if node.args.get("negate") else found  # of NOT LIKE

    def refused(self, message: str, fix: str) -> _Term:
        self.problems.append(Problem(self._where, message, fix))
        return _Term(pc.scalar(True))

    def sides(self, node: Any) -> tuple[_Term, _Term]:
        return self.made(node.this), self.made(node.expression)

    def column(self, node: exp.Column) -> _Term:
        if node.table or not isinstance(node.this, exp.Identifier):
            return self.refused(f"{_shown(node)} is no column", "name a column of the source's schema alone")
        if node.name not in self._types:
            near = guess(node.name, sorted(self._types))
            fix = f"{near}columns of the source's schema: {', '.join(self._types) or 'none'}"
            return self.refused(f"unknown column {node.name!r}", fix)
        self.columns.add(node.name)
        found, dtype = pc.field(node.name), self._types[node.name]
        if dtype in WHOLE_TYPES:
            return _Term(found.cast(pa.int64()), "whole")
        return _Term(found.cast(pa.float64()), "float") if dtype in NUMBERS else _Term(found)

    def literal(self, node: exp.Literal) -> _Term:
        text = str(node.this)
        if node.is_string:
            return _Term(pc.scalar(text))
        if not text.isdigit():
            return _Term(pc.scalar(float(text)), "float")
        if int(text) >= 2**63:
            return self.refused(f"{text} is beyond int64", "write a smaller number, or a float: 1e19")
        return _Term(pc.scalar(pa.scalar(int(text), pa.int64())), "whole")

    def between(self, node: exp.Between) -> _Term:
        value, low, high = self.made(node.this), self.made(node.args["low"]), self.made(node.args["high"])
        return _Term(_compared(operator.ge, value, low) & _compared(operator.le, value, high))

    def is_in(self, node: exp.In) -> _Term:
        if not node.expressions or node.args.get("query") is not None:
            return self.refused(f"{_shown(node)} is not for filters", "list the values: x IN (1, 2)")
        value, found = self.made(node.this), pc.scalar(False)
        for item in node.expressions:  # each compared, so that a null among them is SQL's
            found = found | _compared(operator.eq, value, self.made(item))
        return _Term(found)

    def is_what(self, node: exp.Is) -> _Term:
        value, what = self.made(node.this).value, node.expression
        if isinstance(what, exp.Null):
            return _Term(value.is_null())
        if isinstance(what, exp.Boolean):
            return _Term(pc.coalesce(value == pc.scalar(bool(what.this)), pc.scalar(False)))
        fix = "IS NULL, IS TRUE or IS FALSE, with or without NOT"
        return self.refused(f"{_shown(node)} is not for filters", fix)

    def like(self, node: exp.Like | exp.ILike) -> _Term:
        value, pattern = self.made(node.this).value, node.expression
        if not isinstance(pattern, exp.Literal) or not pattern.is_string:
            fix = "LIKE takes a pattern that is written out: 'a%'"
            return self.refused(f"{_shown(node)} is not for filters", fix)
        found = pc.match_like(value, str(pattern.this), ignore_case=isinstance(node, exp.ILike))
        return _Term(found)

    def cast(self, node: exp.Cast) -> _Term:
        kind, value = node.to.this.name, node.this
        times = kind.startswith("TIMESTAMP") or kind in ("DATE", "DATETIME")
        if not times or not isinstance(value, exp.Literal) or not value.is_string:
            fix = "casts are for times: TIMESTAMP '2024-01-01'"
            return self.refused(f"{_shown(node)} is not for filters", fix)
        try:
            moment = pa.scalar(parse_timestamp(str(value.this)), pa.int64())
        except ValueError as error:
            return self.refused(str(error), "write it so")
        return _Term(pc.scalar(moment.cast(arrow_type(Timestamp))))


def _shown(node: Any) -> str:
    text = str(node.sql(dialect="duckdb"))
    return text if len(text) <= 60 else text[:57] + "…"


def _compared(work: Callable[[Any, Any], Any], left: _Term, right: _Term) -> Any:
    if {left.kind, right.kind} == {"whole", "float"}:
        return work(left.as_float(), right.as_float())
    return work(left.value, right.value)


def _compare(work: Callable[[Any, Any], Any]) -> Callable[[_Walk, Any], _Term]:
    return lambda walk, node: _Term(_compared(work, *walk.sides(node)))


def _reckon(work: Callable[[Any, Any], Any]) -> Callable[[_Walk, Any], _Term]:
    def rule(walk: _Walk, node: Any) -> _Term:
        left, right = walk.sides(node)
        kinds = {left.kind, right.kind}
        return _Term(_compared(work, left, right), "float" if "float" in kinds else min(kinds))

    return rule


def _divide(walk: _Walk, node: Any) -> _Term:
    left, right = walk.sides(node)
    return _Term(left.as_float() / right.as_float(), "float")


def _negate(walk: _Walk, node: Any) -> _Term:
    term = walk.made(node.this)
    return _Term(pc.negate_checked(term.value), term.kind)


_RULES: Final[dict[type, Callable[[_Walk, Any], _Term]]] = {
    exp.Column: _Walk.column,
    exp.Literal: _Walk.literal,
    exp.Boolean: lambda walk, node: _Term(pc.scalar(bool(node.this))),
    exp.Null: lambda walk, node: _Term(pc.scalar(None)),
    exp.Paren: lambda walk, node: walk.made(node.this),
    exp.Not: lambda walk, node: _Term(~walk.made(node.this).value),
    exp.Neg: _negate,
    exp.And: _compare(operator.and_),
    exp.Or: _compare(operator.or_),
    exp.EQ: _compare(operator.eq),
    exp.NEQ: _compare(operator.ne),
    exp.LT: _compare(operator.lt),
    exp.LTE: _compare(operator.le),
    exp.GT: _compare(operator.gt),
    exp.GTE: _compare(operator.ge),
    exp.Add: _reckon(operator.add),
    exp.Sub: _reckon(operator.sub),
    exp.Mul: _reckon(operator.mul),
    exp.Div: _divide,
    exp.Between: _Walk.between,
    exp.In: _Walk.is_in,
    exp.Is: _Walk.is_what,
    exp.Like: _Walk.like,
    exp.ILike: _Walk.like,
    exp.Cast: _Walk.cast,
}
