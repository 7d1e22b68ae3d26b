"""Feast's `POST /get-online-features`, so that adopting fastserve is a change of URL.

Shape: `results[i]` is column i, `results[i].values[j]` belongs to entity j; the request's join keys come first, in the
request's order, then the features in the order asked for. `metadata` comes last and names the columns.

What Feast never says, this does: NULL_VALUE and OUTSIDE_MAX_AGE are statuses of their own, and a store that does not
answer is a 503. `compat=feast` (in the query, or a server option) says PRESENT instead, and serves expired values.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Final
from urllib.parse import parse_qs

import numpy as np
import orjson

from fastserve.api import wire
from fastserve.api.feast_errors import feast_error
from fastserve.api.json_answer import DUMP, json_times, json_value
from fastserve.api.reader import Reader
from fastserve.api.router import Answer, Routes
from fastserve.codec.decoded import DecodedRows
from fastserve.codec.status import Status
from fastserve.errors import FastserveError, InvalidEntityError, RequestError, StoreUnavailableError
from fastserve.http.message import Request, Response
from fastserve.registry import Snapshot
from fastserve.serving.catalog import MAX_PLANS, Catalog
from fastserve.serving.plan import ReadPlan
from fastserve.serving.read_path import FeatureBatch, Found, decode_columns
from fastserve.timeutil import MICROS
from fastserve.types import DType, parse_dtype

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")
_NAMES: Final = ["INVALID", *(s.name for s in sorted(Status))]
_HONEST: Final = np.array(_NAMES, dtype=object)
_COMPAT: Final = np.array(
    ["PRESENT" if name in ("NULL_VALUE", "OUTSIDE_MAX_AGE") else name for name in _NAMES], dtype=object
)
_PRESENT: Final = int(Status.PRESENT)  # an enum's members take numpy longer to compare with
_EPOCH: Final = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class FeastRequest:
    """A parsed `POST /get-online-features`; features are empty where a service is named.

    `entities` holds every column given, of one length `n`; which of them are keys is the plan's business.
    """

    service: str
    features: tuple[str, ...]
    entities: dict[str, list[Any]]
    n: int
    full_feature_names: bool
    view_versions: bool


class FeastReads:
    """The route that reads features as Feast's feature server does.

    Args:
        catalog: plans.
        reader: reads them.
        compat: answer every request as `?compat=feast` does.
    """

    def __init__(self, catalog: Catalog, reader: Reader, *, compat: bool = False) -> None:
        self._catalog = catalog
        self._reader = reader
        self._compat = compat
        self._lasting: dict[int, tuple[ReadPlan, ReadPlan]] = {}  # id -> the plan itself, and without ttl

    @property
    def routes(self) -> Routes:
        """The route table."""
        return {"/get-online-features": ("POST", self._get)}

    def _get(self, request: Request) -> Answer:
        try:
            return self._answer(request)
        except FastserveError as error:
            return feast_error(error)

    def _answer(self, request: Request) -> Answer:
        compat = self._compat or _asks_compat(request.query)
        asked = parse_request(request.body)
        plan = self._catalog.plan(asked.service, asked.features, asked.full_feature_names)
        columns = entity_columns(asked.entities, plan, self._catalog.snapshot)
        wanted = {name: columns[name] for name in plan.needed if name in columns}
        keys = wire.json_keys(plan, wanted)
        return self._reader.read(
            self._without_ttl(plan) if compat else plan,
            keys,
            partial(_response, asked=asked, columns=columns, compat=compat),
            form="feast",
            deadline_us=wire.header_deadline_us(request),
            refuse=feast_error,
            logged=not compat,  # rows that hold for ever are not what history says
        )

    def _without_ttl(self, plan: ReadPlan) -> ReadPlan:
        """The plan with rows that hold for ever: Feast does not look at the ttl when it serves."""
        found = self._lasting.get(id(plan))
        if found is None:
            if len(self._lasting) >= MAX_PLANS:
                self._lasting.clear()
            found = self._lasting[id(plan)] = plan, lasting(plan)
        return found[1]


def lasting(plan: ReadPlan) -> ReadPlan:
    """The plan with rows that hold for ever."""
    derivation = plan.derivation
    if derivation is not None:
        derivation = replace(derivation, plan=lasting(derivation.plan))
    reads = tuple(replace(read, ttl_us=None) for read in plan.reads)
    return replace(plan, reads=reads, derivation=derivation)


# ---- the request --------------------------------------------------------------------------------


def parse_request(body: bytes) -> FeastRequest:
    """Check shape and JSON types, as Feast does: members it does not know are ignored, a service wins over features.

    Raises:
        RequestError: malformed JSON or a wrong shape; `where` is a JSON path.
        InvalidEntityError: entities are no lists of one length.
        TooLargeError: more than wire.MAX_ENTITIES entities.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not valid JSON: {error}", where="$") from None
    if not isinstance(data, dict):
        raise RequestError(f"the body is a JSON {wire.json_kind(data)}, not an object", where="$")
    service = data.get("feature_service") or ""
    if not isinstance(service, str):
        raise RequestError(f"is a {wire.json_kind(service)}, not a name", where="$.feature_service")
    entities = wire.parse_entities(data.get("entities", {}))
    return FeastRequest(
        service=service,
        features=() if service else _features(data.get("features")),
        entities=entities,
        n=_length(entities),
        full_feature_names=_flag(data, "full_feature_names"),
        view_versions=_flag(data, "include_feature_view_version_metadata"),
    )


def _asks_compat(query: str) -> bool:
    given = parse_qs(query, keep_blank_values=True).get("compat")
    if given is None:
        return False
    if given != ["feast"]:
        raise RequestError(
            f"{given[-1]!r} is not a mode", where="?compat", hint="compat=feast, or leave it out"
        )
    return True


def _features(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        hint = '"features": ["view:feature", ...], or "feature_service": "name"'
        raise RequestError("names no features", where="$.features", hint=hint)
    for i, ref in enumerate(value):
        if not isinstance(ref, str):
            raise RequestError(f"is a {wire.json_kind(ref)}, not 'view:feature'", where=f"$.features[{i}]")
    return tuple(ref.replace("@latest:", ":") for ref in value)


def _flag(data: Mapping[str, Any], name: str) -> bool:
    value = data.get(name, False)
    if not isinstance(value, bool):
        raise RequestError(f"is a {wire.json_kind(value)}, not true or false", where=f"$.{name}")
    return value


def _length(entities: Mapping[str, list[Any]]) -> int:
    """The number of rows asked for: 1 where there is no column at all."""
    n = len(next(iter(entities.values()), [None]))
    for name, column in entities.items():
        if len(column) != n:
            first = next(iter(entities))
            raise InvalidEntityError(
                f"has {len(column)} values, but {first!r} has {n}",
                where=f"$.entities.{name}",
                hint="give every column one value per entity",
            )
    return n


def entity_columns(
    entities: Mapping[str, list[Any]], plan: ReadPlan, snapshot: Snapshot
) -> dict[str, list[Any]]:
    """The columns that are join keys or read by on-demand views, in the request's order: what is echoed.

    An entity's name stands for its join key; an integer as text is one where the key is an integer, and its text where
    the key is text; columns that are no join key of the project are left out.

    Raises:
        InvalidEntityError: a column is given twice, by its join key and by its entity's name.
    """
    found: dict[str, list[Any]] = {}
    for name, values in entities.items():
        column = _column_of(name, plan, snapshot)
        if column is None:
            continue
        if column in found:
            raise InvalidEntityError(
                f"join key {column!r} is given twice", where=f"$.entities.{name}", hint="keep one of them"
            )
        found[column] = _cast(values, plan.entity_columns.get(column, ""))
    return found


def _column_of(name: str, plan: ReadPlan, snapshot: Snapshot) -> str | None:
    if name in plan.needed:
        return name
    entity = snapshot.entities.get(name)
    if any(name in e.join_keys for e in snapshot.entities.values()):
        return name
    return entity.join_keys[0] if entity is not None and len(entity.join_keys) == 1 else None


def _cast(values: list[Any], key_type: str) -> list[Any]:
    """Integers and texts that stand for one another, as the key's type; the rest is the encoder's to refuse."""
    if key_type == "int64" and any(isinstance(value, (str, float)) for value in values):
        return [_integer(value) for value in values]
    if key_type == "string" and any(isinstance(value, int) for value in values):
        return [str(value) if type(value) is int else value for value in values]
    return values


def _integer(value: Any) -> Any:
    if isinstance(value, str):
        return int(value) if _INTEGER.fullmatch(value) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


# ---- the answer ---------------------------------------------------------------------------------


def _response(
    found: Found, *, asked: FeastRequest, columns: Mapping[str, list[Any]], compat: bool
) -> Response:
    batch = decode_columns(found)
    if batch.unavailable:  # a null would be a lie, and Feast has no status for it
        raise StoreUnavailableError(batch.unavailable, hint="try again")
    headers = (
        (b"fastserve-revision", str(batch.plan.revision).encode()),
        (b"fastserve-schema-fingerprint", batch.plan.fingerprint.encode()),
    )
    return Response(200, wire.JSON, render(batch, asked, columns, compat), headers)


def render(batch: FeatureBatch, asked: FeastRequest, columns: Mapping[str, list[Any]], compat: bool) -> bytes:
    """The answer's JSON text, in the order of members that Feast writes.

    Columns that lie together in a block, all of it PRESENT, are written by orjson in one go, `[[1,2],[3,4]]`, and
    taken apart: numbers have no brackets.
    """
    plan = batch.plan
    keyed = _after(_present(asked.n), _epochs(asked.n))
    parts = [b'{"results":[']  # joined once: the answer is long
    for values in columns.values():
        parts += (b'{"values":', orjson.dumps(values, option=DUMP), keyed)
    times = [
        _epochs(asked.n) if read.computed else _times(rows, batch.n, asked.n)  # as Feast says of them
        for read, rows in zip(plan.reads, batch.reads, strict=True)
    ]
    present = [_after(_present(asked.n), text) for text in times]
    names = _COMPAT if compat else _HONEST
    blocks = [_plain_blocks(rows) if batch.n == asked.n else {} for rows in batch.reads]
    for run in _runs(plan):
        decoded = batch.reads[run.read]
        if run.item in blocks[run.read]:
            block = blocks[run.read][run.item][run.start : run.start + len(run.columns)]
            for text in orjson.dumps(block, option=DUMP)[2:-2].split(b"],["):
                parts += (b'{"values":[', text, b"]", present[run.read])
            continue
        for number, dtype in run.columns:
            values = _rows(feast_column(decoded.columns[number], dtype), batch.n, asked.n)
            statuses = _rows(names[decoded.statuses[number]].tolist(), batch.n, asked.n)
            after = _after(orjson.dumps(statuses), times[run.read])
            parts += (b'{"values":', orjson.dumps(values, option=DUMP), after)
    parts[-1] = parts[-1][:-1]  # no comma after the last
    metadata: dict[str, Any] = {"feature_names": [*columns, *(c.name for c in plan.columns)]}
    if asked.view_versions:
        metadata["feature_view_metadata"] = [{"name": r.view, "version": r.version} for r in plan.reads]
    parts += (b'],"metadata":', orjson.dumps(metadata), b"}")
    return b"".join(parts)


@dataclass(frozen=True, slots=True)
class _Run:
    """Answered columns that stand side by side in a block of a read; or any one column (no item).

    Attributes:
        start: the first one's place in the block.
        columns: (number in the read, type) of each.
    """

    read: int
    item: str
    start: int
    columns: list[tuple[int, str]]


_plan_runs: dict[int, tuple[ReadPlan, list[_Run]]] = {}


def _runs(plan: ReadPlan) -> list[_Run]:
    """The runs of a plan, made once."""
    found = _plan_runs.get(id(plan))
    if found is None or found[0] is not plan:
        if len(_plan_runs) >= MAX_PLANS:
            _plan_runs.clear()
        found = _plan_runs[id(plan)] = plan, _find_runs(plan)
    return found[1]


def _find_runs(plan: ReadPlan) -> list[_Run]:
    found: list[_Run] = []
    for output in plan.columns:
        field = plan.reads[output.read].rows.plan.fields[output.column]
        item = field.dtype.item if field.slot >= 0 else ""
        last = found[-1] if found else None
        place = (output.read, item, field.slot)
        if last is None or not item or (last.read, last.item, last.start + len(last.columns)) != place:
            last = _Run(*place, [])
            found.append(last)
        last.columns.append((output.column, output.dtype))
    return found


def _after(statuses: bytes, times: bytes) -> bytes:
    """What follows the values of a column, and the comma before the next."""
    return b',"statuses":%b,"event_timestamps":%b},' % (statuses, times)


@lru_cache(maxsize=256)
def _epochs(n: int) -> bytes:
    return orjson.dumps([_EPOCH] * n)


@lru_cache(maxsize=256)
def _present(n: int) -> bytes:
    return orjson.dumps(["PRESENT"] * n)


def _plain_blocks(rows: DecodedRows) -> dict[str, Any]:
    """Scalar type -> its block in Feast's form, of the types that need no look at single values; all of it PRESENT."""
    if not (rows.statuses == _PRESENT).all():
        return {}
    found = {}
    for item, block in rows.blocks.items():
        if item == "timestamp":
            found[item] = block // MICROS
        elif block.dtype.kind != "f":
            found[item] = block
        elif np.isfinite(block).all():
            found[item] = block.astype(np.float64)
    return found


def _rows(values: Any, n: int, asked: int) -> Any:
    """One value per row asked for: features of no entity have one for all, whatever columns came along."""
    return values if n == asked else list(values) * asked


def _times(rows: DecodedRows, n: int, asked: int) -> bytes:
    """Event times in RFC 3339 with 0, 3 or 6 digits of a second, as JSON; the epoch where there is no row."""
    text = orjson.dumps(json_times(rows.event_ts), option=DUMP)
    text = text.replace(b'000Z"', b'Z"')  # orjson writes 0 or 6 digits: of 6, the last three
    return text if n == asked else orjson.dumps(orjson.loads(text) * asked)


def feast_column(column: Any, dtype: str) -> Any:
    """One decoded column as orjson takes it, in Feast's JSON.

    | type      | JSON                                                                                     |
    |-----------|------------------------------------------------------------------------------------------|
    | float32   | the shortest text of the same number as a double: 0.10000000149011612 for 0.1             |
    | floats    | NaN is null, infinities are "Infinity" and "-Infinity"; in lists NaN is "NaN"             |
    | timestamp | whole seconds since 1970                                                                 |
    | bytes     | base64                                                                                   |
    """
    declared = parse_dtype(dtype)
    if declared.is_list or not declared.width:
        return _heap_column(column, declared)
    values, valid = column.values, column.valid
    if declared.item == "timestamp":
        values = values // MICROS
    if values.dtype.kind == "f":
        values = values.astype(np.float64)
        if not np.isfinite(values).all():
            return _with_infinities(values, valid)
    if valid.all():
        return values
    masked = values.astype(object)
    masked[~valid] = None
    return list(masked)


def _with_infinities(values: np.ndarray[Any, Any], valid: np.ndarray[Any, Any]) -> list[Any]:
    named = values.astype(object)
    named[~valid | np.isnan(values)] = None
    named[np.isposinf(values)] = "Infinity"
    named[np.isneginf(values)] = "-Infinity"
    return list(named)


def _heap_column(column: Any, declared: DType) -> list[Any]:
    if declared.item == "timestamp":
        seconds = [(items // MICROS).tolist() for items in column.lists()]
        return [value if ok else None for value, ok in zip(seconds, column.valid.tolist(), strict=True)]
    values: list[Any] = column.to_pylist()
    if declared.item == "string" or (declared.is_list and declared.item in ("bool", "int32", "int64")):
        return values
    if declared.item == "bytes" and not declared.is_list:
        return [None if v is None else base64.b64encode(v).decode("ascii") for v in values]
    return [json_value(value) for value in values]
