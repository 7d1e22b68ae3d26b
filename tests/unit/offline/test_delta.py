from __future__ import annotations

import threading
from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastserve import FeatureView, Field
from fastserve.errors import InvalidDataError, MaterializeError
from fastserve.offline import delta
from fastserve.offline.delta import AppendResult, OfflineTable
from fastserve.offline.rewrite import Rewrite
from fastserve.offline.schema import CREATED_TS, EVENT_TS, canonical_schema
from fastserve.timeutil import DAY_US
from fastserve.types import arrow_type, parse_dtype
from tests.oracles.bits import bits
from tests.unit.offline.views import registered

DAY = "2024-03-10"
START = 19_792 * DAY_US
A = Field("a", "int64")


def view(schema=(A,), keys=None, **options):
    return registered(FeatureView("w", schema=schema), {"u": "int64"} if keys is None else keys, **options)


def batch(rv, rows, start=START):
    """Rows (u, event, created, *features), times in microseconds after `start`."""
    schema = canonical_schema(rv)
    columns = list(zip(*rows, strict=True)) or [()] * (len(schema) - 1)
    arrays = []
    for field, values in zip(schema, [*columns, [rv.layout.layout_id] * len(rows)], strict=True):
        if field.name in (EVENT_TS, CREATED_TS):
            values = pa.array([start + v for v in values], pa.int64())
        arrays.append(
            pa.array(values, field.type) if isinstance(values, (tuple, list)) else values.cast(field.type)
        )
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def read(table, name="a", **options):
    return sorted(v for b in table.read([name], **options) for v in bits(b.column(name)))


@pytest.fixture
def table(tmp_path):
    return OfflineTable(str(tmp_path), "p", view())


def test_before_the_first_append_there_is_nothing_and_that_is_no_error(table, tmp_path):
    assert not table.exists and table.version is None
    assert (table.row_count(), table.dates(), list(table.read())) == (0, [], [])
    assert table.append_new([]) == AppendResult(0, 0)
    assert not table.exists and table.uri == f"{tmp_path}/p/w/v1"


def test_appending_again_adds_nothing_and_commits_nothing(table):
    rows = batch(table.rv, [(1, 5, 5, 50), (1, 5, 6, 51), (2, 5, 5, 52)])
    assert table.append_new([rows]) == AppendResult(3, 3)
    version = table.version
    assert table.append_new([rows.slice(0, 1), rows.slice(1)]) == AppendResult(3, 0)
    assert table.version == version and read(table) == [50, 51, 52]
    more = batch(table.rv, [(1, 5, 5, 99), (3, 5, 5, 53)])
    assert table.append_new([more]) == AppendResult(2, 1)
    assert read(table) == [50, 51, 52, 53] and table.row_count() == 4  # the first written stays


def test_of_equal_rows_in_one_call_the_last_counts(table):
    one, two = batch(table.rv, [(1, 5, 5, 50), (1, 5, 5, 51)]), batch(table.rv, [(2, 1, 1, 7), (1, 5, 5, 52)])
    assert table.append_new([one, two]) == AppendResult(4, 2)
    assert read(table) == [7, 52]


def test_reads_prune_by_date(table):
    for day in range(4):
        assert table.append_new([batch(table.rv, [(1, 5, 5, day)], START + day * DAY_US)])
    assert table.dates() == [f"2024-03-1{day}" for day in range(4)]
    assert table.version == 4  # created, then one commit a date
    paths = [
        f.path for f, _ in delta._fragments(table.open(), delta._condition(START + 6, START + 2 * DAY_US))
    ]
    assert [path.split("/")[0] for path in paths] == ["event_date=2024-03-10", "event_date=2024-03-11"]
    assert read(table, start_us=START + 6, end_us=START + 2 * DAY_US) == [1]
    assert read(table, start_us=START + 5, end_us=START + DAY_US + 6) == [0, 1]


def test_rows_of_many_dates_are_one_commit(table):
    table.append_new([batch(table.rv, [(1, 5, 5, 0)])])
    version = table.version
    rows = [batch(table.rv, [(1, 5, 5, 10 + d)], START + d * DAY_US) for d in (3, 0, 1)]
    assert table.append_new(rows) == AppendResult(3, 2)
    assert table.version == version + 1 and read(table) == [0, 11, 13]
    assert table.dates() == [f"2024-03-1{d}" for d in (0, 1, 3)]


def test_a_batch_of_another_schema_is_refused_and_nothing_is_written(table):
    with pytest.raises(InvalidDataError, match=r"the batch has the columns a\n"):
        table.append_new([batch(table.rv, [(1, 5, 5, 50)]), pa.record_batch({"a": [1]})])
    assert not table.exists


def test_an_earlier_version_reads_as_it_was(table):
    table.append_new([batch(table.rv, [(1, 5, 5, 50)])])
    before = table.version
    table.append_new([batch(table.rv, [(2, 5, 5, 51)])])
    assert read(table, version=before) == [50] and table.row_count(before) == 1
    assert read(table) == [50, 51]


def test_a_new_feature_is_null_in_older_rows_whose_layout_tells_why(table, tmp_path):
    table.append_new([batch(table.rv, [(1, 5, 5, 50)])])
    grown = view((A, Field("e", "list<float32>[2]"), Field("s", "string")), older=(("a",),))
    new = OfflineTable(str(tmp_path), "p", grown)
    assert [b.column("s").to_pylist() for b in new.read()] == [[None]]  # before anything was written with it
    assert new.append_new([batch(grown, [(2, 5, 5, 51, [1.0, -0.0], None), (1, 5, 5, 9, None, "x")])]) == (
        AppendResult(2, 1)
    )
    got = pa.Table.from_batches(new.read()).sort_by("u")
    assert got.schema == canonical_schema(grown)
    assert got["e"].to_pylist() == [None, [1.0, 0.0]] and bits(got["e"])[1][1] == -(2**31)
    assert got["_layout"].to_pylist() == [1, 2] and got["s"].to_pylist() == [None, None]
    assert read(OfflineTable(str(tmp_path), "p", view())) == [50, 51]  # the older definition still reads


TYPES = {
    "bool": [True, None], "int32": [-(2**31), None], "int64": [2**63 - 1, None], "float32": [float("nan"), None],
    "float64": [-0.0, None], "string": ["", None], "bytes": [b"\x00\xff", None], "timestamp": [-1, None],
    "list<int64>": [[], None], "list<bytes>": [[b"", b"a"], None], "list<float64>[2]": [[float("inf"), -0.0], None],
}  # fmt: skip


def test_every_type_survives_bit_for_bit(tmp_path):
    rv = view([Field(f"f{i}", t) for i, t in enumerate(TYPES)])
    rows = batch(rv, [(1, 5, 5, *(v[0] for v in TYPES.values())), (2, 5, 5, *(v[1] for v in TYPES.values()))])
    table = OfflineTable(str(tmp_path), "p", rv)
    table.append_new([rows])
    got = pa.Table.from_batches(table.read()).sort_by("u")
    assert got.schema == canonical_schema(rv)
    for i, (dtype, values) in enumerate(TYPES.items()):
        assert bits(got[f"f{i}"]) == bits(pa.array(values, arrow_type(parse_dtype(dtype)))), dtype


def test_the_ends_of_time_and_keys_of_every_type(tmp_path):
    keys = {"b": "bytes", "f": "bool", "s": "string", "i": "int64"}
    rv = view(keys=keys)
    table = OfflineTable(str(tmp_path), "p", rv)
    for us in (-62_135_596_800_000_000, 253_402_300_799_999_999):
        rows = batch(
            rv, [(b"\xff", True, -(2**63), "", 0, 0, 1), (b"\xff", False, -(2**63), "", 0, 0, 2)], us
        )
        assert table.append_new([rows]).rows_new == 2
        assert table.append_new([rows]).rows_new == 0
        assert read(table, start_us=us, end_us=us + 1) == [1, 2]
    assert table.dates() == ["0001-01-01", "9999-12-31"]


def test_a_view_without_keys_keeps_each_time_once(tmp_path):
    rv = view(keys={})
    table = OfflineTable(str(tmp_path), "p", rv)
    assert table.append_new([batch(rv, [(5, 5, 1), (5, 6, 2), (5, 5, 3)])]) == AppendResult(3, 2)
    assert read(table) == [2, 3]


def test_many_rows_go_through_a_temporary_file(table, monkeypatch):
    monkeypatch.setattr(delta, "SPOOL_BYTES", 1_000)
    rng = np.random.default_rng(3)
    rows = [
        [(int(u), int(t), 0, i) for i, (u, t) in enumerate(rng.integers(0, 40, (500, 2)))] for _ in range(6)
    ]
    result = table.append_new(batch(table.rv, r) for r in rows)
    last = {(u, t): a for r in rows for u, t, _, a in r}
    assert result == AppendResult(3_000, len(last)) and read(table) == sorted(last.values())


def test_of_two_writers_of_one_date_the_later_looks_again_and_nothing_stands_twice(table, monkeypatch):
    """The second writer looks for doubles before the first has committed, and commits after it."""
    table.append_new([batch(table.rv, [(9, 5, 5, 9)], START + DAY_US)])
    rows = batch(table.rv, [(1, 5, 5, 50)])
    other = OfflineTable(table.uri.removesuffix("/p/w/v1"), "p", table.rv)
    looked, extra = other.is_new, iter(range(100))

    def look_then_wait(*args):
        found = looked(*args)
        if next(extra) == 0:
            table.append_new([rows])
        return found

    monkeypatch.setattr(other, "is_new", look_then_wait)  # the only seam between look and commit
    assert other.append_new([rows]) == AppendResult(1, 0)
    assert read(table) == [9, 50]


@pytest.mark.parametrize("spool_bytes", [1, 1 << 20], ids=["from a file", "from memory"])
def test_of_two_first_writers_the_second_looks_again(spool_bytes, table, monkeypatch):
    monkeypatch.setattr(delta, "SPOOL_BYTES", spool_bytes)
    rows = batch(table.rv, [(1, 5, 5, 50), (2, 5, 5, 51)])
    other = OfflineTable(table.uri.removesuffix("/p/w/v1"), "p", table.rv)
    looked, looks = other.is_new, []

    def look_then_wait(*args):
        found = looked(*args)
        looks.append(len(looks))
        if len(looks) < 3:  # the first time there is no table yet, the second time it loses the commit
            table.append_new([rows.slice(0, 1), batch(table.rv, [(8, len(looks), 5, 1)])])
        return found

    monkeypatch.setattr(other, "is_new", look_then_wait)
    assert other.append_new([rows.slice(0, 1), rows.slice(1)]) == AppendResult(2, 1)
    assert read(table) == [1, 1, 50, 51] and looks == [0, 1, 2]


def test_a_writer_that_is_always_late_says_so(table, monkeypatch):
    table.append_new([batch(table.rv, [(9, 5, 5, 9)])])
    other = OfflineTable(table.uri.removesuffix("/p/w/v1"), "p", table.rv)
    looked, numbers = other.is_new, iter(range(100))

    def look_then_wait(*args):
        found = looked(*args)
        table.append_new([batch(table.rv, [(100 + next(numbers), 5, 5, 0)])])
        return found

    monkeypatch.setattr(other, "is_new", look_then_wait)
    with pytest.raises(MaterializeError, match="other writers changed the table each time"):
        other.append_new([batch(table.rv, [(1, 5, 5, 50)])])
    assert 50 not in read(table)


def test_writers_of_different_dates_do_not_disturb_one_another(table):
    table.append_new([batch(table.rv, [(0, 1, 1, 0)])])
    failures = []

    def write(i):
        try:
            table.append_new([batch(table.rv, [(1, 5, 5, i)], START + i * DAY_US)])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and read(table) == [0, 0, 1, 2, 3, 4, 5]


def test_the_log_gets_checkpoints(table, tmp_path):
    for i in range(60):
        table.append_new([batch(table.rv, [(i, 5, 5, i)])])
    assert list((tmp_path / "p/w/v1/_delta_log").glob("*.checkpoint.parquet"))
    assert table.row_count() == 60 and read(table) == list(range(60))
    assert table.append_new([batch(table.rv, [(3, 5, 5, 0), (99, 5, 5, 99)])]) == AppendResult(2, 1)


row = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2), st.integers(0, 99))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(st.lists(st.lists(row, max_size=4), max_size=3), min_size=1, max_size=4))
def test_any_appends_leave_each_row_once_as_first_written(calls, tmp_path_factory):
    table = OfflineTable(str(tmp_path_factory.mktemp("t")), "p", view())
    stands = {}
    for call in calls:
        given_rows = [r for rows in call for r in rows]
        result = table.append_new([batch(table.rv, rows) for rows in call])
        new = {r[:3]: r[3] for r in given_rows if r[:3] not in stands}
        assert result == AppendResult(len(given_rows), len(new))
        stands.update(new)
    assert read(table) == sorted(stands.values())


def test_rows_as_the_table_keeps_them(tmp_path):
    rv = view(keys={"u": "int64", "c": "string"}, schema=(A, Field("v", "list<float32>[2]")))
    table = OfflineTable(str(tmp_path), "p", rv)
    first = [("x", 1, 5, 5, 10, [1.0, 2.0]), ("y", 1, 5, 5, 11, None), ("x", 1, 5, 6, 12, None)]
    table.append_new([batch(rv, first)])
    table.append_new([batch(rv, [("x", 1, DAY_US, DAY_US, 13, None)])])
    again = [("x", 1, 5, 5, 99, None), ("z", 1, 5, 5, 20, None), ("x", 1, DAY_US, DAY_US, 98, None)]
    given_again = batch(rv, again)
    found = table.as_stored(given_again)
    assert found.schema == given_again.schema
    rows = {(r["c"], r[CREATED_TS].microsecond, r["a"]): r["v"] for r in found.to_pylist()}
    assert rows == {("x", 5, 10): [1.0, 2.0], ("z", 5, 20): None, ("x", 0, 13): None}
    assert table.as_stored(given_again.slice(0, 0)).num_rows == 0


def test_a_row_of_an_older_layout_is_taken_as_given(tmp_path):
    old = view()
    OfflineTable(str(tmp_path), "p", old).append_new([batch(old, [(1, 5, 5, 10)])])
    new = view(schema=(A, Field("b", "int64", default=3)), older=(("a",),))
    found = OfflineTable(str(tmp_path), "p", new).as_stored(batch(new, [(1, 5, 5, 99, 4)]))
    assert (found["a"].to_pylist(), found["b"].to_pylist()) == ([99], [4])


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(-1_500, 2_500)), min_size=1, max_size=8, unique=True)
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_row_is_found_again_by_its_time_alone(tmp_path_factory, rows):
    """Files are left out by their range of event times, down to the microsecond."""
    table = OfflineTable(str(tmp_path_factory.mktemp("t")), "p", view())
    for u, at in rows:
        assert table.append_new([batch(table.rv, [(u, at, at, 0)])]).new_of == (1,)
    for u, at in rows:
        assert table.append_new([batch(table.rv, [(u, at, at, 1)])]).new_of == (0,)
    assert table.row_count() == len(rows)


def test_new_rows_are_told_for_each_batch(table):
    rows = batch(table.rv, [(1, 5, 5, 1), (2, 5, 5, 2), (1, 5, 5, 3)])
    table.append_new([rows.slice(1, 1)])
    assert table.append_new([rows.slice(0, 2), rows.slice(0, 0), rows.slice(2)]).new_of == (0, 0, 1)


def encodings(table):
    """Column -> whether some file of the table has a dictionary of it."""
    found = {}
    for fragment, _ in delta._fragments(table.open(), None):
        group = fragment.metadata.row_group(0)
        for i in range(group.num_columns):
            column = group.column(i)
            found[column.path_in_schema.split(".")[0]] = column.has_dictionary_page
    return found


def test_floats_have_no_dictionary_and_what_repeats_has_one(tmp_path):
    fields = [Field("f", "float32"), Field("d", "float64"), Field("e", "list<float32>"), Field("s", "string")]
    table = OfflineTable(str(tmp_path), "p", view(schema=fields))
    for start in (0, 100):
        rows = [(n, n, n, n / 3, n / 7, [float(n), 1.0], "a") for n in range(start, start + 100)]
        assert table.append_new([batch(table.rv, rows)]).rows_new == 100
    wanted = {"u": True, "s": True, "f": False, "d": False, "e": False}
    assert encodings(table).items() >= wanted.items()
    assert Rewrite(table).compact([date.fromisoformat(DAY)], files=2, target_bytes=1 << 20) == 2
    assert encodings(table).items() >= wanted.items()
    assert read(table, "f") == sorted(bits(pa.array([n / 3 for n in range(200)], pa.float32())))
