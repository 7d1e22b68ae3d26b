from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.feather
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve import FeatureView, Field, FileSource
from fastserve.errors import InvalidDataError, UnknownObjectError
from fastserve.offline.files import ParquetReader
from fastserve.offline.schema import canonical_schema
from fastserve.offline.source import Window, scan_source
from tests.unit.offline.views import registered

US = pa.timestamp("us", "UTC")
SCHEMA = [Field("a", "int64"), Field("s", "string"), Field("x", "float64")]


def stamps(values, kind=US):
    return pa.array(values, pa.int64()).cast(pa.timestamp("us")).cast(kind)


def view(schema=SCHEMA, keys=None):
    return registered(FeatureView("w", schema=schema), {"u": "int64"} if keys is None else keys)


def scan(source, folder, rv=None, **options):
    rv = rv or view()
    batches = list(scan_source(source, rv, folder, **options))
    assert all(b.num_rows for b in batches)
    table = pa.Table.from_batches(batches, canonical_schema(rv, options.get("columns")))
    table.validate(full=True)
    return table


def rows(n, first=0):
    i = np.arange(first, first + n)
    return pa.table({"u": pa.array(i % 7), "ts": stamps(i * 10), "created": stamps(i * 10 + 5),
                     "a": i, "s": [f"s{k}" for k in i], "x": i / 8})  # fmt: skip


def save(table, path, format):
    if format == "parquet":
        pq.write_table(table, path, row_group_size=4)
    elif format == "csv":
        pa.csv.write_csv(table, path)
    elif format == "arrow":
        pa.feather.write_feather(table, path, chunksize=3)
    elif format == "stream":
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    else:
        write_deltalake(path, table)


FORMATS = ["parquet", "csv", "arrow", "stream", "delta"]


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_the_same_rows_in_source_order(format, tmp_path):
    save(rows(25), tmp_path / "data", format)
    source = FileSource("data", "ts", "created", format="arrow" if format == "stream" else format)
    got = scan(source, tmp_path, batch_rows=4)
    assert got.schema.names == ["u", "event_timestamp", "created_timestamp", "a", "s", "x", "_layout"]
    expected = rows(25)
    for name, column in [("u", "u"), ("event_timestamp", "ts"), ("created_timestamp", "created"), ("a", "a"),
                         ("s", "s"), ("x", "x")]:  # fmt: skip
        assert got[name].to_pylist() == expected[column].to_pylist()
    assert set(got["_layout"].to_pylist()) == {1}
    assert max(b.num_rows for b in scan_source(source, view(), tmp_path, batch_rows=4)) <= 4


@pytest.mark.parametrize("format", FORMATS)
def test_columns_and_window_read_the_same_from_every_format(format, tmp_path):
    save(rows(25), tmp_path / "data", format)
    source = FileSource("data", "ts", "created", format="arrow" if format == "stream" else format)
    got = scan(source, tmp_path, columns=["x", "a"], start_us=40, end_us=90)
    assert got.schema.names == ["u", "event_timestamp", "created_timestamp", "x", "a", "_layout"]
    assert got["a"].to_pylist() == [4, 5, 6, 7, 8]
    late = scan(source, tmp_path, columns=[], start_us=200, end_us=240, created_after_us=185)
    assert late["event_timestamp"].cast(pa.int64()).to_pylist() == [190, 200, 210, 220, 230]


def test_files_are_read_by_path_and_hidden_ones_are_not(tmp_path):
    (tmp_path / "data/b").mkdir(parents=True)
    for name, first in [("data/c.parquet", 20), ("data/a.parquet", 0), ("data/b/z.parquet", 10)]:
        save(rows(10, first), tmp_path / name, "parquet")
    for name in ("data/_SUCCESS", "data/.a.crc"):
        (tmp_path / name).write_text("no")
    assert scan(FileSource("data", "ts"), tmp_path)["a"].to_pylist() == list(range(30))
    assert scan(FileSource((tmp_path / "data").as_uri(), "ts"), tmp_path)["a"].to_pylist() == list(range(30))


@pytest.mark.parametrize("columns", [["x"], ["s", "a.b", "a"], ["deep", "u"], ["a", "deep", "s", "x", "u"]])
def test_parquet_decoded_by_one_thread_is_what_a_scan_gives(columns, tmp_path):
    table = rows(30).append_column("a.b", pa.array(np.arange(30) % 4))
    table = table.append_column("deep", pa.array([{"a": i, "s": [i] * (i % 3)} for i in range(30)]))
    pq.write_table(table, tmp_path / "w.parquet", row_group_size=7)
    reader = ParquetReader.open(pa.fs.LocalFileSystem(), str(tmp_path / "w.parquet"))
    for run in reader.runs(ds.field("ts") > stamps([90])[0]):
        one, scanned = (
            pa.Table.from_batches(run.read(columns, 4, threads)).combine_chunks() for threads in (False, True)
        )
        assert one.equals(scanned) and one.num_rows == run.n_rows
        assert max(batch.num_rows for batch in run.read(columns, 4, False)) == 4
        assert one.equals(table.select(columns).slice(run.first_row, run.n_rows).combine_chunks())


def test_parquet_of_another_type_or_without_a_column_is_read_as_the_schema_says(tmp_path):
    pq.write_table(rows(9), tmp_path / "w.parquet")
    fragment = ds.ParquetFileFormat().make_fragment(str(tmp_path / "w.parquet"), pa.fs.LocalFileSystem())
    schema = pa.schema({"a": pa.float64(), "new": pa.int32(), "u": pa.int64()})
    (run,) = ParquetReader(fragment, schema).runs(None)
    for columns, threads in ((["u", "a", "new"], False), (["u", "a", "new"], True), (["u"], False)):
        (batch,) = run.read(columns, 100, threads)
        assert batch.schema == pa.schema([schema.field(name) for name in columns])
        assert batch["u"].to_pylist() == [i % 7 for i in range(9)]
        assert "new" not in columns or batch["new"].null_count == 9
    assert [batch.num_rows for batch in run.read([], 4, False)] == [4, 4, 1]  # none, but so many rows


def test_files_of_one_source_may_differ_in_widths_and_order_of_columns(tmp_path):
    (tmp_path / "data").mkdir()
    save(rows(3), tmp_path / "data/1", "parquet")
    other = rows(3, 3).select(["x", "s", "a", "created", "ts", "u"])
    other = other.set_column(2, "a", other["a"].cast(pa.int16()))
    other = other.set_column(4, "ts", other["ts"].cast(pa.timestamp("ns", "US/Pacific")))
    save(other, tmp_path / "data/2", "parquet")
    got = scan(FileSource("data", "ts"), tmp_path)
    assert got["a"].to_pylist() == [0, 1, 2, 3, 4, 5]
    assert got["event_timestamp"].cast(pa.int64()).to_pylist() == [0, 10, 20, 30, 40, 50]


@pytest.mark.parametrize("format", ["parquet", "csv", "arrow"])
def test_files_older_than_a_field_take_its_default(format, tmp_path):
    """A field is gained under the view's version; the files of last year are not written again for it."""
    schema = [*SCHEMA, Field("n", "int32", default=-1), Field("v", "list<float32>[2]", default=[0.5, 1.5])]
    if format == "csv":  # which has no lists
        schema[-1] = Field("v", "timestamp")
    rv = registered(
        FeatureView("w", schema=schema), {"u": "int64"}, older=(("a", "s", "x"), ("a", "s", "x", "n"))
    )
    (tmp_path / "data").mkdir()
    default = None if format == "csv" else [0.5, 1.5]
    later = rows(2, 2).append_column("n", pa.array([7, None]))
    newest = rows(1, 4).append_column("n", pa.array([8]))
    newest = newest.append_column("v", pa.array([0]).cast(US) if format == "csv" else pa.array([[2.0, 3.0]]))
    for i, table in enumerate([rows(2), later, newest]):
        save(table, tmp_path / f"data/{i}", format)
    got = scan(FileSource("data", "ts", format=format), tmp_path, rv)
    assert got["n"].to_pylist() == [-1, -1, 7, None, 8], "null stays null"
    assert got["v"].to_pylist()[:4] == [default] * 4 and got["v"].is_valid().to_pylist()[4]
    assert scan(FileSource("data", "ts", format=format), tmp_path, rv, columns=["a"])["a"].to_pylist() == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_a_field_that_no_file_has_is_a_mistake_whenever_it_was_added(tmp_path):
    (tmp_path / "data").mkdir()
    for i in range(2):
        save(rows(2, i), tmp_path / f"data/{i}", "parquet")
    schema = [*SCHEMA, Field("xx", "float64", default=0.0)]
    rv = registered(FeatureView("w", schema=schema), {"u": "int64"}, older=(("a", "s", "x"),))
    with pytest.raises(InvalidDataError, match=r"has no column 'xx'\n.*did you mean 'x'"):
        scan(FileSource("data", "ts"), tmp_path, rv)


def test_a_file_without_a_field_of_the_first_layout_is_a_mistake(tmp_path):
    (tmp_path / "data").mkdir()
    save(rows(2), tmp_path / "data/0", "parquet")
    save(rows(2).drop_columns(["x"]), tmp_path / "data/1", "parquet")
    with pytest.raises(InvalidDataError, match=r"data/1': has no column 'x'"):
        scan(FileSource("data", "ts"), tmp_path)


def test_columns_may_be_in_the_path(tmp_path):
    table = rows(6).drop_columns(["u"]).append_column("u", pa.array([1, 1, 22, 22, 22, 1]))
    ds.write_dataset(
        table, tmp_path / "data", format="parquet", partitioning=["u"], partitioning_flavor="hive"
    )
    got = scan(FileSource("data", "ts"), tmp_path)
    assert sorted(zip(got["u"].to_pylist(), got["a"].to_pylist(), strict=True)) == [
        (1, 0), (1, 1), (1, 5), (22, 2), (22, 3), (22, 4)]  # fmt: skip


def test_partitions_of_a_delta_source_are_columns_like_others(tmp_path):
    write_deltalake(tmp_path / "data", rows(6), partition_by=["s"])
    got = scan(FileSource("data", "ts", format="delta"), tmp_path)
    assert sorted(zip(got["a"].to_pylist(), got["s"].to_pylist(), strict=True)) == [
        (i, f"s{i}") for i in range(6)
    ]


def test_row_groups_outside_the_window_are_not_read(tmp_path):
    table = rows(40)
    bad = table.set_column(3, "a", pa.array([2**40 if i >= 20 else i for i in range(40)]))
    pq.write_table(bad, tmp_path / "data", row_group_size=4)
    narrow = view([Field("a", "int32")])
    assert len(scan(FileSource("data", "ts"), tmp_path, narrow, end_us=200)) == 20
    with pytest.raises(InvalidDataError, match=r"column 'a', row 24: 1099511627776 does not fit int32"):
        scan(FileSource("data", "ts"), tmp_path, narrow, start_us=240, end_us=245)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_bounds_between_units_lose_nothing(unit, tmp_path):
    times = pa.array([0, 1, 2, 3]).cast(pa.timestamp("s")).cast(pa.timestamp(unit))
    pq.write_table(pa.table({"u": [1] * 4, "ts": times, "a": [0, 1, 2, 3]}), tmp_path / "d", row_group_size=1)
    one = view([Field("a", "int64")])

    def found(start, end):
        return scan(FileSource("d", "ts"), tmp_path, one, start_us=start, end_us=end)["a"].to_pylist()

    assert found(1_000_000, 2_000_000) == [1]
    assert found(999_999, 2_000_001) == [1, 2]
    assert found(1_000_001, 2_999_999) == [2]
    assert found(-(2**63) + 1, 2**63 - 1) == [0, 1, 2, 3]


us = st.integers(-3, 12)


@settings(max_examples=150, deadline=None)
@given(events=st.lists(us, min_size=1, max_size=9), data=st.data())
def test_what_pruning_leaves_out_the_window_would_too(events, data):
    created = data.draw(st.lists(us | st.none(), min_size=len(events), max_size=len(events)))
    window = Window(*(data.draw(us | st.none()) for _ in range(3)))
    known = [e if c is None else c for e, c in zip(events, created, strict=True)]
    kept = window.keeps(np.array(events), np.array(known)).tolist()
    for e, k, keep in zip(events, known, kept, strict=True):
        wanted = window.end_us is None or e < window.end_us
        if window.start_us is not None:
            late = window.created_after_us is not None and k > window.created_after_us
            wanted = wanted and (e >= window.start_us or late)
        assert keep == wanted
    table = pa.table({"t": stamps(events), "c": stamps(created), "i": range(len(events))})
    prune = window.prune(table.schema, "t", "c")
    if prune is not None:
        # Statistics know no nulls: a row group of rows without created time says nothing about `c`.
        whole = table.filter(prune | ds.field("c").is_null())["i"].to_pylist()
        assert {i for i, keep in enumerate(kept) if keep} <= set(whole)


def test_rows_without_a_created_time_count_as_created_at_their_event_time(tmp_path):
    table = pa.table({"u": [1, 1], "ts": stamps([10, 20]), "created": stamps([None, 25]), "a": [1, 2]})
    pq.write_table(table, tmp_path / "d", row_group_size=1)
    one = view([Field("a", "int64")])
    got = scan(FileSource("d", "ts", "created"), tmp_path, one)
    assert got["created_timestamp"].cast(pa.int64()).to_pylist() == [10, 25]
    late = scan(FileSource("d", "ts", "created"), tmp_path, one, start_us=30, end_us=40, created_after_us=9)
    assert late["a"].to_pylist() == [1, 2]


# ---- CSV ------------------------------------------------------------------------------------------------


def test_csv_text_keeps_leading_zeros_and_knows_null_from_empty(tmp_path):
    (tmp_path / "d.csv").write_text(
        'u,ts,a,s,x\n007,2024-01-01,1,007,NaN\n8,2024-01-01T01:00Z,NA,"",\n9,2024-01-01,,,1\n'
    )
    got = scan(FileSource("d.csv", "ts"), tmp_path, view(keys={"u": "string"}))
    assert got["u"].to_pylist() == ["007", "8", "9"]
    assert got["s"].to_pylist() == ["007", "", None]
    assert got["a"].to_pylist() == [1, None, None]
    assert str(got["x"].to_pylist()) == "[nan, None, 1.0]"


def test_csv_may_be_compressed_hold_line_breaks_and_no_rows(tmp_path):
    with gzip.open(tmp_path / "d.csv.gz", "wt") as file:
        file.write('u,ts,a,s,x\n1,2024-01-01,1,"two\nlines, with ""quotes""",2\n')
    assert scan(FileSource("d.csv.gz", "ts"), tmp_path)["s"].to_pylist() == ['two\nlines, with "quotes"']
    (tmp_path / "e.csv").write_text("u,ts,a,s,x\n")
    assert len(scan(FileSource("e.csv", "ts"), tmp_path)) == 0


# ---- refused --------------------------------------------------------------------------------------------


def test_a_null_key_or_event_time_is_refused_naming_its_row(tmp_path):
    one = view([Field("a", "int64")])
    table = pa.table({"u": pa.array([1, 1, None]), "ts": stamps([1, 2, 9]), "a": [1, 2, 3]})
    pq.write_table(table, tmp_path / "k")
    with pytest.raises(
        InvalidDataError, match=r"source 'k', file .*k', column 'u', row 2: the join key is null"
    ):
        scan(FileSource("k", "ts"), tmp_path, one)
    assert len(scan(FileSource("k", "ts"), tmp_path, one, end_us=9)) == 2
    pq.write_table(pa.table({"u": [1, 1], "ts": stamps([1, None]), "a": [1, 2]}), tmp_path / "t")
    with pytest.raises(InvalidDataError, match="column 'ts', row 1: the event time is null"):
        scan(FileSource("t", "ts"), tmp_path, one)


def test_a_time_beyond_year_9999_is_refused(tmp_path):
    pq.write_table(pa.table({"u": [1], "ts": stamps([253_402_300_800_000_000]), "a": [1]}), tmp_path / "d")
    with pytest.raises(InvalidDataError, match=r"row 0: .*Z is outside the years 1 to 9999"):
        scan(FileSource("d", "ts"), tmp_path, view([Field("a", "int64")]))


@pytest.mark.parametrize("format", ["parquet", "csv", "arrow", "delta"])
def test_a_missing_column_is_refused_with_the_ones_there_are(format, tmp_path):
    save(rows(3), tmp_path / "d", format)
    source = FileSource("d", "ts", format=format)
    with pytest.raises(
        InvalidDataError, match=r"has no column 'aa'\n.*did you mean 'a'\? its columns: u, ts, created"
    ):
        scan(source, tmp_path, view([Field("aa", "int64")]))
    with pytest.raises(InvalidDataError, match="has no column 'tz'"):
        scan(FileSource("d", "tz", format=format), tmp_path)
    with pytest.raises(UnknownObjectError, match="'b'"):
        scan(source, tmp_path, columns=["b"])


def test_what_is_not_there_or_not_of_the_format_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("nonsense")
    for path, format, message in [
        ("nowhere", "parquet", "there is no file or directory"),
        ("nowhere", "delta", "there is no Delta table"),
        ("empty", "csv", "the directory .*empty' has no files"),
        ("text", "parquet", "cannot be read as parquet"),
        ("text", "arrow", "cannot be read as arrow"),
        ("nofs://x", "parquet", "cannot be read"),
    ]:
        with pytest.raises(InvalidDataError, match=message) as caught:
            scan(FileSource(path, "ts", format=format), tmp_path)
        assert f"source {path!r}" in caught.value.where and caught.value.hint


def test_a_ragged_csv_is_refused_naming_the_file(tmp_path):
    (tmp_path / "d.csv").write_text("u,ts,a,s,x\n1,2024-01-01,1\n")
    with pytest.raises(InvalidDataError, match=r"file .*d.csv': cannot be read as csv.*Expected 5 columns"):
        scan(FileSource("d.csv", "ts"), tmp_path)


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([1]), stamps([1])], ["u", "u", "ts"])
    pq.write_table(table, tmp_path / "d")
    with pytest.raises(InvalidDataError, match="2 columns named 'u'"):
        scan(FileSource("d", "ts"), tmp_path, view([Field("ts", "timestamp")]))
