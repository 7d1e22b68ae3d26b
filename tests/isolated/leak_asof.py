"""Point-in-time joins of a few rows: keys, labels and values of every kind; and what is refused on the way."""

import numpy as np
import pyarrow as pa

from fastserve._native.asof import LabelTimes, Part, Rows
from fastserve._native.asof_keys import KeyTable, text_hashes
from fastserve._native.asof_sweep import Sweep
from fastserve._native.gather import Places, RowOrder, Source
from tests.isolated.meter import run

NATIVES = ("asof", "asof_keys", "asof_sweep", "gather")
WORDS = pa.array(["a", "bb", None, "a"], pa.large_string())
NUMBERS, FAR = pa.array([1, None, 3, 1]), pa.array([1, 2**60, None, 1])
STAMPS, CODES = np.arange(4), np.array([0, 1, 0, -1], np.int32)
MANY, MANY_TIMES = np.zeros(60, np.int32), np.arange(60)[::-1].copy()
FLAGS = pa.array([1, None, 3], pa.int8())
PLACES = np.array([0, -1, 2, 1])
COLUMNS = [
    (pa.array([1.5, None, 2.5]), 8, "values"),
    (pa.array([True, None, False]), 0, "values"),
    (pa.array([[1, 2], [3, 4], None], pa.list_(pa.int32(), 2)), 4, "fixed"),
    (pa.array(["a", "bbb", None]), 1, "lists"),
]


def keys(i: int) -> None:
    for text, array in ((True, WORDS), (False, NUMBERS), (False, FAR)):
        table = KeyTable(text)
        table.add(array)
        table.find(array)
    text_hashes(WORDS)
    if i % 8 == 0:
        refused(lambda: table.add(NUMBERS), ValueError)
        refused(lambda: table.find(WORDS), TypeError)
        refused(lambda: KeyTable(False).find(NUMBERS), ValueError)
        refused(lambda: text_hashes(NUMBERS), TypeError)


def joins(i: int) -> None:
    for codes, times in ((CODES, STAMPS), (MANY, MANY_TIMES)):
        labels = LabelTimes(codes, 2, times, ttl_us=10, known=i % 2 == 0)
        out = np.empty(len(times), np.int64)
        parts, rows = labels.parts(2), Rows(labels)
        rows.fill(CODES, STAMPS, STAMPS, 0)
        for part in parts:
            part.sort()
            part.begin(np.zeros((len(times), 3), np.uint64))
            part.scan(rows)
            part.winners(out)
    if i % 8 == 0:
        refused(lambda: rows.fill(CODES, STAMPS[1:], STAMPS, 0), ValueError)
        refused(lambda: Part(labels, 0, 0, 9), IndexError)
        refused(lambda: LabelTimes(CODES, 2, MANY_TIMES), ValueError)


def sweeps(i: int) -> None:
    bests, out, late = np.zeros((4, 3), np.uint64), np.empty(4, np.int64), STAMPS[::-1].copy()
    first, last = (Sweep(CODES, 2, late, *ends, known=i % 2 == 0) for ends in ((0, 2), (2,)))
    for sweep, rows in ((first, slice(0, 2)), (last, slice(2, 4))):
        sweep.rows(CODES[rows], STAMPS[rows], STAMPS[rows], 0)
        sweep.finish()
    last.inherit([first])
    last.winners(out, ttl_us=3)
    last.hand_over(bests)
    if i % 8 == 0:
        refused(lambda: first.inherit([last]), ValueError)
        refused(lambda: first.rows(CODES, STAMPS[1:], STAMPS, 0), ValueError)
        refused(lambda: first.winners(out[1:]), ValueError)
        refused(lambda: first.hand_over(bests[1:]), ValueError)
        refused(lambda: Sweep(CODES, 2, STAMPS, 2, 2), ValueError)


def values(i: int) -> None:
    array, width, kind = COLUMNS[i % 4]
    source, places = Source([array], width, kind, 2 if kind == "fixed" else 1), Places(PLACES, (3,))
    bits, out = np.empty(1, np.uint8), np.empty(64, np.uint8)
    source.present(places, bits)
    places.found(bits)
    if kind == "lists":
        ends = np.empty(5, np.int32)
        source.ends(places, ends)
        source.items(places, ends, out)
        refused(lambda: source.items(places, np.arange(5, dtype=np.int32), out), ValueError)
    else:
        source.values(places, out)
    order, narrow = RowOrder(places), Source([FLAGS], 1, "values")
    order.pick(narrow, out)
    order.values(1, out, 1, 4, bits.repeat(3))
    refused(lambda: order.pick(source, out[:1]), ValueError)
    refused(lambda: Places(PLACES + 1, (3,)), IndexError)


def refused(call, error: type[Exception]) -> None:
    try:
        call()
    except error:
        return
    raise SystemExit("nothing was raised")


def once(i: int) -> None:
    keys(i)
    joins(i)
    sweeps(i)
    values(i)


if __name__ == "__main__":
    run(once)
