"""Calls to bytes, answers to results. Pure functions: no I/O, no clock, no retries.

A `Call` is a request with the function that reads its answer; `AsyncClient` sends it. docs/http-api.md has the shapes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeAlias, TypeVar
from urllib.parse import quote

import orjson

from fastserve import errors
from fastserve.client import columns
from fastserve.client.faults import error_of
from fastserve.client.features import FeatureRow, Features
from fastserve.client.tensor import Tensor, tensor_of
from fastserve.errors import InvalidDataError, RequestError, SchemaMismatchError, ServerError
from fastserve.timeutil import format_timestamp, to_us

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
F = TypeVar("F", Features, Tensor)
Body: TypeAlias = bytes | bytearray
Rows: TypeAlias = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]] | Any

JSON: Final = "application/json"
ARROW: Final = "application/vnd.apache.arrow.stream"
TENSOR: Final = "application/vnd.fastserve.tensor"
FORMATS: Final = {"json": JSON, "arrow": ARROW}
BATCH: Final = "/online-features/batch"
DESTINATIONS: Final = ("online", "offline", "online_and_offline")
DEADLINE: Final = "fastserve-deadline-ms"


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: Body


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """A request and the reader of its answer.

    Attributes:
        method, path: the path is percent-encoded, with its query.
        body: b"" for none.
        accept: the media type asked for.
        parse: Answer -> result; raises what the server says is wrong.
        deadline_ms: in all; None for the client's.
        retry_busy: whether 429 and 503 are worth another attempt.
    """

    method: str
    path: str
    body: bytes
    accept: str
    parse: Callable[[Answer], T_co]
    deadline_ms: int | None = None
    retry_busy: bool = True


@dataclass(frozen=True, slots=True)
class Health:
    """What ``GET /health`` says.

    Attributes:
        ok: the server and its online store answer.
        revision: of the registry it serves.
        detail: the whole answer.
    """

    ok: bool
    revision: int | None
    detail: dict[str, Any]


# ---- reading many -------------------------------------------------------------------------------


def online_features(
    features: Sequence[str] | None,
    entities: Rows,
    *,
    service: str | None,
    full_feature_names: bool,
    deadline_ms: int | None,
    format: str,
    expect_fingerprint: str | None,
) -> Call[Features]:
    """``POST /online-features/batch``; AsyncClient.get_online_features says what the arguments are."""
    if format not in FORMATS:
        hint = "get_online_tensor" if format == "tensor" else " | ".join(FORMATS)
        raise RequestError(f"{format!r} is no format", where="format", hint=hint)
    body = _batch(features, entities, service, full_feature_names, expect_fingerprint)

    def parse(answer: Answer) -> Features:
        return _expected(_read(answer, _features), expect_fingerprint, service)

    return Call("POST", BATCH, body, FORMATS[format], parse, checked_ms(deadline_ms))


def online_tensor(
    features: Sequence[str] | None,
    entities: Rows,
    *,
    service: str | None,
    full_feature_names: bool,
    deadline_ms: int | None,
    expect_fingerprint: str | None,
) -> Call[Tensor]:
    """The same read as one matrix; AsyncClient.get_online_tensor says what the arguments are."""
    body = _batch(features, entities, service, full_feature_names, expect_fingerprint)

    def parse(answer: Answer) -> Tensor:
        return _expected(_read(answer, _tensor), expect_fingerprint, service)

    return Call("POST", BATCH, body, TENSOR, parse, checked_ms(deadline_ms))


def _batch(
    features: Sequence[str] | None,
    entities: Rows,
    service: str | None,
    full_feature_names: bool,
    expect_fingerprint: str | None,
) -> bytes:
    if (service is None) == (features is None):
        which = "neither" if service is None else "both"
        raise RequestError(f"{which} of features and service given", where="arguments", hint="name one")
    if isinstance(features, str):
        raise RequestError("is one text, not a list", where="features", hint=f"[{features!r}]")
    body: dict[str, Any] = {"entities": table_of(entities, "entities")}
    body |= {"features": list(features)} if features is not None else {"feature_service": service}
    if full_feature_names:
        body["full_feature_names"] = True
    if expect_fingerprint is not None:
        body["expect_fingerprint"] = expect_fingerprint
    return dump(body)


def _expected(found: F, expect_fingerprint: str | None, service: str | None) -> F:
    """What was found; SchemaMismatchError when another schema was expected."""
    if expect_fingerprint is not None and found.fingerprint != expect_fingerprint:
        raise SchemaMismatchError(
            f"the features served have schema {found.fingerprint}, and {expect_fingerprint} was expected",
            where=f"service {service!r}" if service is not None else "features",
            hint="a name, a type, a view version or the order changed since, e.g. since the model was trained:"
            " train again, or ask for the versions it was trained with (view@v1:feature)",
        )
    return found


def _read(answer: Answer, read: Callable[[Answer], F]) -> F:
    raise_for_status(answer)
    try:
        return read(answer)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, AttributeError) as error:
        if isinstance(error, errors.FastserveError):
            raise
        raise _not_ours(answer, f"{type(error).__name__}: {error}") from error


def _media(answer: Answer) -> str:
    return answer.headers.get("content-type", "").partition(";")[0].strip()


def _features(answer: Answer) -> Features:
    return arrow_features(answer.body) if _media(answer) == ARROW else json_features(_object(answer))


def _tensor(answer: Answer) -> Tensor:
    if _media(answer) != TENSOR:
        raise ValueError(f"{_media(answer)} instead of {TENSOR}")
    return tensor_of(answer.headers, answer.body)


def json_features(data: Mapping[str, Any]) -> Features:
    """The columnar JSON answer, decoded by the types it declares."""
    meta, names = data["metadata"], tuple(data["names"])
    dtypes = tuple(data["dtypes"]) if "dtypes" in data else ("",) * len(names)
    labels = meta["status_names"]
    values = columns.decode_columns(data["values"], dtypes)
    statuses = [[labels[code] for code in column] for column in data["statuses"]]
    times = [columns.decode(view["event_timestamps"], "timestamp") for view in data["views"]]
    return Features(
        names=names,
        dtypes=dtypes,
        n=meta["rows"],
        statuses=dict(zip(names, statuses, strict=True)),
        event_timestamps=_by_view([f"{view['name']}@v{view['version']}" for view in data["views"]], times),
        revision=meta["revision"],
        fingerprint=meta["schema_fingerprint"],
        unavailable=meta.get("unavailable", ""),
        _values=values,
    )


def arrow_features(body: Body) -> Features:
    """The Arrow stream: a column per feature, a status column per feature, then the views' event timestamps.

    Only views' columns have an @ in their name, so what stands before them is half features, half statuses.
    """
    import pyarrow as pa  # noqa: PLC0415  (needed by those who ask for it)

    table = pa.ipc.open_stream(pa.py_buffer(body)).read_all().combine_chunks()
    meta = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    views = [name for name in table.column_names if "@" in name]
    k = (table.num_columns - len(views)) // 2
    names = tuple(table.column_names[:k])
    labels = meta["fastserve.status_names"].split(",")
    values = [_one_chunk(table.column(i)) for i in range(k)]
    times = [columns.arrow_to_python(table.column(2 * k + i), "timestamp") for i in range(len(views))]
    return Features(
        names=names,
        dtypes=tuple(columns.dtype_of(table.schema.field(i).type) for i in range(k)),
        n=table.num_rows,
        statuses={
            name: [labels[code] for code in table.column(k + i).to_pylist()] for i, name in enumerate(names)
        },
        event_timestamps=_by_view([view.partition("__event_timestamp")[0] for view in views], times),
        revision=int(meta["fastserve.revision"]),
        fingerprint=meta["fastserve.schema_fingerprint"],
        unavailable="",
        _values=values,
    )


def _one_chunk(column: Any) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    return column.chunk(0) if column.num_chunks == 1 else pa.array([], column.type)


def _by_view(labels: Sequence[str], times: Sequence[list[Any]]) -> dict[str, list[datetime | None]]:
    found: dict[str, list[datetime | None]] = {}
    for label, column in zip(labels, times, strict=True):
        count = sum(known.partition("#")[0] == label for known in found)
        found[f"{label}#{count + 1}" if count else label] = column
    return found


# ---- reading one --------------------------------------------------------------------------------


def feature_view_row(view: str, keys: Mapping[str, Any], deadline_ms: int | None) -> Call[FeatureRow]:
    """``GET /feature-views/{name}/online-features?…``."""
    query = "&".join(
        f"{quote(name, safe='')}={quote(_query_text(name, v), safe='')}" for name, v in keys.items()
    )
    path = f"/feature-views/{quote(view, safe='@')}/online-features" + (f"?{query}" if query else "")
    return Call("GET", path, b"", JSON, _row, checked_ms(deadline_ms))


def _query_text(name: str, value: Any) -> str | bytes:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, bytes)):
        return value
    try:
        return str(value.__index__())
    except AttributeError:
        raise errors.InvalidEntityError(
            f"is a {type(value).__name__}, not an integer, text, bool or bytes", where=name
        ) from None


def _row(answer: Answer) -> FeatureRow:
    raise_for_status(answer)
    try:
        data = _object(answer)
        dtypes, time = data.get("dtypes", {}), data["event_timestamp"]
        return FeatureRow(
            view=data["feature_view"],
            version=data["version"],
            values={n: columns.decode([v], dtypes.get(n, ""))[0] for n, v in data["features"].items()},
            statuses=data["statuses"],
            event_timestamp=columns.decode([time], "timestamp")[0],
            freshness_ms=data["freshness_ms"],
            revision=data["metadata"]["revision"],
            fingerprint=data["metadata"]["schema_fingerprint"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _not_ours(answer, f"{type(error).__name__}: {error}") from error


# ---- writing ------------------------------------------------------------------------------------


def push(source: str, rows: Rows, to: str, deadline_ms: int | None) -> Call[None]:
    """``POST /push`` in Feast's JSON."""
    if to not in DESTINATIONS:
        raise RequestError(f"{to!r} is no destination", where="to", hint=" | ".join(DESTINATIONS))
    body = {"push_source_name": source, "df": table_of(rows, "rows"), "to": to}
    return Call("POST", "/push", dump(body), JSON, raise_for_status, checked_ms(deadline_ms))


def write_to_online_store(view: str, rows: Rows, deadline_ms: int | None) -> Call[None]:
    """``POST /write-to-online-store`` in Feast's JSON."""
    body = {"feature_view_name": view, "df": table_of(rows, "rows")}
    return Call("POST", "/write-to-online-store", dump(body), JSON, raise_for_status, checked_ms(deadline_ms))


# ---- health -------------------------------------------------------------------------------------


def health(deadline_ms: int | None) -> Call[Health]:
    """``GET /health``; a 503 is an answer here, not an error."""
    return Call("GET", "/health", b"", JSON, _health, checked_ms(deadline_ms), retry_busy=False)


def _health(answer: Answer) -> Health:
    if answer.status not in (200, 503):
        raise_for_status(answer)
    detail: dict[str, Any] = {}
    if answer.body.strip():
        try:
            detail = _object(answer)
        except ValueError as error:
            raise _not_ours(answer, str(error)) from error
    return Health(answer.status == 200, detail.get("revision"), detail)


# ---- tables to JSON -----------------------------------------------------------------------------


def table_of(rows: Rows, where: str) -> dict[str, list[Any]]:
    """Columns of plain values from columns, a list of rows, or a pandas, polars or Arrow table.

    bytes become base64, times RFC 3339 text, and floats that are not finite their names, as docs/http-api.md says.
    In a pandas column that is not Arrow-backed NaN means null, as pandas means it.

    Raises:
        InvalidDataError: the rows are none of these, or do not have the same columns.
    """
    return {
        name: [_plain(value, _nan_is_null(column)) for value in _items(column)]
        for name, column in _columns(rows, where).items()
    }


def _nan_is_null(column: Any) -> bool:
    is_pandas = type(column).__module__.partition(".")[0] == "pandas"
    return is_pandas and type(column.dtype).__name__ != "ArrowDtype"


def _columns(rows: Any, where: str) -> Mapping[str, Any]:
    if isinstance(rows, Mapping):
        for name, column in rows.items():
            if isinstance(column, (str, bytes)) or not hasattr(column, "__len__"):
                raise InvalidDataError(
                    "is one value, not a column", where=f"{where}.{name}", hint="[value, ...]"
                )
        return rows
    if hasattr(rows, "to_pydict"):  # pyarrow
        return dict(rows.to_pydict())
    if hasattr(rows, "iloc"):  # pandas
        return {str(name): column for name, column in rows.items()}
    if hasattr(rows, "to_dict"):  # polars
        return dict(rows.to_dict(as_series=False))
    if isinstance(rows, Sequence) and not isinstance(rows, (str, bytes)):
        if not all(isinstance(row, Mapping) for row in rows):
            raise InvalidDataError("is a list, but not of rows", where=where, hint='[{"user_id": 1}, ...]')
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: [row.get(name) for row in rows] for name in names}
    raise InvalidDataError(
        f"a {type(rows).__name__} is no table", where=where, hint='columns: {"user_id": [1, 2, 3]}'
    )


def _items(column: Any) -> Any:
    """The values as Python objects: numpy arrays and pandas or polars columns have a tolist of their own."""
    if type(column).__module__.startswith("numpy") and column.dtype.kind == "M":
        column = column.astype("datetime64[us]")
    for method in ("tolist", "to_list"):
        if hasattr(column, method):
            return getattr(column, method)()
    return column


def _plain(value: Any, nan_is_null: bool) -> Any:
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, float):
        if value - value == 0:
            return float(value)
        if value != value:
            return None if nan_is_null else "NaN"
        return "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if type(value).__name__ in ("NaTType", "NAType"):  # pandas
        return None
    if isinstance(value, datetime):
        return format_timestamp(to_us(value))
    if hasattr(value, "tolist"):  # numpy scalars, and the arrays that stand in a column of lists
        return _plain(value.tolist(), nan_is_null)
    if isinstance(value, Sequence):
        return [_plain(item, False) for item in value]
    return value  # for orjson to refuse


def dump(body: Any) -> bytes:
    """JSON; InvalidDataError for a value that JSON has no form of."""
    try:
        return orjson.dumps(body)
    except TypeError as error:
        raise InvalidDataError(f"cannot be sent as JSON: {error}", where="rows") from error


# ---- answers ------------------------------------------------------------------------------------


def checked_ms(deadline_ms: int | None) -> int | None:
    """A deadline; RequestError when it is not positive."""
    if deadline_ms is not None and deadline_ms <= 0:
        raise RequestError(
            f"{deadline_ms} is no deadline", where="deadline_ms", hint="milliseconds, 1 or more"
        )
    return deadline_ms


def raise_for_status(answer: Answer) -> None:
    """Raise the error that an answer tells of; nothing for 2xx."""
    if not 200 <= answer.status < 300:
        raise error_of(answer.status, answer.headers, answer.body)


def _object(answer: Answer) -> dict[str, Any]:
    data = orjson.loads(answer.body)
    if not isinstance(data, dict):
        raise ValueError(f"a JSON {type(data).__name__} instead of an object")
    return data


def _not_ours(answer: Answer, why: str) -> ServerError:
    return ServerError(
        f"the answer is not one of fastserve's: {why}",
        where=f"HTTP {answer.status}, {answer.headers.get('content-type', 'no content-type')}",
        hint="is the URL that of a fastserve server, of this version or newer?",
        status=answer.status,
    )
