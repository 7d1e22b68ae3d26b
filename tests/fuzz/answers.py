"""Rows of an online store, to the JSON and the Arrow of an answer; inputs as in rows.py."""

from __future__ import annotations

import orjson
import pyarrow as pa

from fastserve.api.arrow_answer import render_arrow, write_columns
from fastserve.api.json_answer import render_columns, render_json, text_of
from fastserve.batch import ReadBatch
from fastserve.codec.layout import Layout
from fastserve.codec.rows import RowDecoder
from fastserve.errors import CodecError
from fastserve.serving.plan import OutputColumn, ReadPlan, ViewRead
from fastserve.serving.read_path import Found, decode_columns
from fastserve.types import Array, DType
from tests.fuzz.rows import NUMBERS, given, layouts
from tests.fuzz.sampling import sampled

NOW = 1_700_000_000_000_000
F4, F8, BOOL, TEXT, TIME = (DType(name) for name in ("float32", "float64", "bool", "string", "timestamp"))
INT, LONG = DType("int32"), DType("int64")
NUMERIC = layouts(F4, F4, F4, F8, F8, BOOL, INT, Array("float32", 3), LONG, TIME, F4, BOOL)
PLAIN = layouts(TEXT, F4, F4, F8, LONG, TIME, BOOL, INT, TEXT, F8, F4, TEXT)


def plan_of(known: dict[int, Layout], names: tuple[str, ...], ttl: int | None) -> ReadPlan:
    decoder = RowDecoder(known, names, {})
    read = ViewRead("v", 1, ("id",), ("int64",), ttl, None, names, None, decoder)  # type: ignore[arg-type]
    outputs = [
        OutputColumn(name, str(field.dtype), 0, i)
        for i, (name, field) in enumerate(zip(names, decoder.plan.fields, strict=True))
    ]
    again = OutputColumn("again", outputs[1].dtype, 0, 1)
    return ReadPlan("svc", 7, (*outputs, again), (read,), {"id": "int64"}, "0123456789abcdef")


PLANS = {
    (numbers, bounded): plan_of(*known, 3_600_000_000 if bounded else None)
    for numbers, known in ((True, NUMERIC), (False, PLAIN))
    for bounded in (False, True)
}
assert text_of(PLANS[False, False]).native is not None


def render(data: bytes) -> None:
    """Both answers, and what the general way makes of the same rows."""
    if len(data) < 2:
        return
    keys, rows = given(data)
    batch = ReadBatch(keys)
    batch.fill(rows, 0)
    found = Found(PLANS[bool(data[0] & NUMBERS), bool(data[0] & 4)], len(keys), batch, NOW)
    check_json(found, sampled(data, 32))
    if data[0] & NUMBERS:
        check_arrow(found, sampled(data, 32))


def check_json(found: Found, general: bool) -> None:
    answer: bytes | str
    try:
        answer = render_json(found)
        orjson.loads(answer)
    except CodecError as error:
        answer = str(error)
    except UnicodeDecodeError:
        return  # a text that is none; native and general alike
    if general:
        expected: bytes | str
        try:
            expected = render_columns(decode_columns(found))
        except CodecError as error:
            expected = str(error)
        assert answer == expected, f"{answer!r}, the general way {expected!r}"


def check_arrow(found: Found, general: bool) -> None:
    try:
        answer = pa.ipc.open_stream(render_arrow(found)).read_all()
        answer.validate(full=True)
    except CodecError:
        return
    if general:
        expected = pa.ipc.open_stream(write_columns(decode_columns(found))).read_all()
        for name, one, other in zip(answer.column_names, answer.columns, expected.columns, strict=True):
            assert plain(one) == plain(other), name


def plain(column: pa.ChunkedArray) -> str:
    """Its values, NaNs alike; times as numbers, for Python has none so far away."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return repr(column.to_pylist())
