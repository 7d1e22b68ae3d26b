"""What the native modules refuse: nothing that Python hands them makes them read or write where they should not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

asof = pytest.importorskip("fastserve._native.asof")
keys = pytest.importorskip("fastserve._native.asof_keys")
asof_sweep = pytest.importorskip("fastserve._native.asof_sweep")
gather = pytest.importorskip("fastserve._native.gather")

SHORT_AND_LONG = [(pa.int16(), 2), (pa.decimal128(30), 16)]
CODES, STAMPS = np.array([0, 1, 0], np.int32), np.arange(3)


def one_part(labels):
    (made,) = labels.parts(1)
    made.sort()
    return made


def test_a_table_is_filled_once_and_before_it_is_asked():
    table = keys.KeyTable(False)
    with pytest.raises(ValueError, match="first"):
        table.find(pa.array([1]))
    table.add(pa.array([1]))
    with pytest.raises(ValueError, match="once"):
        table.add(pa.array([1]))


def test_codes_go_where_there_is_room_for_them():
    table, words = keys.KeyTable(False), keys.KeyTable(True)
    table.add(pa.array([5, 6]))
    words.add(pa.array(["a", "b"], pa.large_string()))
    for of, asked in (
        (table, pa.array([6, 9, None])),
        (words, pa.array(["b", "c", None], pa.large_string())),
    ):
        for size in (0, 2, 3, 4):
            out = np.full(size, 7, np.int32)
            found = of.find(asked, out)
            assert found.tolist() == [1, -1, -1]
            assert np.shares_memory(found, out) == (size >= 3) and (out[3:] == 7).all()
        with pytest.raises(ValueError):
            of.find(asked, np.zeros(3, np.int64))


@pytest.mark.parametrize(
    "wrong", [pa.array(["a"]), pa.array([1], pa.int32()), pa.array([1.0]), pa.array([b"a"])]
)
def test_keys_of_another_layout_are_refused(wrong):
    for text in (False, True):
        with pytest.raises(TypeError, match="keys are"):
            keys.KeyTable(text).add(wrong)


def test_labels_are_as_many_codes_as_times():
    with pytest.raises(ValueError, match="3 codes"):
        asof.LabelTimes(CODES, 2, STAMPS[1:])
    with pytest.raises(ValueError, match="codes below"):
        asof.LabelTimes(CODES, -1, STAMPS)


def test_codes_beyond_the_last_are_codes_of_none():
    wild = np.array([-(2**31), 5, 2**31 - 1], np.int32)
    out = np.full(3, 9)
    assert asof.LabelTimes(wild, 2, STAMPS).parts(4) == []
    labels = asof.LabelTimes(CODES, 2, STAMPS)
    part, rows = one_part(labels), asof.Rows(labels)
    rows.fill(wild, STAMPS, STAMPS, 0)
    part.scan(rows)
    part.winners(out)
    assert out.tolist() == [-1, -1, -1]


def test_rows_are_held_until_others_are():
    labels = asof.LabelTimes(CODES, 2, STAMPS)
    part, rows, out = one_part(labels), asof.Rows(labels), np.empty(3, np.int64)
    for place, stamps in ((40, STAMPS[:2]), (70, STAMPS[:1])):
        rows.fill(CODES[: len(stamps)], stamps, stamps, place)
        part.scan(rows)
    part.winners(out)
    assert out.tolist() == [70, 41, 70]


def test_a_part_is_sorted_before_all_else_and_once():
    labels = asof.LabelTimes(CODES, 2, STAMPS)
    with pytest.raises(ValueError, match="labels in parts"):
        asof.Rows(labels)
    (made,) = labels.parts(1)
    rows = asof.Rows(labels)
    assert len(made) == 3
    for call in (lambda: made.scan(rows), lambda: made.winners(STAMPS.copy())):
        with pytest.raises(ValueError, match="not sorted"):
            call()
    made.sort()
    with pytest.raises(ValueError, match="once"):
        made.sort()
    with pytest.raises(ValueError, match="some already"):
        labels.parts(2)
    for count in (0, -1, 5_000):
        with pytest.raises(ValueError, match="parts"):
            asof.LabelTimes(CODES, 2, STAMPS).parts(count)
    with pytest.raises(IndexError):
        asof.Part(labels, 0, 1, 3)


def test_parts_and_rows_of_other_labels_are_refused():
    labels, others = (asof.LabelTimes(CODES, 2, STAMPS) for _ in range(2))
    part, _ = one_part(labels), others.parts(1)
    for rows in (asof.Rows(others),):
        with pytest.raises(ValueError, match="other labels"):
            part.scan(rows)
    with pytest.raises(ValueError, match="labels in parts"):
        asof.Part(asof.LabelTimes(CODES, 2, STAMPS), 0, 0, 2).sort()
    stray = asof.Part(labels, 7, 0, 2)
    stray.sort()
    with pytest.raises(ValueError, match="other labels"):
        stray.scan(asof.Rows(labels))
    with pytest.raises(ValueError, match="other labels"):
        part.winners(np.empty(2, np.int64))


def test_columns_of_rows_are_of_one_length():
    labels = asof.LabelTimes(CODES, 2, STAMPS)
    labels.parts(1)
    rows = asof.Rows(labels)
    for columns in ((CODES, STAMPS[1:], STAMPS), (CODES, STAMPS, STAMPS[1:]), (CODES[1:], STAMPS, STAMPS)):
        with pytest.raises(ValueError, match="created times"):
            rows.fill(*columns, 0)
    with pytest.raises(ValueError, match="below 0"):
        rows.fill(CODES, STAMPS, STAMPS, -1)


def nothing(n):
    return np.zeros((n, 3), np.uint64)


def test_labels_of_a_sweep_are_as_many_as_codes():
    with pytest.raises(ValueError, match="2 codes"):
        asof_sweep.Sweep(CODES[1:], 2, STAMPS, 0)
    with pytest.raises(ValueError, match="codes below -1"):
        asof_sweep.Sweep(CODES, -1, STAMPS, 0)
    with pytest.raises(ValueError, match="from 3 to 3"):
        asof_sweep.Sweep(CODES, 2, STAMPS, 3, 3)
    made = asof_sweep.Sweep(CODES, 2, STAMPS, 1)
    assert (made.n_labels, made.n_placed) == (3, 2)
    with pytest.raises(TypeError, match="once"):
        made.__init__(CODES, 2, STAMPS, 1)


def test_a_sweep_inherits_from_those_of_earlier_stretches():
    first, last = asof_sweep.Sweep(CODES, 2, STAMPS, 0, 1), asof_sweep.Sweep(CODES, 2, STAMPS, 1)
    others = asof_sweep.Sweep(CODES, 3, STAMPS, 0, 1)
    for wrong in ([last], [first, last], [others], [asof_sweep.Sweep(CODES, 2, STAMPS, 0, 2)]):
        with pytest.raises(ValueError, match="a later stretch"):
            last.inherit(wrong)
    wild = np.array([5, -(2**31), 2**31 - 1, 0], np.int32)
    assert first.rows(wild, np.zeros(4, np.int64), np.zeros(4, np.int64), 7) == 4
    for sweep in (first, last):
        sweep.finish()
    last.inherit([first])
    out, bests = np.empty(3, np.int64), nothing(3)
    for sweep in (first, last):
        sweep.winners(out)
        sweep.hand_over(bests)
    assert out.tolist() == [10, -1, 10] and bests[:, 2].tolist() == [11, 0, 11]
    with pytest.raises(ValueError, match="2 places"):
        last.winners(out[1:])
    for wrong in (nothing(2), np.zeros((3, 2), np.uint64)):
        with pytest.raises(ValueError, match="bests of"):
            last.hand_over(wrong)


def test_columns_of_swept_rows_are_of_one_length():
    sweep = asof_sweep.Sweep(CODES, 2, STAMPS, 0)
    for columns in ((CODES, STAMPS[1:], STAMPS), (CODES, STAMPS, STAMPS[1:]), (CODES[1:], STAMPS, STAMPS)):
        with pytest.raises(ValueError, match="created times"):
            sweep.rows(*columns, 0)
    with pytest.raises(ValueError, match="below 0"):
        sweep.rows(CODES, STAMPS, STAMPS, -1)


def test_bests_of_other_labels_are_refused():
    part = one_part(asof.LabelTimes(CODES, 2, STAMPS))
    for bests in (nothing(2), np.zeros((3, 2), np.uint64)):
        with pytest.raises(ValueError, match="other labels"):
            part.begin(bests)
    (unsorted,) = asof.LabelTimes(CODES, 2, STAMPS).parts(1)
    with pytest.raises(ValueError, match="not sorted"):
        unsorted.begin(nothing(3))


def test_places_are_checked_and_belong_to_their_column():
    source = gather.Source([pa.array([1, 2])], 8, "values")
    with pytest.raises(IndexError, match="place 1: row 2 of chunk 0"):
        gather.Places(np.array([0, 2]), (2,))
    for lengths in ((3,), (2, 2), ()):
        with pytest.raises(ValueError, match="other lengths"):
            source.values(gather.Places(np.array([-1]), lengths), np.empty(8, np.uint8))


def test_an_order_of_rows_is_of_its_places_and_of_short_values():
    places = gather.Places(np.array([1, 0, -1, 1]), (2,))
    order = gather.RowOrder(places)
    short, long = (
        gather.Source([pa.array([7, 9]).cast(kind)], width, "values") for kind, width in SHORT_AND_LONG
    )
    other = gather.Source([pa.array([7], pa.int16())], 2, "values")
    text = gather.Source([pa.array(["a", "b"])], 1, "lists")
    dealt, out = np.empty(8, np.uint8), np.empty(8, np.uint8)
    order.pick(short, dealt)
    order.values(2, dealt, 0, 4, out)
    assert out.view(np.int16).tolist() == [9, 7, 0, 9]
    for call in (
        lambda: order.pick(long, np.empty(99, np.uint8)),
        lambda: order.pick(other, dealt),
        lambda: order.pick(text, dealt),
        lambda: order.pick(short, dealt[1:]),
        lambda: order.values(2, dealt[1:], 0, 4, out),
        lambda: order.values(2, dealt, 0, 4, out[1:]),
        lambda: order.values(2, dealt, 0, 5, np.empty(99, np.uint8)),
        lambda: order.values(2, dealt, -1, 2, out),
        lambda: order.values(2, dealt, 3, 2, out),
        lambda: order.values(16, np.empty(99, np.uint8), 0, 4, np.empty(99, np.uint8)),
        lambda: order.__init__(places),
    ):
        with pytest.raises(ValueError):
            call()


def test_memory_that_is_too_small_is_not_written():
    places = gather.Places(np.array([0, 1, 0] * 3), (2,))
    fixed = gather.Source([pa.array([1, 2])], 8, "values")
    text = gather.Source([pa.array(["a", "bc"])], 1, "lists")
    ends = np.empty(10, np.int32)
    assert text.ends(places, ends) == 12
    for call in (
        lambda: fixed.values(places, np.empty(71, np.uint8)),
        lambda: fixed.present(places, np.empty(1, np.uint8)),
        lambda: places.found(np.empty(1, np.uint8)),
        lambda: text.ends(places, np.empty(9, np.int32)),
        lambda: text.items(places, ends, np.empty(11, np.uint8)),
        lambda: text.items(places, ends[1:], np.empty(99, np.uint8)),
        lambda: text.items(places, np.arange(10, dtype=np.int32), np.empty(99, np.uint8)),
        lambda: fixed.ends(places, ends),
    ):
        with pytest.raises(ValueError):
            call()
