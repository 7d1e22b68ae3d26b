"""The whole join of one view against the rule word for word, on many small random tables, byte for byte.

FASTSERVE_FUZZ_VALUES=100000000 compares so many values with each kernel, in some minutes; by default a few.
FASTSERVE_FUZZ_SEED=… compares others.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa

from fastserve import FeatureView, Field
from fastserve.offline.schema import TIMESTAMP, canonical_schema
from fastserve.registry import RegisteredView
from fastserve.types import arrow_type, parse_dtype
from materializer.pit import join
from materializer.pit.factorize import canonical_key
from materializer.pit.join import join_view
from tests.oracles.bits import bits
from tests.oracles.naive_pit import naive_pit
from tests.unit.offline.views import registered

VALUES = int(os.environ.get("FASTSERVE_FUZZ_VALUES", "250000"))
SEED = int(os.environ.get("FASTSERVE_FUZZ_SEED", "20240101"))
FEATURES = {
    "flag": "bool", "small": "int32", "big": "int64", "half": "float32", "real": "float64", "word": "string",
    "blob": "bytes", "when": "timestamp", "many": "list<int64>", "words": "list<string>",
    "pair": "list<float32>[2]", "again": "int64",
}  # fmt: skip
KEYS = [
    {"k": "int64"}, {"k": "string"}, {"k": "bytes"}, {"k": "bool"}, {},
    {"k": "int64", "a": "string"}, {"z": "bool", "k": "string", "b": "int64"},
]  # fmt: skip
NANS = np.array([0x7FF8000000000000, 0x7FF8DEADBEEF0001, 0xFFF0000000000001], np.uint64).view(np.float64)


def random_column(rng, dtype, n, nulls):
    kind = arrow_type(dtype)
    if dtype.is_list:
        lengths = np.full(n, dtype.length) if dtype.length else rng.integers(0, 3, n)
        items = random_column(rng, parse_dtype(dtype.item), int(lengths.sum()), 0.0)
        offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
        made = pa.ListArray.from_arrays(offsets, items, mask=pa.array(rng.random(n) < nulls))
        return made.cast(kind)
    if dtype.item in ("string", "bytes"):
        words = [["", "a", "é", "abc" * 5], [b"", b"\x00", b"\xff\xfe", b"x" * 9]][dtype.item == "bytes"]
        values = [words[i] for i in rng.integers(0, 4, n)]
    elif dtype.item in ("float32", "float64"):
        values = np.where(rng.random(n) < 0.5, rng.standard_normal(n), rng.choice([-0.0, np.inf, *NANS], n))
        if dtype.item == "float32":
            payload = rng.integers(0x7F800001, 0x7FFFFFFF, n).astype(np.int32).view(np.float32)
            with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
                values = np.where(rng.random(n) < 0.2, payload, values.astype(np.float32))
    elif dtype.item == "bool":
        values = rng.random(n) < 0.5
    else:
        limit = 2**31 if dtype.item == "int32" else 2**63
        values = rng.integers(-limit, limit - 1, n, endpoint=True).astype("i4" if limit == 2**31 else "i8")
    return pa.array(values, kind, mask=rng.random(n) < nulls, from_pandas=False)


def random_keys(rng, keys, n, nulls):
    made = {}
    for name, dtype in keys.items():
        choices = {
            "int64": [1, 2, -(2**63)],
            "string": ["", "a", "a|b"],
            "bytes": [b"", b"\xff"],
            "bool": [True, False],
        }
        picks = rng.integers(0, len(choices[dtype]), n)
        values = [None if rng.random() < nulls else choices[dtype][i] for i in picks]
        made[name] = pa.array(values, arrow_type(parse_dtype(dtype)))
    return made


@dataclass(frozen=True)
class Table:
    """A random join: rows in the canonical schema, labels, and the rule."""

    rv: RegisteredView
    rows: pa.Table
    columns: dict[str, pa.Array]
    row_keys: dict[str, pa.Array]
    label_keys: dict[str, pa.Array]
    keys: dict[str, pa.Array]
    times: np.ndarray
    event: np.ndarray
    created: np.ndarray
    ttl: int | None
    cutoff: int | np.ndarray | None


def random_table(rng, keys, n, m, kinds=4):
    """m rows and n labels; of the kinds of cutoff, none, one, each label's time and anything, the first few."""
    ttl = [None, 1, 3, 8][rng.integers(0, 4)]
    schema = [Field(name, dtype) for name, dtype in FEATURES.items()]
    view = FeatureView("v", schema=schema, ttl=None if ttl is None else timedelta(microseconds=ttl))
    rv = registered(view, keys)
    times = rng.integers(0, 10, n)
    event, created = rng.integers(0, 10, m), rng.integers(0, 12, m)
    if rng.random() < 0.5:  # rows in order of time
        event.sort()
    if rng.random() < 0.5:
        created = np.minimum(created, event)
    kind = rng.integers(0, kinds)
    cutoff = [None, int(rng.integers(0, 12)), times, rng.integers(0, 12, n)][kind]
    row_keys, label_keys = random_keys(rng, rv.join_keys, m, 0.0), random_keys(rng, rv.join_keys, n, 0.05)
    columns = {name: random_column(rng, parse_dtype(t), m, 0.15) for name, t in FEATURES.items()}
    stamps = [pa.array(x).cast(TIMESTAMP) for x in (event, created)]
    layout = pa.array(np.ones(m, np.int32))
    rows = pa.Table.from_arrays(
        [*row_keys.values(), *stamps, *columns.values(), layout], schema=canonical_schema(rv)
    )
    keyed = {name: canonical_key(values, keys[name]) for name, values in label_keys.items()}
    return Table(rv, rows, columns, row_keys, label_keys, keyed, times, event, created, ttl, cutoff)


def one_table(rng, keys, n, m):
    """One random join: what `join_view` answers, and what the rule says."""
    made = random_table(rng, keys, n, m)
    rows, threads = in_chunks(rng, made.rows), int(rng.integers(1, 4))
    got = join_view(made.keys, made.times, rows, made.rv, list(FEATURES), cutoff=made.cutoff, threads=threads)
    labels = list(zip(tuples(made.label_keys, n), made.times.tolist(), strict=True))
    history = list(zip(tuples(made.row_keys, m), made.event.tolist(), made.created.tolist(), strict=True))
    cutoffs = None if made.cutoff is None else np.broadcast_to(made.cutoff, n).tolist()
    return made.columns, got, naive_pit(labels, history, ttl=made.ttl, cutoffs=cutoffs)


def in_chunks(rng, table):
    """The table in up to four chunks, of which some may be empty, out of the middle of larger ones."""
    bounds = [0, *sorted(rng.integers(0, len(table) + 1, rng.integers(0, 4)).tolist()), len(table)]
    pieces = [table.slice(a, b - a) for a, b in itertools.pairwise(bounds)]
    if rng.random() < 0.5:
        pieces = [pa.concat_tables([table, piece]).combine_chunks().slice(len(table)) for piece in pieces]
    return pa.concat_tables(pieces)


def tuples(columns, n):
    return list(zip(*(c.to_pylist() for c in columns.values()), strict=True)) if columns else [()] * n


def test_many_values_are_the_rule_s_values_byte_for_byte(kernel, monkeypatch):
    monkeypatch.setattr(join, "find_rows", kernel.find_rows)
    monkeypatch.setattr(join, "gather", kernel.gather)
    rng = np.random.default_rng(SEED)
    compared = matched = tables = 0
    while compared < VALUES:
        keys = KEYS[tables % len(KEYS)]
        n, m = int(rng.integers(1, 900)), int(rng.integers(1, 24))
        columns, got, rows = one_table(rng, keys, n, m)
        for name, column in columns.items():
            values = bits(column)
            expected = [None if i < 0 else values[i] for i in rows]
            assert got[name].type == column.type
            assert bits(got[name]) == expected, (tables, name)
        compared += n * len(columns)
        matched += sum(i >= 0 for i in rows) * len(columns)
        tables += 1
    assert tables > 30 and matched > compared // 4
