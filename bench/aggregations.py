"""Windows: events into tile rows beside numpy's `ufunc.at`, and tile rows into values; one core, in one process.

spend   count, sum, mean and max over 5m, 1h and 24h, of a million cards
numpy   a cell for each card and tile of the same hops: add.at for count and sum, maximum.at. It makes no bytes of
        them, looks into no row that is there, and its sums depend on the order of the events
onto    the same of a stream's batch: few events, each of a card that has a row, which is read, checked and built upon
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bench.measure import Figure, alternate, ns_per_call, quiet
from bench.record import Table, Target, save
from bench.scale import scaled
from fastserve.aggregations.build import TileBuilder
from fastserve.aggregations.compile import compile_program
from fastserve.aggregations.fold import Folder
from fastserve.aggregations.program import Program
from fastserve.batch import ReadBatch
from fastserve.codec.keys import KeyEncoder
from fastserve.codec.layout import Layout
from fastserve.codec.rows import RowDecoder
from fastserve.definitions import AggregatedFeatureView, Aggregation, Entity, EventSource, Field
from fastserve.timeutil import MICROS
from fastserve.types import parse_dtype

CARDS: Final = scaled(1_000_000, 2_000)
EVENTS: Final = 4 * CARDS
ONTO: Final = scaled(20_000, 500)
ASKED: Final = 100
NOW: Final = 1_700_000_000 * MICROS
SPAN: Final = 300 * MICROS
SPEND: Final = ("5m", "1h", "24h")
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def main() -> int:
    """Measure and write bench/results/aggregations.json."""
    kernel, ratios = kernels()
    reads, longer = folds()
    sizes, busy = bytes_of_rows()
    targets = [
        Target("tiles: events a second over numpy's ufunc.at, uniform", ratios["uniform"].median, at_least=2, reach=3),
        Target("windows: a read of 30 days over one of 1 hour", longer.median, at_most=1.5, reach=1.2),
        Target("tiles: bytes of a card with an event a minute", busy, at_most=2_048),
    ]  # fmt: skip
    notes = [
        f"{EVENTS:,} events of {CARDS:,} cards within the last 5 minutes, so that each goes into all three windows.",
        "numpy's cells are there before, and so are our batch of keys and the memory that a builder keeps of its last"
        " events; rows begin with nothing and end as bytes that a store takes.",
        "Onto rows that are there: most of the time goes into reading what they hold, all of which is checked; numpy's"
        " cells are neither read from bytes nor made bytes again. A kernel that only updated states in memory is not"
        " measured: nothing here keeps states but as rows.",
    ]
    save("aggregations", "Windows", [kernel, reads, sizes], targets=targets, notes=notes)
    return 0


def program_of(*windows: str) -> Program:
    """Count, sum, mean and max over these."""
    events = EventSource("payments", schema=[Field("amount", "float64")])
    functions = [("*", "count"), ("amount", "sum"), ("amount", "mean"), ("amount", "max")]
    view = AggregatedFeatureView(
        "spend",
        entities=[Entity("card", dtype="int64")],
        source=events,
        aggregations=[Aggregation(column, function, windows=list(windows)) for column, function in functions],
    )
    return compile_program(view)


def layout_of(program: Program) -> Layout:
    """Of the view's rows."""
    outputs = program.outputs
    return Layout(1, tuple(o.name for o in outputs), tuple(parse_dtype(o.dtype) for o in outputs))


def keys_of(n: int) -> list[bytes]:
    """Of so many cards."""
    return KeyEncoder(7, ["int64"]).encode([list(range(n))], n)


# ---- events into tiles ----


class Events:
    """Of cards drawn alike, or by Zipf's law."""

    def __init__(self, kind: str, n: int = EVENTS, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        if kind == "uniform":
            self.codes = rng.integers(0, CARDS, n)
        else:
            self.codes = (CARDS ** rng.random(n)).astype(np.int64) - 1
        self.times: Ints = NOW - rng.integers(0, SPAN, n)
        self.amounts: Floats = np.round(rng.lognormal(3, 1, n), 2)


class Cells:
    """What ufunc.at works on: for each level count, sum and maximum of each card and tile."""

    def __init__(self, program: Program) -> None:
        self.hops = [level.hop_us for level in program.levels]
        self.firsts = [(NOW - SPAN) // hop for hop in self.hops]
        self.tiles = [NOW // hop - first + 1 for hop, first in zip(self.hops, self.firsts, strict=True)]
        self.counts = [np.zeros(CARDS * tiles, np.int64) for tiles in self.tiles]
        self.sums = [np.zeros(CARDS * tiles) for tiles in self.tiles]
        self.largest = [np.full(CARDS * tiles, -np.inf) for tiles in self.tiles]

    def clear(self) -> None:
        for level in range(len(self.hops)):
            self.counts[level][:] = 0
            self.sums[level][:] = 0
            self.largest[level][:] = -np.inf

    def update(self, events: Events) -> None:
        for level, hop in enumerate(self.hops):
            at = events.codes * self.tiles[level] + ((events.times - 1) // hop - self.firsts[level])
            np.add.at(self.counts[level], at, 1)
            np.add.at(self.sums[level], at, events.amounts)
            np.maximum.at(self.largest[level], at, events.amounts)

    def values(self, level: int) -> tuple[Ints, Floats, Floats]:
        """Count, sum and maximum of each card over all its tiles."""
        shape = CARDS, self.tiles[level]
        counts, sums = self.counts[level].reshape(shape).sum(1), self.sums[level].reshape(shape).sum(1)
        return counts, sums, self.largest[level].reshape(shape).max(1)


def kernels() -> tuple[Table, dict[str, Figure]]:
    """Events a second, ours and numpy's."""
    program, keys = program_of(*SPEND), keys_of(CARDS)
    builder, cells = TileBuilder(program, 1), Cells(program)
    table = Table("events into tiles, M/s", {"fastserve": "M/s", "numpy": "M/s", "ratio": "x"})
    ratios = {}
    for kind in ("uniform", "zipf"):
        events = Events(kind)
        column = pa.array(events.amounts)

        batches = [ReadBatch(keys)]

        def build(
            events: Events = events, column: pa.Array = column, batches: list[ReadBatch] = batches
        ) -> ReadBatch:
            out = batches.pop()
            builder.build_into(out, events.codes, events.times, [column], end_us=NOW, created_us=0)
            return out

        def before(batches: list[ReadBatch] = batches) -> None:
            batches[:] = [ReadBatch(keys)]

        built = build()
        check(program, built, cells, events)
        runs = {
            "fastserve": partial(rate, build, before=before),
            "numpy": partial(rate, partial(cells.update, events), before=cells.clear),
        }
        if kind == "uniform":
            onto = Onto(program, keys, events, built)
        del built
        found = {name: Figure(tuple(v["M/s"]), False) for name, v in alternate(runs).items()}
        ratios[kind] = found["fastserve"].over(found["numpy"])
        table.add(f"{kind} cards", ratio=ratios[kind], **found)
    runs = {
        "fastserve": partial(fast, onto.build),
        "numpy": partial(fast, partial(cells.update, onto.events)),
    }
    found = {name: Figure(tuple(v["M/s"]), False) for name, v in alternate(runs).items()}
    table.add("onto rows that are there", ratio=found["fastserve"].over(found["numpy"]), **found)
    return table, ratios


class Onto:
    """Events of some cards that have rows of others."""

    def __init__(self, program: Program, keys: list[bytes], earlier: Events, rows: ReadBatch) -> None:
        self.events = Events("uniform", ONTO, seed=5)
        cards, self.codes = np.unique(self.events.codes, return_inverse=True)
        self.keys = [keys[card] for card in cards]
        self.base = ReadBatch(self.keys)
        held = rows.rows()
        self.base.fill([held[card] for card in cards], 0)
        self.builder, self.column = TileBuilder(program, 1), pa.array(self.events.amounts)
        self.check(cards, earlier)

    def build(self) -> ReadBatch:
        out = ReadBatch(self.keys)
        self.builder.build_into(
            out, self.codes, self.events.times, [self.column], end_us=NOW, created_us=0, base=self.base
        )
        return out

    def check(self, cards: Ints, earlier: Events) -> None:
        """The rows are those of all events at once."""
        of = np.full(CARDS, -1)
        of[cards] = np.arange(len(cards))
        kept = of[earlier.codes] >= 0
        codes = np.concatenate([of[earlier.codes[kept]], self.codes])
        times = np.concatenate([earlier.times[kept], self.events.times])
        amounts = pa.array(np.concatenate([earlier.amounts[kept], self.events.amounts]))
        out = ReadBatch(self.keys)
        self.builder.build_into(out, codes, times, [amounts], end_us=NOW, created_us=0)
        assert out.rows() == self.build().rows()


def fast(run: Callable[[], object]) -> dict[str, float]:
    """Millions of events a second, of many calls."""
    return {"M/s": ONTO / ns_per_call(run) * 1e3}


def rate(run: Callable[[], object], before: Callable[[], object] = int) -> dict[str, float]:
    """Millions of events a second, once."""
    before()
    with quiet():
        begun = time.perf_counter()
        kept = run()
        took = time.perf_counter() - begun
    del kept
    return {"M/s": EVENTS / took / 1e6}


def check(program: Program, built: ReadBatch, cells: Cells, events: Events) -> None:
    """Both know the same: counts and maxima equal, sums but for numpy's rounding."""
    layout = layout_of(program)
    out = ReadBatch(keys_of(CARDS))
    Folder(program, layout).fold_into(built, 0, CARDS, out, 0, now_us=NOW)
    decoder = RowDecoder({1: layout}, layout.names, {})
    decoded = decoder.decode_batch(out, 0, CARDS, now_us=NOW, ttl_us=None)
    got = {name: np.asarray(c.values) for name, c in zip(layout.names, decoded.columns, strict=True)}
    cells.clear()
    cells.update(events)
    for level, window in enumerate(SPEND):
        seen = cells.values(level)[0] > 0
        counts, sums, largest = (values[seen] for values in cells.values(level))
        assert np.array_equal(got[f"count_{window}"][seen], counts), window
        assert np.array_equal(got[f"amount_max_{window}"][seen], largest), window
        assert np.allclose(got[f"amount_sum_{window}"][seen], sums, rtol=1e-12, atol=0), window


# ---- tiles into values ----


def rows_of(program: Program, n: int, every_us: int, span_us: int) -> ReadBatch:
    """Rows of n cards with an event every so often."""
    times = NOW - np.arange(0, span_us, every_us)
    codes = np.repeat(np.arange(n), len(times))
    amounts = np.round(np.random.default_rng(2).lognormal(3, 1, len(codes)), 2)
    out = ReadBatch(keys_of(n))
    TileBuilder(program, 1).build_into(
        out, codes, np.tile(times, n), [pa.array(amounts)], end_us=NOW, created_us=0
    )
    return out


def folds() -> tuple[Table, Figure]:
    """Microseconds a card, and how much a long window costs over a short one."""
    table = Table(f"values of {ASKED} cards at a moment", {"a card": "us"})
    keys, runs = keys_of(ASKED), {}
    for windows in (("1h",), ("30d",), SPEND):
        program = program_of(*windows)
        batch = rows_of(program, ASKED, 60 * MICROS, 30 * 86_400 * MICROS)
        folder = Folder(program, layout_of(program))

        def fold(batch: ReadBatch = batch, folder: Folder = folder) -> None:
            folder.fold_into(batch, 0, ASKED, ReadBatch(keys), 0, now_us=NOW)

        runs[", ".join(windows)] = partial(microseconds, fold)
    found = {name: Figure(tuple(values["us"])) for name, values in alternate(runs).items()}
    for name, figure in found.items():
        table.add(f"count, sum, mean, max over {name}", **{"a card": figure})
    return table, found["30d"].over(found["1h"])


def microseconds(run: Callable[[], object]) -> dict[str, float]:
    """A card."""
    return {"us": ns_per_call(run) / 1e3 / ASKED}


def bytes_of_rows() -> tuple[Table, float]:
    """Bytes of a row of spend, by how often a card is used, and those of an event a minute."""
    table = Table("bytes of a row of spend", {"bytes": ""})
    program, largest = program_of(*SPEND), {}
    for label, every in (("an event an hour", 3_600), ("an event a minute", 60), ("an event every 5 s", 5)):
        rows = rows_of(program, 10, every * MICROS, 86_400 * MICROS).rows()
        largest[label] = float(max(len(row) for row in rows if row is not None))
        table.add(label, bytes=largest[label])
    return table, largest["an event a minute"]


if __name__ == "__main__":
    sys.exit(main())
