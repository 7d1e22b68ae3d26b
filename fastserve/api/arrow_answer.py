"""Answers as an Arrow IPC stream of one record batch. Pure functions.

    stream    schema message | record batch message | body: buffers, each at a multiple of 64 | end of stream

Where every column has a fixed width, only the body and the columns' null counts differ between two answers to a plan
for as many entities. So pyarrow writes one such stream, which is kept with the places of its parts, as pyarrow reads
them; the native ArrowFiller decodes rows right into copies of it. Other plans are written by pyarrow, from decoded
columns.
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from fastserve.api.hits_py import AnswerHit
from fastserve.api.json_answer import STATUS_NAMES, known_rows
from fastserve.batch import ReadBatch
from fastserve.http.message import Buffer, Response
from fastserve.serving.plan import ReadPlan
from fastserve.serving.read_path import FeatureBatch, Found, decode_columns
from fastserve.types import DType, arrow_type, parse_dtype

if TYPE_CHECKING:
    from fastserve._native.arrow_rows import ArrowFiller
elif os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    ArrowFiller = None
else:
    try:
        from fastserve._native.arrow_rows import ArrowFiller
    except ImportError:
        ArrowFiller = None

KEPT_BYTES: Final = 32 << 20
_MEDIA: Final = b"application/vnd.apache.arrow.stream"


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


def hit_arrow(plan: ReadPlan) -> AnswerHit | None:
    """Answers hits on the plan; None where columns have no fixed width."""
    if _templates.of(plan, 1) is None:
        return None

    def answer(batch: ReadBatch, n: int, now_us: int) -> Response | None:
        kept = _templates.of(plan, n)
        return None if kept is None else Response(200, _MEDIA, kept.filler.fill(batch, now_us, kept.ttls))

    return answer


def render_arrow(found: Found) -> Buffer:
    """An Arrow IPC stream of one record batch with `arrow_schema`."""
    if found.n and not found.unavailable and not found.stale:
        kept = _templates.of(found.plan, found.n)
        if kept is not None:
            return kept.filler.fill(found.rows, found.now_us, kept.ttls)
    return memoryview(write_columns(decode_columns(found)))


def write_columns(batch: FeatureBatch) -> pa.Buffer:
    """The same of decoded columns, by pyarrow."""
    columns = [batch.reads[c.read].columns[c.column].to_arrow() for c in batch.plan.columns]
    columns += [pa.array(batch.reads[c.read].statuses[c.column]) for c in batch.plan.columns]
    columns += [
        pa.array(rows.event_ts, mask=~known_rows(rows)).cast(pa.timestamp("us", "UTC"))
        for rows in batch.reads
    ]
    schema = arrow_schema(batch.plan)
    notes = {"fastserve.unavailable": batch.unavailable, "fastserve.stale_rows": str(batch.stale or "")}
    schema = schema.with_metadata(schema.metadata | {name: text for name, text in notes.items() if text})
    return _stream(pa.record_batch(columns, schema=schema))


def _stream(batch: pa.RecordBatch) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


class _Template:
    """What makes the answers to a plan for n entities; its columns have fixed widths."""

    __slots__ = ("filler", "plan", "ttls")

    def __init__(self, plan: ReadPlan, n: int) -> None:
        self.plan = plan
        self.ttls = tuple(read.ttl_us for read in plan.reads)
        width = len(plan.columns)
        empty = _empty(plan, n)
        stream = _stream(empty).to_pybytes()
        base = pa.py_buffer(stream)
        read = pa.ipc.open_stream(base).read_next_batch()
        offsets = [[b and b.address - base.address for b in column.buffers()] for column in read.columns]
        features, statuses, times = offsets[:width], offsets[width : 2 * width], offsets[2 * width :]
        nulls = _null_counts(stream, empty)
        columns = [
            (c.read, c.column, at[-1], at[0], count, status[1])
            for c, at, count, status in zip(plan.columns, features, nulls[:width], statuses, strict=True)
        ]
        stamps = [(at[1], at[0], count) for at, count in zip(times, nulls[width:], strict=True)]
        self.filler = ArrowFiller([r.rows for r in plan.reads], n, stream, columns, stamps)


def _empty(plan: ReadPlan, n: int) -> pa.RecordBatch:
    """n rows in which everything that can be null is: so that all buffers are there."""
    schema = arrow_schema(plan)
    bits = pa.py_buffer(bytes((n + 7) // 8))
    columns = [_zeros(field.type, n, bits if field.nullable else None) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _zeros(kind: pa.DataType, n: int, validity: pa.Buffer | None) -> pa.Array:
    nulls = 0 if validity is None else n
    if pa.types.is_fixed_size_list(kind):
        items = _zeros(kind.value_type, n * kind.list_size, None)
        return pa.Array.from_buffers(kind, n, [validity], nulls, children=[items])
    data = pa.py_buffer(bytes((n * kind.bit_width + 7) // 8))
    return pa.Array.from_buffers(kind, n, [validity, data], nulls)


def _null_counts(stream: bytes, batch: pa.RecordBatch) -> list[int]:
    """Where the null counts of the columns that can have nulls lie.

    A record batch message has one FieldNode {int64 length, int64 null count} for each array, children after their
    parent, all in one piece (Arrow's Message.fbs): a piece that is known from the batch, and so is found.
    """
    nodes, counts = bytearray(), []
    for column in batch.columns:
        if column.null_count:
            counts.append(len(nodes) + 8)
        nodes += struct.pack("<qq", len(column), column.null_count)
        if pa.types.is_fixed_size_list(column.type):
            nodes += struct.pack("<qq", len(column) * column.type.list_size, 0)
    start = stream.index(nodes)
    return [start + at for at in counts]


class _Templates:
    """Templates used lately, within a budget of bytes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, int], _Template] = OrderedDict()
        self._bytes = 0

    def of(self, plan: ReadPlan, n: int) -> _Template | None:
        """The template for a plan and n entities; None where a column's width is not fixed."""
        key = id(plan), n
        found = self._kept.get(key)
        if found is not None and found.plan is plan:
            self._kept.move_to_end(key)
            return found
        if ArrowFiller is None or not all(_is_fixed(parse_dtype(c.dtype)) for c in plan.columns):
            return None
        found = _Template(plan, n)
        stale = self._kept.pop(key, None)
        self._kept[key] = found
        self._bytes += len(found.filler.stream) - (len(stale.filler.stream) if stale else 0)
        while self._bytes > KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= len(self._kept.popitem(last=False)[1].filler.stream)
        return found


def _is_fixed(dtype: DType) -> bool:
    """Scalars but strings and bytes, and fixed lists of them but bools, whose bits run on from list to list."""
    if dtype.is_list:
        return bool(dtype.width and dtype.item != "bool")
    return bool(dtype.width)


_templates = _Templates()
