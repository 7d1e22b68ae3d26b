"""What a query may say: one SELECT over its inputs, whose answer is the same whenever it is asked.

DuckDB parses the query; its tree is walked here. Its lock (engine.py) keeps files, network and settings out of reach;
this keeps out what the lock does not: the engine's own tables and table functions, and whatever answers by the clock,
by chance or by the environment.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

from fastserve.definitions.source import RUN_TIMES, SQLSource
from fastserve.errors import Problem

_TABLE_KINDS: Final = (
    "BASE_TABLE",
    "SUBQUERY",
    "JOIN",
    "EMPTY",
    "EXPRESSION_LIST",
    "TABLE_FUNCTION",
    "PIVOT",
    "CTE",
)
_TABLE_FUNCTIONS: Final = ("generate_series", "json_each", "json_tree", "range", "unnest")
_BARE_CLOCK: Final = ("current_date", "current_time", "current_timestamp", "localtime", "localtimestamp")
_CLOCK: Final = (
    *_BARE_CLOCK,
    "current_localtime", "current_localtimestamp", "get_current_time", "get_current_timestamp", "now", "today",
    "transaction_timestamp",
)  # fmt: skip
_ENVIRONMENT: Final = (
    "current_catalog", "current_database", "current_role", "current_schema", "current_schemas", "current_setting",
    "current_user", "getvariable", "in_search_path", "session_user", "txid_current", "user",
)  # fmt: skip
_NO_PLACE: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Parsed:
    """A query that is one SELECT.

    Attributes:
        parameters: the names after ``$``.
        problems: what it may not say.
    """

    parameters: tuple[str, ...]
    problems: tuple[Problem, ...]


def parse(connection: Any, source: SQLSource, where: str) -> Parsed:
    """What is wrong with a query's text; its inputs need not be there."""
    answer = connection.execute("SELECT json_serialize_sql(?)", [source.query]).fetchone()
    tree = json.loads(answer[0])
    if tree["error"]:
        return Parsed((), (_unparsable(source.query, tree, where),))
    wrapped = connection.execute("SELECT json_serialize_sql(?)", [as_table(source.query)]).fetchone()
    if len(tree["statements"]) != 1 or json.loads(wrapped[0])["error"]:
        return Parsed((), (Problem(where, "is not one SELECT", "write one, and nothing behind it"),))
    statement = tree["statements"][0]
    named = tuple(sorted(pair["key"] for pair in statement.get("named_param_map") or ()))
    walk = _Walk(connection, source, where)
    problems = [*walk.problems(statement["node"]), *_parameter_problems(source, named, where)]
    return Parsed(named, tuple(dict.fromkeys(problems)))


def as_table(query: str) -> str:
    """A SELECT of all that a query answers, to be added to."""
    return f"SELECT * FROM (\n{query.strip().rstrip(';')}\n) AS answer"


def _unparsable(query: str, tree: dict[str, Any], where: str) -> Problem:
    if tree.get("error_type") != "parser":
        return Problem(where, "is no SELECT", "a query reads: one SELECT, and no other statement")
    position = tree.get("position")
    place = where if position is None else f"{where}, {place_of(query, int(position))}"
    return Problem(place, str(tree["error_message"]), "mend the query")


def place_of(query: str, position: int) -> str:
    """``line 3, column 8`` of a byte position, both from 1."""
    before = query.encode()[:position].decode(errors="ignore")
    return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"


def _parameter_problems(source: SQLSource, named: Collection[str], where: str) -> Iterator[Problem]:
    for name in named:
        if name not in source.parameters and name not in RUN_TIMES:
            known = ", ".join(f"${n}" for n in (*RUN_TIMES, *source.parameters))
            yield Problem(
                where, f"parameter ${name} has no value", f"give it in parameters=; there are {known}"
            )
    for name in source.parameters:
        if name not in named:
            yield Problem(where, f"parameter {name!r} is not used", f"drop it, or write ${name}")


class _Walk:
    """Looks at every node of a tree."""

    def __init__(self, connection: Any, source: SQLSource, where: str) -> None:
        self._query = source.query
        self._where = where
        self._tables = {name.lower() for name in source.inputs}
        self._inputs = ", ".join(source.inputs)
        asked = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability = 'VOLATILE'"
        self._volatile = {name for (name,) in connection.execute(asked).fetchall()} - {"error"}
        asked = "SELECT view_name FROM duckdb_views() WHERE internal"
        self._internal = {name.lower() for (name,) in connection.execute(asked).fetchall()}

    def problems(self, node: Any) -> Iterator[Problem]:
        """Of a node and all below."""
        self._tables |= {name.lower() for name in _ctes(node)}
        for each in _nodes(node):
            kind = each.get("type")
            if kind in _TABLE_LIKE and "class" not in each:
                yield from self._table(each, str(kind))
            elif each.get("class") in ("FUNCTION", "WINDOW"):
                yield from self._function(each)
            elif each.get("class") == "COLUMN_REF" and len(each.get("column_names") or ()) == 1:
                yield from self._name(each, str(each["column_names"][0]).lower())
            if each.get("sample"):
                yield self._problem(each, "takes a random sample", "filter by a hash of the key instead")
        for name in _ctes(node):
            if name.lower() in self._internal:
                yield Problem(
                    self._where, f"{name!r} is a table of the engine's own", "name the CTE otherwise"
                )

    def _table(self, node: dict[str, Any], kind: str) -> Iterator[Problem]:
        if kind not in _TABLE_KINDS:
            yield self._problem(
                node, f"{kind} is not for queries of sources", "write a SELECT over its inputs"
            )
        elif kind == "BASE_TABLE":
            path = (node.get("qualified_name") or {}).get("path") or [node.get("table_name", "")]
            if len(path) != 1 or str(path[0]).lower() not in self._tables:
                shown = ".".join(map(str, path))
                yield self._problem(node, f"{shown!r} is no input", f"its inputs: {self._inputs}")
        elif kind == "TABLE_FUNCTION":
            name = _function_name(node.get("function") or {})
            if name not in _TABLE_FUNCTIONS:
                fix = "declare what it reads in inputs=, or use " + ", ".join(_TABLE_FUNCTIONS)
                yield self._problem(node, f"{name}() is not for queries of sources", fix)

    def _function(self, node: dict[str, Any]) -> Iterator[Problem]:
        name = _function_name(node)
        arguments = node.get("arguments") or node.get("children") or ()
        if name == "age" and len(arguments) == 1:
            yield self._problem(node, "age() of one time goes by the clock", "use age($as_of, …)")
        else:
            yield from self._name(node, name)

    def _name(self, node: dict[str, Any], name: str) -> Iterator[Problem]:
        """A function; or a name that is a function's without parentheses."""
        bare = node.get("class") == "COLUMN_REF"
        if name in (_BARE_CLOCK if bare else _CLOCK):
            yield self._problem(node, f"{name} goes by the clock", "use $as_of, the present of the run")
        elif not bare and (name in _ENVIRONMENT or name in self._volatile):
            fix = "leave it out: the same inputs must give the same answer"
            yield self._problem(node, f"{name} answers by chance or by the environment", fix)

    def _problem(self, node: dict[str, Any], message: str, fix: str) -> Problem:
        position = node.get("query_location", _NO_PLACE)
        place = f", {place_of(self._query, position)}" if position < len(self._query.encode()) else ""
        return Problem(self._where + place, message, fix)


_TABLE_LIKE: Final = (*_TABLE_KINDS, "SHOW_REF", "COLUMN_DATA", "DELIM_GET", "BOUND_TABLE_REF")


def _function_name(node: dict[str, Any]) -> str:
    path = (node.get("qualified_name") or {}).get("path") or [node.get("function_name", "")]
    return str(path[-1]).lower()


def _ctes(node: Any) -> list[str]:
    return [
        str(pair["key"])
        for each in _nodes(node)
        if isinstance(each.get("cte_map"), dict)
        for pair in each["cte_map"].get("map") or ()
    ] + [str(each["cte_name"]) for each in _nodes(node) if each.get("cte_name")]


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of a tree, without recursion: queries may nest deeper than Python's stack."""
    left = [node]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            yield each
            left.extend(each.values())
        elif isinstance(each, list):
            left.extend(each)
