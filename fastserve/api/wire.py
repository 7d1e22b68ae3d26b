"""Requests from JSON, answers to JSON and Arrow. Pure functions: no I/O, no clock.

The JSON answer is columnar: values[i] is feature i, values[i][j] belongs to entity j.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from fastserve.codec.decoded import DecodedColumn, DecodedRows
from fastserve.codec.status import Status
from fastserve.errors import InvalidEntityError, RequestError, SchemaMismatchError, TooLargeError
from fastserve.http.message import Request
from fastserve.serving.plan import ReadPlan
from fastserve.serving.read_path import FeatureBatch
from fastserve.types import arrow_type, parse_dtype

MAX_ENTITIES: Final = 10_000
JSON: Final = "application/json"
ARROW: Final = "application/vnd.apache.arrow.stream"
DUMP: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z
DEADLINE: Final = b"fastserve-deadline-ms"
STATUS_NAMES: Final = ["INVALID", *(s.name for s in sorted(Status))]
_KEYS: Final = ("feature_service", "features", "entities", "full_feature_names", "expect_fingerprint")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A parsed `POST /online-features/batch`; exactly one of service and features is set.

    Attributes:
        expect_fingerprint: the schema fingerprint the caller was trained with; '' for any.
    """

    service: str
    features: tuple[str, ...]
    entities: dict[str, list[Any]]
    full_feature_names: bool
    expect_fingerprint: str = ""


def parse_batch(body: bytes) -> BatchRequest:
    """Check shape and JSON types; names and key types are the plan's business.

    Raises:
        RequestError: malformed JSON or a wrong shape; `where` is a JSON path.
        TooLargeError: more than MAX_ENTITIES entities.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            f"the body is not valid JSON: {error}",
            where="$",
            hint='send {"feature_service": "name", "entities": {"key": [...]}}',
        ) from None
    if not isinstance(data, dict):
        raise RequestError(f"the body is a JSON {json_kind(data)}, not an object", where="$")
    for name in data:
        if name not in _KEYS:
            raise RequestError(f"unknown member {name!r}", where="$", hint=f"members: {', '.join(_KEYS)}")
    service, features = _targets(data)
    full = data.get("full_feature_names", False)
    if not isinstance(full, bool):
        raise RequestError(f"is a {json_kind(full)}, not true or false", where="$.full_feature_names")
    entities = parse_entities(data.get("entities", {}))
    return BatchRequest(service, features, entities, full, _fingerprint(data))


def _fingerprint(data: dict[str, Any]) -> str:
    expected = data.get("expect_fingerprint")
    if expected is None:
        return ""
    if not isinstance(expected, str) or not _FINGERPRINT.fullmatch(expected):
        shown = repr(expected) if isinstance(expected, str) else f"a {json_kind(expected)}"
        raise RequestError(
            f"is {shown}, not a schema fingerprint",
            where="$.expect_fingerprint",
            hint="16 hex digits: `schema_fingerprint` of an answer or of a training data set's manifest",
        )
    return expected


def check_fingerprint(plan: ReadPlan, asked: BatchRequest) -> None:
    """Raise SchemaMismatchError when the caller expects another schema than the plan's."""
    if asked.expect_fingerprint and asked.expect_fingerprint != plan.fingerprint:
        names = ", ".join(f"{c.name} {c.dtype}" for c in plan.columns[:8])
        raise SchemaMismatchError(
            f"the answer would have schema {plan.fingerprint}, not {asked.expect_fingerprint}",
            where="$.expect_fingerprint",
            hint=f"it would answer {names}{', …' if len(plan.columns) > 8 else ''}; "
            "pin the service to the model's training data set, or train again",
        )


def _targets(data: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    service, features = data.get("feature_service"), data.get("features")
    if (service is None) == (features is None):
        which = "neither" if service is None else "both"
        raise RequestError(
            f"{which} of feature_service and features given",
            where="$",
            hint='name one: "feature_service": "name", or "features": ["view:feature", ...]',
        )
    if service is not None:
        if not isinstance(service, str) or not service:
            raise RequestError(f"is a {json_kind(service)}, not a name", where="$.feature_service")
        return service, ()
    if not isinstance(features, list) or not features:
        raise RequestError("is not a list of references", where="$.features", hint='["view:feature", ...]')
    for i, ref in enumerate(features):
        if not isinstance(ref, str):
            raise RequestError(f"is a {json_kind(ref)}, not 'view:feature'", where=f"$.features[{i}]")
    return "", tuple(features)


def parse_entities(value: Any) -> dict[str, list[Any]]:
    """Columns of a request: name -> list, none longer than MAX_ENTITIES.

    Raises:
        InvalidEntityError, TooLargeError: they are not.
    """
    if not isinstance(value, dict):
        raise InvalidEntityError(
            f"is a JSON {json_kind(value)}, not an object",
            where="$.entities",
            hint='send columns: {"user_id": [1, 2, 3]}',
        )
    for name, column in value.items():
        if not isinstance(column, list):
            raise InvalidEntityError(
                f"is a JSON {json_kind(column)}, not a list", where=f"$.entities.{name}", hint="[value, ...]"
            )
        if len(column) > MAX_ENTITIES:
            raise TooLargeError(
                f"{len(column):,} entities in one request; the limit is {MAX_ENTITIES:,}",
                where=f"$.entities.{name}",
                hint="send several requests",
            )
    return value


def deadline_us(request: Request) -> int | None:
    """The wait the request allows, by its header `fastserve-deadline-ms`; None without one.

    Raises:
        RequestError: the header is not a whole number of milliseconds, 1 or more.
    """
    text = request.header(DEADLINE)
    if text is None:
        return None
    if not (text.isdigit() and len(text) <= 9 and int(text)):
        raise RequestError(
            f"{text.decode('latin-1')!r} is no deadline",
            where=f"header {DEADLINE.decode()}",
            hint="milliseconds as a whole number, 1 or more: 250",
        )
    return int(text) * 1_000


def json_keys(plan: ReadPlan, entities: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The entity columns with bytes keys decoded from base64; the same dict where there are none.

    Raises:
        InvalidEntityError: a bytes key is not base64.
    """
    if "bytes" not in plan.entity_columns.values():
        return entities
    return {
        name: [_unbase64(v, f"$.entities.{name}[{i}]") for i, v in enumerate(column)]
        if plan.entity_columns.get(name) == "bytes"
        else column
        for name, column in entities.items()
    }


def _unbase64(value: Any, where: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError):
        raise InvalidEntityError("is not base64 text", where=where, hint="bytes keys are base64") from None


def json_kind(value: Any) -> str:
    """What JSON calls a parsed value."""
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def render_json(batch: FeatureBatch) -> bytes:
    """The columnar JSON answer; docs/http-api.md has an example."""
    plan = batch.plan
    statuses = [batch.reads[c.read].statuses[c.column] for c in plan.columns]
    metadata = {
        "feature_service": plan.service or None,
        "rows": batch.n,
        "revision": plan.revision,
        "schema_fingerprint": plan.fingerprint,
        "status_names": STATUS_NAMES,
    }
    if batch.unavailable:
        metadata["unavailable"] = batch.unavailable
    if batch.stale:
        metadata["stale_rows"] = batch.stale
    answer = {
        "names": [c.name for c in plan.columns],
        "dtypes": [c.dtype for c in plan.columns],
        "values": _json_values(batch),
        "statuses": statuses,
        "views": [_json_view(batch, i) for i in range(len(plan.reads))],
        "metadata": metadata,
    }
    return orjson.dumps(answer, option=DUMP)


def _json_values(batch: FeatureBatch) -> list[Any]:
    """The columns as orjson takes them; whole blocks of a type need just one look each."""
    plain = [_plain_types(rows) for rows in batch.reads]
    found = []
    for output in batch.plan.columns:
        rows = batch.reads[output.read]
        field = rows.fields[output.column]
        if field.slot >= 0 and field.dtype.item in plain[output.read]:
            found.append(rows.blocks[field.dtype.item][field.slot])
        else:
            found.append(json_column(rows.columns[output.column]))
    return found


def _plain_types(rows: DecodedRows) -> set[str]:
    """The scalar types whose block is JSON as it stands: nothing null, every float finite."""
    if not rows.valid.all():
        return set()
    return {
        item
        for item, block in rows.blocks.items()
        if item != "timestamp" and (block.dtype.kind != "f" or np.isfinite(block).all())
    }


def json_column(column: DecodedColumn) -> Any:
    """One decoded column as orjson takes it.

    A numpy array where nothing needs a second look: no null, and finite if it is a float. A float32 is written in its
    own shortest form, 0.1, whatever stands beside it: so one stays a numpy float32, for orjson.
    """
    values, dtype = column.values, column.dtype
    if values is not None and not dtype.is_list and dtype.item != "timestamp" and column.valid.all():
        if values.dtype.kind != "f" or np.isfinite(values).all():
            return values
    if dtype.item == "float32":
        return [None if value is None else _json_float32(value) for value in column.to_pylist()]
    return [json_value(value) for value in column.to_pylist()]


def _json_float32(value: Any) -> Any:
    """A float or a list of them, each of which a float32 holds exactly."""
    singles = np.asarray(value, dtype=np.float32)
    if np.isfinite(singles).all():
        return singles if singles.ndim else singles[()]
    if not singles.ndim:
        return json_value(value)
    return [
        single if ok else json_value(float(single))
        for single, ok in zip(singles, np.isfinite(singles), strict=True)
    ]


def json_value(value: Any) -> Any:
    """One value in the JSON form of types.SCALARS; NaN and infinities by name, so that null stays null."""
    if isinstance(value, float):
        if value - value == 0:
            return value
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, (list, np.ndarray)):
        return [json_value(item) for item in value]
    return value


def _json_view(batch: FeatureBatch, i: int) -> dict[str, Any]:
    read, decoded = batch.plan.reads[i], batch.reads[i]
    known = known_rows(decoded)
    age_ms = (batch.now_us - decoded.event_ts) // 1_000
    times = decoded.event_ts.astype("datetime64[us]")
    return {
        "name": read.view,
        "version": read.version,
        "event_timestamps": _masked(np.datetime_as_string(times, timezone="UTC").tolist(), known),
        "freshness_ms": _masked(age_ms.tolist(), known),
    }


def known_rows(decoded: DecodedRows) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """bool[n]: the entity has a row, fresh or expired, and so an event time."""
    return np.isin(decoded.row_status, (Status.PRESENT, Status.OUTSIDE_MAX_AGE))


def _masked(values: list[Any], known: np.ndarray[Any, np.dtype[np.bool_]]) -> list[Any]:
    if known.all():
        return values
    return [value if ok else None for value, ok in zip(values, known.tolist(), strict=True)]


def arrow_schema(plan: ReadPlan) -> pa.Schema:
    """Features, then for each a `<name>__status` uint8 column, then each view's event timestamps."""
    fields = [pa.field(c.name, arrow_type(parse_dtype(c.dtype))) for c in plan.columns]
    fields += [pa.field(f"{c.name}__status", pa.uint8(), nullable=False) for c in plan.columns]
    fields += [
        pa.field(f"{read.view}@v{read.version}__event_timestamp#{i}", pa.timestamp("us", "UTC"))
        for i, read in enumerate(plan.reads)
    ]
    return pa.schema(
        fields,
        metadata={
            "fastserve.feature_service": plan.service,
            "fastserve.revision": str(plan.revision),
            "fastserve.schema_fingerprint": plan.fingerprint,
            "fastserve.status_names": ",".join(STATUS_NAMES),
        },
    )


def render_arrow(batch: FeatureBatch) -> pa.Buffer:
    """An Arrow IPC stream of one record batch with `arrow_schema`."""
    columns = [batch.reads[c.read].columns[c.column].to_arrow() for c in batch.plan.columns]
    columns += [pa.array(batch.reads[c.read].statuses[c.column]) for c in batch.plan.columns]
    columns += [_arrow_times(batch, i) for i in range(len(batch.reads))]
    schema = arrow_schema(batch.plan)
    if batch.unavailable:
        schema = schema.with_metadata({**schema.metadata, "fastserve.unavailable": batch.unavailable})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return sink.getvalue()


def _arrow_times(batch: FeatureBatch, i: int) -> pa.Array:
    decoded = batch.reads[i]
    return pa.array(decoded.event_ts, mask=~known_rows(decoded)).cast(pa.timestamp("us", "UTC"))


def choose(accept: bytes | None, offered: Sequence[str] = (JSON, ARROW)) -> str | None:
    """The media type to answer with, by the Accept header; None when none is acceptable.

    Enough of RFC 9110 section 12.5.1 for the types offered: q-values order, wildcards take the first that is not
    refused by name (q=0).
    """
    if not accept:
        return offered[0]
    ranked: list[tuple[float, int, str]] = []
    for position, part in enumerate(accept.decode("latin-1").split(",")):
        name, *params = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for param in params:
            if param.startswith("q="):
                try:
                    quality = float(param[2:])
                except ValueError:
                    quality = 0.0
        ranked.append((-quality, position, name))
    refused = {name for quality, _, name in ranked if not quality}
    for quality, _, name in sorted(ranked):
        if not quality:
            continue
        for media in (media for media in offered if media not in refused):
            if name in (media, "*/*", media.split("/")[0] + "/*"):
                return media
    return None
