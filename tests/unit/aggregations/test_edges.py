"""What builders and folders do at the edges: rows that are not there, clocks that differ, arguments that do not fit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fastserve.codec.layout import Layout
from fastserve.codec.status import NOT_FOUND, NULL_VALUE, PRESENT, UNAVAILABLE
from fastserve.errors import CodecError, InvalidDataError
from fastserve.types import Int64
from tests.unit.aggregations.programs import Asked, layout_of, program_of

PROGRAM = program_of(["int64"], [Asked("events", 0, 20, 10), Asked("sum", 0, 20, 10)])
LAYOUT = layout_of(PROGRAM)
KEYS = [b"7:a", b"7:b", b"7:c"]


def build(twin: Any, events: list[tuple[int, int, Any]], end: int = 100, **more: Any) -> Any:
    out = twin.ReadBatch(more.pop("keys", KEYS))
    codes, times, values = zip(*events, strict=True) if events else ((), (), ())
    column = pa.array(values, more.pop("kind", pa.int64()))
    twin.TileBuilder(PROGRAM, 3).build_into(
        out, np.array(codes, np.int64), np.array(times, np.int64), [column], end_us=end, created_us=9, **more
    )
    return out


def fold(twin: Any, batch: Any, now: int, start: int = 0, stop: int = 3) -> Any:
    out = twin.ReadBatch([b"7:other", *KEYS[start:stop]])
    twin.Folder(PROGRAM, LAYOUT).fold_into(batch, start, stop, out, 1, now_us=now)
    return out


def decode(twin: Any, out: Any, now: int) -> Any:
    decoder = twin.RowDecoder({3: LAYOUT}, LAYOUT.names, {})
    return decoder.decode_batch(out, 1, len(out), now_us=now, ttl_us=None)


def values(decoded: Any) -> list[list[Any]]:
    return [column.to_pylist() for column in decoded.columns]


def test_a_row_without_tiles_is_not_no_row(twin: SimpleNamespace) -> None:
    batch = build(twin, [(0, 50, 4), (1, 95, 5)])
    assert batch.rows()[2] is None
    decoded = decode(twin, fold(twin, batch, 100), 100)
    assert values(decoded) == [[0, 1, None], [None, 5, None]]
    assert decoded.row_status.tolist() == [PRESENT, PRESENT, NOT_FOUND]
    assert decoded.statuses.tolist() == [[PRESENT, PRESENT, NOT_FOUND], [NULL_VALUE, PRESENT, NOT_FOUND]]
    assert decoded.event_ts.tolist() == [50, 95, 0]


def test_a_row_that_nobody_knows_stays_so(twin: SimpleNamespace) -> None:
    batch = twin.ReadBatch(KEYS[:2])
    out = twin.ReadBatch([b"7:other", *KEYS[:2]])
    twin.Folder(PROGRAM, LAYOUT).fold_into(batch, 0, 2, out, 1, now_us=5)
    assert decode(twin, out, 5).row_status.tolist() == [UNAVAILABLE] * 2


def test_times_of_fetching_go_along(twin: SimpleNamespace) -> None:
    batch = twin.ReadBatch(KEYS)
    batch.fill(build(twin, [(0, 95, 4), (2, 95, 4)]).rows(), 77)
    out = fold(twin, batch, 100, 1, 3)
    assert out.fetched_us() == [0, 77, 77]
    assert out.missing == 1
    assert [row is None for row in out.rows()] == [True, True, False]


def test_a_reader_whose_clock_is_behind_counts_all_the_same(twin: SimpleNamespace) -> None:
    """As of the newest event; and its time is no later than the reader's now, or the row would be from the future."""
    decoded = decode(twin, fold(twin, build(twin, [(0, 80, 1), (0, 95, 4)]), 60), 60)
    assert values(decoded)[0][0] == 2 and decoded.event_ts[0] == 60


def test_values_decay(twin: SimpleNamespace) -> None:
    """At 120 the window begins at 100, where 101 is in and 100 is not."""
    batch = build(twin, [(0, 91, 1), (0, 100, 2), (0, 101, 4)], end=110)
    found = {
        now: values(decode(twin, fold(twin, batch, now), now))[1][0] for now in (110, 119, 120, 129, 130)
    }
    assert found == {110: 7, 119: 7, 120: 4, 129: 4, 130: None}


def test_events_after_the_end_are_not_in_the_row(twin: SimpleNamespace) -> None:
    assert build(twin, [(0, 90, 1), (0, 101, 5)]).rows() == build(twin, [(0, 90, 1)]).rows()


def test_what_no_window_needs_is_dropped(twin: SimpleNamespace) -> None:
    """A window as of the newest event or later; so the row is of the events alone."""
    base = build(twin, [(0, 70, 1), (0, 79, 1), (0, 90, 1)])
    assert base.rows() == build(twin, [(0, 79, 1), (0, 90, 1)]).rows() == build(twin, [], base=base).rows()
    later = build(twin, [(0, 101, 8)], end=110, base=base)
    assert later.rows() == build(twin, [(0, 90, 1), (0, 101, 8)], end=110).rows()


@pytest.mark.parametrize(
    ("events", "more", "message"),
    [
        ([(3, 1, 1)], {}, "a code is not one of the 3 keys'"),
        ([(-1, 1, 1)], {}, "a code is not one of the 3 keys'"),
        ([(0, 2**61 + 1, 1)], {}, "an event is more than 2^61 us from 1970"),
        ([(0, 1, 1)], {"end": -(2**61) - 1}, "is more than 2^61 us from 1970"),
        ([(0, 1, 1.5)], {"kind": pa.float64()}, "the column is double, the field is int64"),
    ],
)
def test_arguments_that_do_not_fit(
    twin: SimpleNamespace, events: list[Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidDataError, match=message.replace("^", r"\^")):
        build(twin, events, **more)


def test_columns_codes_and_base_are_counted(twin: SimpleNamespace) -> None:
    builder, out, one = twin.TileBuilder(PROGRAM, 3), twin.ReadBatch(KEYS), np.zeros(1, np.int64)
    for codes, times, columns in (
        (one, one, []),
        (one, np.zeros(2, np.int64), [pa.array([1])]),
        (one.astype(np.int32), one, [pa.array([1])]),
        (one, one, [pa.array([1, 2])]),
    ):
        with pytest.raises(InvalidDataError):
            builder.build_into(out, codes, times, columns, end_us=5, created_us=0)
    with pytest.raises(InvalidDataError, match="the base has other keys"):
        build(twin, [], base=build(twin, [], keys=KEYS[:2]))
    with pytest.raises(InvalidDataError, match="the base has other keys"):
        build(twin, [], base=build(twin, [], keys=[b"7:a", b"7:b", b"7:d"]))


def test_a_layout_of_other_fields_is_refused(twin: SimpleNamespace) -> None:
    with pytest.raises(CodecError, match="its fields are not the program's outputs"):
        twin.Folder(PROGRAM, Layout(3, ("f0",), (Int64,)))


def test_rows_of_another_layout_or_key_are_errors(twin: SimpleNamespace) -> None:
    rows = build(twin, [(0, 90, 1)]).rows()
    folder = twin.Folder(PROGRAM, layout_of(PROGRAM, 4))
    batch = twin.ReadBatch(KEYS)
    batch.fill(rows, 0)
    with pytest.raises(CodecError, match="the layout is unknown"):
        folder.fold_into(batch, 0, 3, twin.ReadBatch(KEYS), 0, now_us=5)
    moved = twin.ReadBatch([b"7:z"])
    moved.fill(rows[:1], 0)
    with pytest.raises(CodecError, match="the checksum is wrong"):
        twin.Folder(PROGRAM, LAYOUT).fold_into(moved, 0, 1, twin.ReadBatch([b"7:z"]), 0, now_us=5)
    with pytest.raises(CodecError, match="the checksum is wrong"):
        build(twin, [], keys=[b"7:z"], base=moved)
