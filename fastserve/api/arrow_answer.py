"""Answers as an Arrow IPC stream of one record batch. Pure functions.

    stream    schema message | record batch message | body: buffers, each at a multiple of 64 | end of stream

Where every column has a fixed width, only the body and the columns' null counts differ between two answers to a plan
for as many entities. So the first one is written by pyarrow and kept; later ones are copies of it, with buffers and
counts overwritten. Where the buffers lie is found in the message itself, by pyarrow's own reading of it.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.api.json_answer import STATUS_NAMES, all_present, known_rows
from fastserve.codec.decoded import DecodedRows
from fastserve.serving.plan import ReadPlan
from fastserve.serving.read_path import FeatureBatch
from fastserve.types import DType, arrow_type, parse_dtype

KEPT_BYTES: Final = 32 << 20


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


def render_arrow(batch: FeatureBatch) -> pa.Buffer | bytearray:
    """An Arrow IPC stream of one record batch with `arrow_schema`."""
    if batch.unavailable or batch.stale or not batch.n:
        return _written(batch)
    template = _templates.of(batch)
    return _written(batch) if template is None else template.filled(batch)


def _written(batch: FeatureBatch) -> pa.Buffer:
    """By pyarrow."""
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


class _Places:
    """Where some parts of a stream of the same size lie, and how to overwrite them all.

    Args:
        at: their offsets, in the order of the rows that `put` gets.
        size: bytes of each.
    """

    __slots__ = ("_at", "_size", "_stride")

    def __init__(self, at: Sequence[int], size: int) -> None:
        steps = set(np.diff(at).tolist())
        self._at = list(at)
        self._size = size
        self._stride = steps.pop() if len(steps) == 1 else 0  # even: columns alike lie evenly

    def put(self, stream: npt.NDArray[np.uint8], parts: npt.NDArray[Any]) -> None:
        """Write parts[k], of `size` bytes, to the k-th place."""
        raw = np.ascontiguousarray(parts).view(np.uint8).reshape(len(self._at), self._size)
        if len(self._at) == 1:
            stream[self._at[0] : self._at[0] + self._size] = raw[0]
            return
        if self._stride > 0:
            shape, strides = (len(self._at), self._size), (self._stride, 1)
            np.lib.stride_tricks.as_strided(stream[self._at[0] :], shape, strides)[:] = raw
            return
        for at, part in zip(self._at, raw, strict=True):
            stream[at : at + self._size] = part


class _Template:
    """The stream of a batch of n entities, all of it PRESENT and every value 0, and where its parts are.

    Args:
        batch: any one of the plan with as many entities; its columns have fixed widths.
    """

    def __init__(self, batch: FeatureBatch) -> None:
        self.plan, n = batch.plan, batch.n
        width = len(self.plan.columns)
        empty = _empty(batch)
        stream = _stream(empty).to_pybytes()
        base = pa.py_buffer(stream)
        read = pa.ipc.open_stream(base).read_next_batch()
        offsets = [[b and b.address - base.address for b in column.buffers()] for column in read.columns]
        features, statuses, times = offsets[:width], offsets[width : 2 * width], offsets[2 * width :]
        nulls, mask_bytes = _null_counts(stream, empty), (n + 7) // 8
        self._nulls = _Places(nulls[:width], 8)
        self._valid = _Places([at[0] for at in features], mask_bytes)
        self._nulls_of_times = _Places(nulls[width:], 8)
        self._valid_times = _Places([at[0] for at in times], mask_bytes)
        self._statuses = _Places([at[1] for at in statuses], n)
        self._times = [_Places([at[1]], 8 * n) for at in times]
        self._blocks = list(self._find_blocks(batch, [at[-1] for at in features]))
        self.stream = self._all_present(stream, n)

    def _all_present(self, stream: bytes, n: int) -> bytes:
        out = np.frombuffer(stream, np.uint8).copy()
        every = np.ones((len(self.plan.columns), n), np.bool_)
        self._put_valid(out, every)
        self._put_known(out, every[:1].repeat(len(self.plan.reads), axis=0))
        self._statuses.put(out, every.astype(np.uint8))
        return out.tobytes()

    def _put_valid(self, out: npt.NDArray[np.uint8], valid: npt.NDArray[np.bool_]) -> None:
        self._valid.put(out, np.packbits(valid, axis=1, bitorder="little"))
        self._nulls.put(out, valid.shape[1] - valid.sum(axis=1, dtype=np.int64))

    def _put_known(self, out: npt.NDArray[np.uint8], known: npt.NDArray[np.bool_]) -> None:
        """Of the timestamps."""
        self._valid_times.put(out, np.packbits(known, axis=1, bitorder="little"))
        self._nulls_of_times.put(out, known.shape[1] - known.sum(axis=1, dtype=np.int64))

    def _find_blocks(self, batch: FeatureBatch, at: Sequence[int]) -> Iterator[_Block]:
        """Where each block's rows go, and each fixed list's."""
        by_block: dict[tuple[int, str], list[tuple[int, int]]] = {}
        for output, place in zip(self.plan.columns, at, strict=True):
            field = batch.reads[output.read].fields[output.column]
            if field.slot >= 0:
                by_block.setdefault((output.read, field.dtype.item), []).append((field.slot, place))
            else:
                values = batch.reads[output.read].columns[output.column].values
                assert values is not None
                yield _Block(output.read, "", [output.column], _Places([place], values.nbytes))
        for (read, item), slots in by_block.items():
            block = batch.reads[read].blocks[item]
            size = (batch.n + 7) // 8 if item == "bool" else batch.n * block.itemsize
            yield _Block(
                read, item, [slot for slot, _ in slots], _Places([place for _, place in slots], size)
            )

    def filled(self, batch: FeatureBatch) -> bytearray:
        """The stream of a batch of as many entities."""
        out = bytearray(self.stream)
        stream = np.frombuffer(out, np.uint8)
        for block in self._blocks:
            block.places.put(stream, block.of(batch.reads[block.read]))
        for rows, place in zip(batch.reads, self._times, strict=True):
            place.put(stream, rows.event_ts)
        if not all_present(batch):
            self._put_valid(stream, _gathered(batch, "valid"))
            self._put_known(stream, np.stack([known_rows(rows) for rows in batch.reads]))
            self._statuses.put(stream, _gathered(batch, "statuses"))
        return out


@dataclass(frozen=True, slots=True)
class _Block:
    """Values that are overwritten together: rows of one block, or one fixed list (no item)."""

    read: int
    item: str
    picks: list[int]
    places: _Places

    def of(self, rows: DecodedRows) -> npt.NDArray[Any]:
        """The values, one row a place."""
        if not self.item:
            values = rows.columns[self.picks[0]].values
            assert values is not None
            return values.reshape(1, -1)
        block = rows.blocks[self.item]
        if self.picks != list(range(len(block))):
            block = block[self.picks]
        return np.packbits(block, axis=1, bitorder="little") if self.item == "bool" else block


def _gathered(batch: FeatureBatch, name: str) -> npt.NDArray[Any]:
    """`valid` or `statuses` of the answered columns, in their order: [columns, n]."""
    columns = batch.plan.columns
    arrays = [getattr(rows, name) for rows in batch.reads]
    if len(arrays) == 1 and [c.column for c in columns] == list(range(len(arrays[0]))):
        return arrays[0]  # type: ignore[no-any-return]
    return np.stack([arrays[c.read][c.column] for c in columns])


def _empty(batch: FeatureBatch) -> pa.RecordBatch:
    """A batch as long in which everything that can be null is: so that all buffers are there."""
    n = batch.n
    schema = arrow_schema(batch.plan)
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

    def of(self, batch: FeatureBatch) -> _Template | None:
        """The template for a plan and a number of entities; None where a column's width is not fixed."""
        key = id(batch.plan), batch.n
        found = self._kept.get(key)
        if found is not None and found.plan is batch.plan:
            self._kept.move_to_end(key)
            return found
        if not all(_is_fixed(parse_dtype(c.dtype)) for c in batch.plan.columns):
            return None
        found = _Template(batch)
        stale = self._kept.pop(key, None)
        self._kept[key] = found
        self._bytes += len(found.stream) - (len(stale.stream) if stale else 0)
        while self._bytes > KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= len(self._kept.popitem(last=False)[1].stream)
        return found


def _is_fixed(dtype: DType) -> bool:
    """Scalars but strings and bytes, and fixed lists of them but bools, whose bits run on from list to list."""
    if dtype.is_list:
        return bool(dtype.width and dtype.item != "bool")
    return bool(dtype.width)


_templates = _Templates()
