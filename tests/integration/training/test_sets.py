"""Training sets as users make them: aliases, services, names, frames, engines, and what is refused."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from fastserve import Entity, FeatureService, FeatureView, Field, FileSource
from fastserve.errors import (
    IncompleteHistoryError,
    InvalidDataError,
    InvalidEntityError,
    OfflineStoreError,
    RequestError,
    UnknownObjectError,
)
from fastserve.types import arrow_type, parse_dtype
from materializer.training import build_training_set, to_spine
from tests.integration.training.kit import T0, Repo, ts, values, write_source
from tests.oracles.bits import bits

V = [Field("v", "int64")]
WEATHER = pa.table({"place": ["ber", "muc", "ber"], "ts": ts([1, 1, 5]), "v": [10, 20, 11]})
SPINE = pa.table({
    "origin": ["ber", "muc", "ber", "?"], "dest": ["muc", "ber", None, "ber"],
    "event_timestamp": ts([3, 9, 9, 9]), "y": [0.0, float("nan"), -0.0, 1.0],
})  # fmt: skip


@pytest.fixture
def repo(tmp_path):
    return Repo(tmp_path)


def weather(repo, **options):
    return repo.view("weather", WEATHER, V, keys={"place": "string"}, **options)


# ---- 13 aliases, 14 composite keys, 15 no entity, 16 field mapping, 18 key types --------------------------


def test_13_one_view_twice_under_two_names(repo):
    view = weather(repo)
    parts = [view.with_name(n).with_join_key_map({"place": n}) for n in ("origin", "dest")]
    made = repo.train(SPINE, parts, full_feature_names=True)
    assert made.to_arrow().column_names[4:] == ["origin__v", "dest__v"]
    assert values(made, "origin__v") == [10, 20, 11, None]
    assert values(made, "dest__v") == [20, 11, None, 11]


@pytest.mark.parametrize("order", [["a", "b"], ["b", "a"]])
def test_14_the_order_of_key_columns_does_not_matter(order, repo):
    rows = pa.table({"b": ["x", "y", "x"], "a": [1, 1, 2], "ts": ts([1, 1, 1]), "v": [1, 2, 3]})
    keys = {"a": "int64", "b": "string"}
    repo.view("w", rows.select([*order, "ts", "v"]), V, keys={k: keys[k] for k in order})
    spine = {"a": [2, 1, 1, 2, None], "b": ["x", "y", "x", "y", "x"]}
    made = repo.train(
        pa.table({**{k: spine[k] for k in order[::-1]}, "event_timestamp": ts([9] * 5)}), ["w:v"]
    )
    assert values(made) == [3, 2, 1, None, None]


def test_threads_change_nothing_of_an_answer_and_are_one_or_more(repo):
    weather(repo)
    spine = pa.table({"place": ["ber", "muc", "?"] * 300, "event_timestamp": ts(list(range(900)))})
    one, many = (repo.train(spine, ["weather:v"], threads=n).to_arrow() for n in (1, 3))
    assert one.equals(many) and one["v"].null_count < 400
    with pytest.raises(RequestError, match="0 threads"):
        repo.train(spine, ["weather:v"], threads=0)


def test_15_a_view_without_entities_holds_for_every_label(repo):
    repo.view("rate", pa.table({"ts": ts([1, 5]), "v": [1, 2]}), V, keys={})
    spine = pa.table({"event_timestamp": ts([0, 1, 9])})
    assert values(repo.train(spine, ["rate:v"])) == [None, 1, 2]


def test_16_a_feature_may_be_named_as_anything_of_ours(repo):
    names = ["label", "position", "key0"]
    rows = {"u": [1, 2, 3], "ts": ts([1, 1, 1]), **{name: [i, 7, 9] for i, name in enumerate(names)}}
    repo.view("w", pa.table(rows), [Field(name, "int64") for name in names])
    made = repo.train(pa.table({"u": [3, 4, 1], "event_timestamp": ts([9] * 3)}), [f"w:{n}" for n in names])
    assert [values(made, name) for name in names] == [[9, None, i] for i in range(3)]


@pytest.mark.parametrize("backend", ["parquet", "csv", "offline"])
def test_16_source_columns_have_names_of_their_own(backend, repo):
    rows = pa.table({"uid": [1], "ts": ts([1]), "created": ts([4]), "val ue": [7]})
    mapping = {"uid": "u", "val ue": "v", "ts": "event_timestamp"}
    repo.view("w", rows, V, field_mapping=mapping, backend=backend)
    spine = pa.table({"u": [1, 1], "event_timestamp": ts([3, 4])})
    assert values(repo.train(spine, ["w:v"], cutoff="label_time")) == [None, 7]


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint8(), pa.int16(), pa.int32(), pa.uint32(), pa.uint64()])
def test_18_integer_keys_of_any_width_are_the_same_key(kind, repo):
    repo.view("w", pa.table({"u": pa.array([3, 7]), "ts": ts([1, 1]), "v": [30, 70]}), V)
    spine = pa.table({"u": pa.array([7, 3, 9], kind), "event_timestamp": ts([9] * 3)})
    assert values(repo.train(spine, ["w:v"])) == [70, 30, None]


@pytest.mark.parametrize("backend", ["parquet", "arrow", "offline"])
def test_18_text_keys_of_any_form_are_the_same_key(backend, repo):
    rows = pa.table({"place": WEATHER["place"].combine_chunks().dictionary_encode(), "ts": WEATHER["ts"],
                     "v": WEATHER["v"].cast(pa.int16())})  # fmt: skip
    repo.view("weather", rows, V, keys={"place": "string"}, backend=backend)
    for form in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())):
        spine = pa.table({"place": pa.array(["muc", None, "ber"]).cast(form), "event_timestamp": ts([9] * 3)})
        assert values(repo.train(spine, ["weather:v"])) == [20, None, 11]


# ---- 22 to 25: however it is asked, the answer is the same ----------------------------------------------


def random_views(repo, count, backend="parquet"):
    rng = np.random.default_rng(5)
    for i in range(count):
        n = 200
        rows = pa.table({
            "u": rng.integers(0, 9, n), "ts": ts(rng.integers(0, 50, n).tolist()),
            "created": ts(rng.integers(0, 60, n).tolist()),
            f"x{i}": pa.array(rng.standard_normal(n), mask=rng.random(n) < 0.2),
        })  # fmt: skip
        ttl = [None, timedelta(microseconds=7)][i % 2]
        repo.view(f"w{i}", rows, [Field(f"x{i}", "float64")], ttl=ttl, backend=backend)
    n = 300
    return pa.table({"u": rng.integers(0, 11, n), "event_timestamp": ts(rng.integers(0, 60, n).tolist()),
                     "y": rng.standard_normal(n)})  # fmt: skip


def test_22_ten_views_in_one_call_are_ten_calls(repo):
    spine = random_views(repo, 10)
    refs = [f"w{i}:x{i}" for i in range(10)]
    whole = repo.train(spine, refs, cutoff="label_time")
    for i, ref in enumerate(refs):
        assert values(whole, f"x{i}") == values(repo.train(spine, [ref], cutoff="label_time"), f"x{i}")


def test_a_view_asked_for_twice_is_read_once_and_a_mapping_to_itself_is_none(repo, monkeypatch):
    from fastserve.offline import history

    rows = WEATHER.append_column("w", pa.array([1.5, 2.5, None]))
    view = repo.view("weather", rows, [*V, Field("w", "float64")], keys={"place": "string"})
    scans = []

    def counting(*args, **options):
        scans.append(args[-1])
        return listed(*args, **options)

    listed = history.source_pieces
    monkeypatch.setattr(history, "source_pieces", counting)
    spine = SPINE.rename_columns(["place", "dest", "event_timestamp", "y"])
    parts = [view["w"], view["v"].with_join_key_map({"place": "place"}), view["v"].with_name("again"),
             view["v"].with_name("there").with_join_key_map({"place": "dest"})]  # fmt: skip
    made = repo.train(spine, parts, full_feature_names=True)
    assert list(made.features) == ["weather__w", "weather__v", "again__v", "there__v"]
    assert values(made, "weather__v") == values(made, "again__v") == [10, 20, 11, None]
    assert values(made, "weather__w") == bits(pa.array([1.5, 2.5, None, None]))
    assert values(made, "there__v") == [20, 11, None, 11]
    assert scans == 3 * [["w", "v"], ["v"]]  # train makes it three times


def test_views_of_one_source_have_the_rows_of_labels_found_once(repo, monkeypatch):
    """Where the same rows hold for as long; other keys or another ttl are another question."""
    from materializer import joining

    table = pa.table({
        "u": [1, 2, 1, 1], "other": [2, 1, 2, 1], "ts": ts([1, 1, 5, 7]), "v": [10, 20, 11, None],
        "w": [0.1, 0.2, 0.3, 0.4],
    })  # fmt: skip
    source = write_source(repo.folder, "rows", table, "parquet")
    entity = Entity("e", ["u"], ["int64"])
    mapped = FileSource("rows.parquet", "ts", field_mapping={"other": "u"}, name="mapped")
    views = [
        FeatureView(name, entities=[entity], schema=[field], source=of, ttl=ttl)
        for name, field, of, ttl in [
            ("one", V[0], source, None),
            ("two", Field("w", "float64"), source, None),
            ("brief", V[0], source, timedelta(microseconds=3)),
            ("three", V[0], source, None),
            ("turned", V[0], mapped, None),
        ]
    ]
    repo.store.apply([entity, *views])
    found = []
    find = joining.find_rows
    monkeypatch.setattr(joining, "find_rows", lambda *args, **kw: found.append(1) or find(*args, **kw))
    spine = pa.table({"u": [1, 2, 1, 3, None], "event_timestamp": ts([6, 9, 9, 9, 9])})
    refs = ["one:v", "two:w", "brief:v", "three:v", "turned:v"]
    made = repo.store.get_historical_features(spine, refs, full_feature_names=True)
    assert len(found) == 3
    assert values(made, "one__v") == values(made, "three__v") == [11, 20, None, None, None]
    assert values(made, "two__w") == bits(pa.array([0.3, 0.2, 0.4, None, None]))
    assert values(made, "brief__v") == [11, None, None, None, None]
    assert values(made, "turned__v") == [20, 11, None, None, None]
    monkeypatch.undo()
    repo.train(spine, refs, full_feature_names=True)


def test_23_a_service_is_its_list_and_order_is_as_asked(repo):
    spine = random_views(repo, 3)
    refs = ["w2:x2", "w0:x0", "w1:x1"]
    service = FeatureService("model", refs)
    repo.store.apply([service])
    by_list, by_name = repo.train(spine, refs), repo.store.get_historical_features(spine, service="model")
    assert by_list.to_arrow().equals(by_name.to_arrow())
    assert by_list.to_arrow().equals(repo.train(spine, service).to_arrow())
    assert list(by_list.features) == ["x2", "x0", "x1"]


def test_23_names_that_collide_are_refused_with_both_owners(repo):
    view = weather(repo)
    repo.view("other", WEATHER, V, keys={"place": "string"})
    spine = SPINE.rename_columns(["place", "dest", "event_timestamp", "y"])
    with pytest.raises(RequestError, match=r"other:v and weather:v would both be named 'v'") as caught:
        repo.train(spine, ["weather:v", "other:v"])
    assert "full_feature_names=True" in caught.value.hint
    made = repo.train(spine, ["weather:v", "other:v"], full_feature_names=True)
    assert list(made.features) == ["weather__v", "other__v"]
    with pytest.raises(RequestError, match="weather:v and a column of the spine would both be named 'v'"):
        repo.train(spine.rename_columns(["place", "v", "event_timestamp", "y"]), [view])
    with pytest.raises(RequestError, match="would both be named 'weather__v'"):
        repo.train(spine, [view, view["v"]], full_feature_names=True)


def test_24_permuting_labels_permutes_the_answer(repo):
    spine = random_views(repo, 2)
    whole = repo.train(spine, ["w0:x0", "w1:x1"], cutoff="label_time").to_arrow()
    order = np.random.default_rng(1).permutation(len(spine))
    again = repo.train(spine.take(order), ["w0:x0", "w1:x1"], cutoff="label_time").to_arrow()
    for name in whole.column_names:
        assert bits(whole.take(order)[name]) == bits(again[name])


def test_25_in_chunks_as_in_one_piece(repo):
    spine = random_views(repo, 2)
    whole = repo.train(spine, ["w0:x0", "w1:x1"]).to_arrow()
    chunked = pa.concat_tables([spine.slice(0, 1), spine.slice(1, 0), spine.slice(1, 98), spine.slice(99)])
    pieces = pa.concat_tables(
        repo.train(spine.slice(i, 70), ["w0:x0", "w1:x1"]).to_arrow() for i in range(0, 300, 70)
    )
    of_chunks = repo.train(chunked, ["w0:x0", "w1:x1"]).to_arrow()
    for name in whole.column_names:
        expected = bits(whole[name])
        assert bits(of_chunks[name]) == expected
        assert bits(pieces[name]) == expected


def test_the_offline_table_and_the_source_give_the_same_bytes(tmp_path):
    direct, stored = Repo(tmp_path / "a"), Repo(tmp_path / "b")
    spine = random_views(direct, 4)
    random_views(stored, 4, "offline")
    refs = [f"w{i}:x{i}" for i in range(4)]
    for cutoff in (None, "label_time", T0 + 20):
        one, two = (r.train(spine, refs, cutoff=cutoff).to_arrow() for r in (direct, stored))
        for name in refs:
            assert bits(one[name[-2:]]) == bits(two[name[-2:]])


# ---- defaults and layouts ---------------------------------------------------------------------------------

DEFAULTS = {
    "bool": (True, False), "int32": (7, 1), "int64": (2**53 + 1, 1), "float32": (-0.0, 0.5), "float64": (0.1, 0.5),
    "string": ("none", ""), "bytes": (b"\xff", b""), "timestamp": (T0, T0 + 1), "list<int64>": ([1, 2], []),
    "list<float32>[2]": ([0.5, -0.0], [1.0, 2.0]),
}  # fmt: skip


@pytest.mark.parametrize("backend", ["parquet", "offline"])
def test_a_default_stands_where_no_row_holds_and_never_for_an_explicit_null(backend, repo):
    schema = [Field(f"f{i}", t, default=d) for i, (t, (d, _)) in enumerate(DEFAULTS.items())]
    columns = {
        f"f{i}": pa.array([v, None], arrow_type(parse_dtype(t)))
        for i, (t, (_, v)) in enumerate(DEFAULTS.items())
    }
    rows = pa.table({"u": [1, 2], "ts": ts([1, 1]), **columns})
    repo.view("w", rows, schema, backend=backend, ttl=timedelta(microseconds=5))
    spine = pa.table({"u": [1, 2, 3, 1, None], "event_timestamp": ts([2, 2, 2, 6, 2])})
    made = repo.train(spine, [f"w:f{i}" for i in range(len(schema))])
    for i, (dtype, (default, value)) in enumerate(DEFAULTS.items()):
        column = bits(pa.array([value, None, default, default, default], arrow_type(parse_dtype(dtype))))
        assert values(made, f"f{i}") == column, dtype


def test_rows_older_than_a_field_read_as_its_default_in_training(repo):
    rows = pa.table({"u": [1, 2, 3], "ts": ts([1, 1, 1]), "v": [10, 20, 30]})
    old = repo.view("w", rows, V, backend="offline")
    grown = rows.append_column("new", pa.array([None, None, None], pa.int64()))
    later = pa.table({"u": [2, 3], "ts": ts([5, 5]), "v": [21, 31], "new": pa.array([8, None], pa.int64())})
    write_source(repo.folder, "w", pa.concat_tables([grown, later]), "parquet")
    schema = [*V, Field("new", "int64", default=-1), Field("bare", "string")]
    new = FeatureView("w", entities=old.entities, schema=schema, source=old.source)
    with pytest.raises(InvalidDataError, match="has no column 'bare'"):
        repo.store.apply([new])
        repo.materialize("w")
    write_source(
        repo.folder, "w", pa.concat_tables([grown, later]).append_column("bare", pa.nulls(5, pa.string())),
        "parquet",
    )  # fmt: skip
    repo.materialize("w")
    spine = pa.table({"u": [1, 2, 3, 4], "event_timestamp": ts([9] * 4)})
    made = repo.train(spine, ["w:v", "w:new", "w:bare"])
    assert values(made, "v") == [10, 21, 31, None]
    assert values(made, "new") == [-1, 8, None, -1]  # older than the field; written; written as null; nobody
    assert values(made, "bare") == [None] * 4


# ---- frames -----------------------------------------------------------------------------------------------


def pandas_spine():
    return pd.DataFrame(
        {
            "place": pd.Categorical(["muc", "ber", "muc"]),
            "event_timestamp": pd.date_range("2024-03-10T01:00:00.000009", periods=3, tz="Europe/Berlin"),
            "y": [float("nan"), -0.0, 1.0],
            "n": pd.array([1, None, 2**53 + 1], dtype="Int64"),
            "text": pd.Series(["a", None, "c"], dtype=object),
            "flag": [True, False, True],
            "day": pd.to_datetime(["2024-01-01", None, "2024-01-03"]),
        },
        index=[7, 7, 9],
    )


def test_a_pandas_frame_comes_back_as_it_was_with_nullable_features(repo):
    rows = pa.table({
        "place": ["muc", "ber"], "ts": ts([1, 1]), "i": pa.array([2**53 + 1, None]),
        "f": pa.array([float("nan"), None]), "b": [True, None], "s": ["x", None], "t": ts([3, None]),
        "h": pa.array([1.5, None], pa.float32()),
    })  # fmt: skip
    types = {"i": "int64", "f": "float64", "b": "bool", "s": "string", "t": "timestamp", "h": "float32"}
    repo.view("w", rows, [Field(k, v) for k, v in types.items()], keys={"place": "string"})
    spine = pandas_spine()
    before = spine.copy()
    made = repo.train(spine, [f"w:{k}" for k in types])
    spine["y"] = 0.0  # what we were given is ours: later changes to it are not seen
    frame = made.to_df()
    pd.testing.assert_frame_equal(frame[before.columns], before.reset_index(drop=True), check_exact=True)
    assert frame["y"].to_numpy().tobytes() == before["y"].to_numpy().tobytes()
    assert [str(frame[k].dtype) for k in "ifbsh"] == ["Int64", "Float64", "boolean", "string", "Float32"]
    assert frame["i"].astype(object).where(frame["i"].notna(), None).tolist() == [2**53 + 1, None, 2**53 + 1]
    assert np.isnan(frame["f"].array._data[0]) and frame["f"].array._mask.tolist() == [False, True, False]
    assert frame["t"].isna().tolist() == [False, True, False]
    assert len(frame) == len(made) == 3 and list(frame.columns) == made.schema.names


def test_polars_and_arrow_streams_are_spines_too(repo):
    weather(repo)
    table = SPINE.rename_columns(["place", "dest", "event_timestamp", "y"])
    expected = values(repo.train(table, ["weather:v"]))
    frame = pl.DataFrame(table).with_columns(pl.col("place").cast(pl.Categorical))
    made = repo.train(frame, ["weather:v"])
    assert values(made) == expected
    assert made.to_polars().schema == {**frame.schema, "v": pl.Int64}
    assert made.to_polars()["v"].to_list() == expected == made.to_df()["v"].replace({pd.NA: None}).tolist()
    reader = table.to_reader(max_chunksize=1)
    assert values(repo.store.get_historical_features(reader, ["weather:v"])) == expected
    assert values(repo.train(table.to_batches()[0], ["weather:v"])) == expected
    assert repo.train(table, ["weather:v"]).to_polars()["v"].to_list() == expected


def test_its_repr_is_short(repo):
    weather(repo)
    made = repo.train(SPINE.rename_columns(["place", "d", "event_timestamp", "y"]), ["weather:v"])
    assert repr(made) == "TrainingSet(4 rows; 1 features: v)"


# ---- what is refused --------------------------------------------------------------------------------------


def bad(columns, **changes):
    return pa.table({"place": ["ber"], "event_timestamp": ts([1]), **columns, **changes})


@pytest.mark.parametrize(
    ("spine", "error", "message"),
    [
        (pa.table({"plaze": ["a"], "event_timestamp": ts([1])}), InvalidEntityError,
         r"no column 'place', a join key of view 'weather'\n.*did you mean 'plaze'"),
        (pa.table({"place": ["a"], "event_time": ts([1])}), RequestError,
         r"no column 'event_timestamp' .*\n.*did you mean 'event_time'"),
        (bad({}, place=[1]), InvalidEntityError, r"column 'place': the column is int64, the join key is string"),
        (bad({}, event_timestamp=[1]), InvalidDataError, "the column is int64, the declared type is timestamp"),
        (bad({}, event_timestamp=["soon"]), InvalidDataError, "row 0: 'soon' does not fit timestamp"),
        (pa.table({"place": ["a", "b"], "event_timestamp": ts([1, None])}), InvalidDataError,
         r"column 'event_timestamp', row 1: the label's time is null"),
        (pa.Table.from_arrays([pa.array(["a"]), pa.array(["a"])], ["place", "place"]), RequestError,
         "two columns named 'place'"),
        ({"place": ["a"]}, RequestError, "labels come as a pandas or polars frame or an Arrow table, not dict"),
        (pl.LazyFrame({"place": ["a"]}), RequestError, "not LazyFrame\n.*collect"),
        (pd.DataFrame({"place": ["a"], 3: [1]}), RequestError, "column names are text, not 3"),
        (pd.DataFrame({"place": [1, "a"]}), RequestError, "column 'place': has no one type"),
    ],
)  # fmt: skip
def test_a_wrong_spine_is_refused_with_the_way_out(spine, error, message, repo):
    weather(repo)
    with pytest.raises(error, match=message):
        repo.store.get_historical_features(spine, ["weather:v"])


def test_float_keys_of_pandas_are_refused_with_the_way_out(repo):
    repo.view("w", pa.table({"u": [1], "ts": ts([1]), "v": [1]}), V)
    frame = pd.DataFrame({"u": [1, None], "event_timestamp": pd.to_datetime(["2024-03-11", "2024-03-11"])})
    with pytest.raises(InvalidEntityError, match="Int64"):
        repo.store.get_historical_features(frame, ["w:v"])
    assert values(repo.train(frame.astype({"u": "Int64"}), ["w:v"])) == [1, None]


def test_what_is_asked_for_must_exist(repo):
    view = weather(repo)
    spine = bad({})
    with pytest.raises(UnknownObjectError, match="'weather'"):
        repo.train(spine, ["weathr:v"])
    with pytest.raises(RequestError, match="no features were asked for"):
        repo.train(spine, [])
    with pytest.raises(InvalidEntityError, match="no column 'dest', mapped to 'place', a join key"):
        repo.train(spine, [view.with_join_key_map({"place": "dest"})])


# ---- coverage ---------------------------------------------------------------------------------------------


def test_one_reference_needs_no_list(repo):
    repo.view("w", pa.table({"u": [1], "ts": ts([1]), "v": [1]}), V)
    labels = pa.table({"u": [1], "event_timestamp": ts([1])})
    assert values(repo.train(labels, "w:v")) == values(repo.train(labels, ["w:v"])) == [1]


def test_times_given_as_arguments_are_checked(repo):
    """A date is its midnight; what is no time is refused naming the argument, never a traceback of datetime's."""
    repo.view("w", pa.table({"u": [1], "ts": ts([1]), "v": [1]}), V)
    labels = pa.table({"u": [1], "event_timestamp": ts([1])})
    assert values(repo.train(labels, ["w:v"], cutoff=date(2024, 3, 10))) == [None]
    assert values(repo.train(labels, ["w:v"], cutoff=date(2024, 3, 11))) == [1]
    with pytest.raises(RequestError, match=r"cutoff: 'foo' is not a time.*\n.*or 'label_time'"):
        repo.train(labels, ["w:v"], cutoff="foo")
    with pytest.raises(RequestError, match=r"now: 1.5 is not a time"):
        repo.store.get_online_features(["w:v"], {"u": [1]}, now=1.5)
    with pytest.raises(RequestError, match=r"end: 'later' is not a time"):
        repo.store.materialize("2024-03-10", "later")


def test_labels_outside_the_table_are_refused_naming_range_and_command(repo):
    rows = pa.table({"u": [1, 1], "ts": ts([0, 86_400_000_000]), "v": [1, 2]})
    repo.view("w", rows, V)
    repo.materialize("w", 0, 999_999)
    inside = pa.table({"u": [1], "event_timestamp": ts([999_999])})
    assert values(repo.train(inside, ["w:v"])) == [1]
    outside = pa.table({"u": [1, 1], "event_timestamp": ts([5, 90_000_000_000])})
    with pytest.raises(IncompleteHistoryError) as caught:
        repo.train(outside, ["w:v"])
    text = str(caught.value)
    assert "holds what is from 2024-03-10T00:00:00Z to 2024-03-10T00:00:00.999999Z;" in text
    assert "missing is what is from 2024-03-10T00:00:01Z to 2024-03-11T01:00:00Z" in text
    command = "materializer run --view w --start 2024-03-10T00:00:01Z --end 2024-03-11T01:00:00Z"
    assert command in text and "allow_incomplete=True" in text
    assert values(repo.train(outside, ["w:v"], allow_incomplete=True)) == [1, 1]
    repo.materialize("w", 1_000_000, 90_000_000_001)
    assert values(repo.train(outside, ["w:v"])) == [1, 2]


def test_a_view_without_any_history_is_refused(repo):
    users = Entity("user", "u", "int64")
    repo.store.apply([users, FeatureView("pushed", entities=[users], schema=V)])
    with pytest.raises(
        IncompleteHistoryError, match="nothing is materialized offline, and it has no batch source"
    ):
        repo.train(pa.table({"u": [1], "event_timestamp": ts([1])}), ["pushed:v"])


@pytest.mark.parametrize("what", ["_delta_log/*.json", "event_date=*/*.parquet"])
def test_a_damaged_table_is_named_by_readers_and_writers(what, repo):
    repo.view("w", pa.table({"u": [1], "ts": ts([1]), "v": [1]}), V, backend="offline")
    table = Path(repo.store.config.offline_store) / "tests/w/v1"
    for file in table.glob(what):
        file.write_text("junk")
    with pytest.raises(OfflineStoreError, match=r"tests/w/v1: the offline table cannot be read") as caught:
        repo.train(pa.table({"u": [1], "event_timestamp": ts([1])}), ["w:v"])
    assert len(str(caught.value).splitlines()) == 2, "no stack of Rust"
    with pytest.raises(OfflineStoreError, match=r"tests/w/v1"):
        repo.materialize("w")


def test_a_table_that_is_gone_is_not_an_empty_history(repo, tmp_path):
    import shutil

    repo.view("w", pa.table({"u": [1], "ts": ts([1]), "v": [1]}), V, backend="offline")
    shutil.rmtree(repo.store.config.offline_store)
    with pytest.raises(IncompleteHistoryError, match="there is no table at"):
        repo.train(pa.table({"u": [1], "event_timestamp": ts([1])}), ["w:v"])


def watched(repo, view, watch, **options):
    spine = to_spine(SPINE.rename_columns(["place", "dest", "event_timestamp", "y"]))
    parts = repo.store.snapshot.resolve((view["v"],))
    return build_training_set(
        spine, parts, config=repo.store.config, registry=repo.store.registry, watch=watch, **options
    )


@pytest.mark.parametrize("memory", [None, "8GiB"])
def test_who_watches_is_told_of_every_row_twice_and_that_all_is_done(repo, memory):
    view = repo.view("weather", WEATHER, V, keys={"place": "string"})
    told = []
    watched(repo, view, lambda *of: told.append(of), memory=memory)
    assert told == sorted(told) and told[-1] == ("weather", 2 * len(WEATHER), 2 * len(WEATHER))
    assert {(name, total) for name, _, total in told} == {("weather", 2 * len(WEATHER))}


@pytest.mark.parametrize("format", ["parquet", "csv", "arrow"])
def test_a_file_that_is_written_to_meanwhile_is_an_error(repo, format):
    view = repo.view("weather", WEATHER, V, keys={"place": "string"}, backend=format)

    def write_once(*_):
        if not written:
            written.append(write_source(repo.folder, "weather", WEATHER.slice(1), format))

    written = []
    with pytest.raises(InvalidDataError, match=r"changed while it was read|cannot be read"):
        watched(repo, view, write_once)
    assert written and watched(repo, view, lambda *_: None).features


def test_too_little_memory_is_refused_before_anything_is_read(repo):
    view = repo.view("weather", WEATHER, V, keys={"place": "string"})
    with pytest.raises(RequestError, match=r"(?s)is too little: the process holds .* give [\d,]+MiB or more"):
        watched(repo, view, lambda *_: pytest.fail("it was read"), memory="1MB")
