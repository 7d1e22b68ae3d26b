"""Answers as JSON: columnar, values[i] is feature i, values[i][j] belongs to entity j. Pure functions.

What depends on the plan alone is text before the first request. The native JsonDecoder writes the rest straight from
the rows; what it does not know (lists, bytes), and everything where there is none, goes through decoded columns, whose
numbers orjson writes a whole block of a type at a time. Both give the same bytes.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from fastserve.api.hits_py import AnswerHit
from fastserve.batch import ReadBatch
from fastserve.codec.decoded import DecodedColumn, DecodedRows
from fastserve.codec.status import Status
from fastserve.http.message import Response
from fastserve.serving.plan import ReadPlan
from fastserve.serving.read_path import FeatureBatch, Found, decode_columns
from fastserve.timeutil import MICROS, MIN_US, format_timestamp

if TYPE_CHECKING:
    from fastserve._native.json_rows import JsonDecoder
elif os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    JsonDecoder = None
else:
    try:
        from fastserve._native.json_rows import JsonDecoder
    except ImportError:
        JsonDecoder = None

DUMP: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
STATUS_NAMES: Final = ["INVALID", *(s.name for s in sorted(Status))]
MAX_PLANS: Final = 1_024
_MEDIA: Final = b"application/json"
_LAST_TIME: Final = 253_402_207_200 * MICROS - 1  # that orjson writes of numpy; 9999-12-31 is beyond it
_PRESENT: Final = int(Status.PRESENT)  # an enum's members take numpy longer to compare with
_EXPIRED: Final = int(Status.OUTSIDE_MAX_AGE)


class PlanText:
    """What every answer to a plan says alike.

    Attributes:
        whole: the one (read, scalar type) whose block is the answer's values as they stand, or None.
        order: of each answered column its number among the fields of all reads.
        native: writes its answers; None where only the general way does.
        ttls: of its reads.
    """

    __slots__ = ("dtypes", "names", "native", "order", "plan", "ttls", "views", "whole")

    def __init__(self, plan: ReadPlan) -> None:
        self.plan = plan
        self.names = _fragment([c.name for c in plan.columns])
        self.dtypes = _fragment([c.dtype for c in plan.columns])
        self.views = [{"name": read.view, "version": read.version} for read in plan.reads]
        firsts = np.cumsum([0, *(len(read.names) for read in plan.reads)])
        self.order = np.array([firsts[c.read] + c.column for c in plan.columns], np.intp)
        self.whole = _whole_block(plan)
        self.native = _native(plan)
        self.ttls = tuple(read.ttl_us for read in plan.reads)


def _native(plan: ReadPlan) -> JsonDecoder | None:
    """The decoder that writes what `_general` does, for a plan whose columns it knows."""
    if JsonDecoder is None:
        return None
    empty = _metadata(plan, 0)
    before, after = orjson.dumps(empty).split(b'"rows":0')
    views = [
        orjson.dumps({"name": read.view, "version": read.version})[:-1] + b',"event_timestamps":'
        for read in plan.reads
    ]
    try:
        return JsonDecoder(
            [read.rows for read in plan.reads],
            [(c.read, c.column) for c in plan.columns],
            orjson.dumps([c.name for c in plan.columns]),
            orjson.dumps([c.dtype for c in plan.columns]),
            views,
            (b',"metadata":' + before + b'"rows":', after[:-1]),
        )
    except ValueError:
        return None


_texts: dict[int, PlanText] = {}


def text_of(plan: ReadPlan) -> PlanText:
    """The text of a plan, made once."""
    found = _texts.get(id(plan))
    if found is None or found.plan is not plan:
        if len(_texts) >= MAX_PLANS:
            _texts.clear()
        found = _texts[id(plan)] = PlanText(plan)
    return found


def hit_json(plan: ReadPlan) -> AnswerHit | None:
    """Answers hits on the plan; None where the native decoder does not write them."""
    text = text_of(plan)
    native, ttls = text.native, text.ttls
    if native is None:
        return None

    def answer(batch: ReadBatch, n: int, now_us: int) -> Response | None:
        body = native.decode(batch, n, now_us, ttls)
        return None if body is None else Response(200, _MEDIA, body)

    return answer


def render_json(found: Found) -> bytes:
    """The columnar JSON answer; docs/http-api.md has an example."""
    text = text_of(found.plan)
    if text.native is not None:
        notes = _notes(found)
        extra = b"," + orjson.dumps(notes)[1:-1] if notes else b""
        answer = text.native.decode(found.rows, found.n, found.now_us, text.ttls, extra)
        if answer is not None:
            return answer
    return render_columns(decode_columns(found))


def render_columns(batch: FeatureBatch) -> bytes:
    """The same of decoded columns."""
    plan, text = batch.plan, text_of(batch.plan)
    present = all(
        bool((rows.statuses == _PRESENT).all()) for rows in batch.reads
    )  # no null, and every row fresh
    answer = {
        "names": text.names,
        "dtypes": text.dtypes,
        "values": _values(batch, text, present),
        "statuses": np.concatenate([rows.statuses for rows in batch.reads])[text.order],
        "views": [_view(batch, i, about, present) for i, about in enumerate(text.views)],
        "metadata": _metadata(plan, batch.n) | _notes(batch),
    }
    return orjson.dumps(answer, option=DUMP)


def _metadata(plan: ReadPlan, rows: int) -> dict[str, Any]:
    return {
        "feature_service": plan.service or None,
        "rows": rows,
        "revision": plan.revision,
        "schema_fingerprint": plan.fingerprint,
        "status_names": STATUS_NAMES,
    }


def _notes(found: Found | FeatureBatch) -> dict[str, Any]:
    """What the metadata says of an answer that is not as it should be."""
    notes: dict[str, Any] = {}
    if found.unavailable:
        notes["unavailable"] = found.unavailable
    if found.stale:
        notes["stale_rows"] = found.stale
    return notes


def known_rows(decoded: DecodedRows) -> npt.NDArray[np.bool_]:
    """bool[n]: the entity has a row, fresh or expired, and so an event time."""
    status = decoded.row_status
    known: npt.NDArray[np.bool_] = (status == _PRESENT) | (status == _EXPIRED)
    return known


def _fragment(value: Any) -> orjson.Fragment:
    return orjson.Fragment(orjson.dumps(value))


def _whole_block(plan: ReadPlan) -> tuple[int, str] | None:
    if len(plan.reads) != 1:
        return None
    fields = plan.reads[0].rows.plan.fields
    items = {field.dtype.item for field in fields}
    in_order = [c.column for c in plan.columns] == list(range(len(fields)))
    plain = all(field.slot == i for i, field in enumerate(fields))
    return (0, items.pop()) if in_order and plain and len(items) == 1 else None


def _values(batch: FeatureBatch, text: PlanText, present: bool) -> Any:
    """The columns as orjson takes them; whole blocks of a type need just one look each."""
    plain = [_plain_types(rows) if present or rows.valid.all() else set() for rows in batch.reads]
    if text.whole is not None and text.whole[1] in plain[text.whole[0]]:
        return batch.reads[text.whole[0]].blocks[text.whole[1]]
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
    """The scalar types whose block is JSON as it stands, where nothing is null: every float is finite."""
    return {
        item
        for item, block in rows.blocks.items()
        if item != "timestamp" and (block.dtype.kind != "f" or np.isfinite(block).all())
    }


def _view(batch: FeatureBatch, i: int, about: dict[str, Any], present: bool) -> dict[str, Any]:
    decoded = batch.reads[i]
    times = json_times(decoded.event_ts)
    age_ms = (batch.now_us - decoded.event_ts) // 1_000
    if present or (decoded.row_status == _PRESENT).all():
        return about | {"event_timestamps": times, "freshness_ms": age_ms}
    known = known_rows(decoded)
    return about | {"event_timestamps": _masked(times, known), "freshness_ms": _masked(age_ms, known)}


def json_times(us: npt.NDArray[np.int64]) -> npt.NDArray[np.datetime64] | list[str]:
    """Times as orjson takes them: at once where it can write every one."""
    if ((us >= MIN_US) & (us <= _LAST_TIME)).all():
        return us.view("datetime64[us]")
    return [format_timestamp(one) for one in us.tolist()]


def _masked(values: Iterable[Any], known: npt.NDArray[np.bool_]) -> list[Any]:
    return [value if ok else None for value, ok in zip(values, known.tolist(), strict=True)]


def json_column(column: DecodedColumn) -> Any:
    """One decoded column as orjson takes it.

    A numpy array where nothing needs a second look: no null, and finite if it is a float. A float32 is written in its
    own shortest form, 0.1, whatever stands beside it: so one stays a numpy float32, for orjson.
    """
    values, dtype = column.values, column.dtype
    if dtype.item == "timestamp":
        return _time_column(column)
    if values is not None and not dtype.is_list and column.valid.all():
        if values.dtype.kind != "f" or np.isfinite(values).all():
            return values
    if dtype.item == "float32":
        return [None if value is None else _json_float32(value) for value in column.to_pylist()]
    return [json_value(value) for value in column.to_pylist()]


def _time_column(column: DecodedColumn) -> Any:
    assert column.values is not None
    times: Any = (
        [json_times(items) for items in column.lists()] if column.dtype.is_list else json_times(column.values)
    )
    return times if column.valid.all() else _masked(times, column.valid)


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
