"""Every rule: one bad definition, the object it names, the complaint and the fix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from fastserve import Array, Entity, FeatureService, FeatureView, Field, FileSource, Float32, PushSource
from fastserve.definitions import Definition, FeatureViewProjection
from fastserve.definitions.validate import check, find_problems, join_keys_of, label
from fastserve.errors import DefinitionError
from fastserve.timeutil import MAX_US, MIN_US

USER = Entity("user", "user_id", "int64")
A = Field("a", "int64")
NAME_FIX = "use letters, digits and _, starting with a letter or _, at most 128 characters"


def view(name: Any = "stats", **options: Any) -> FeatureView:
    return FeatureView(name, **{"entities": [USER], "schema": [A]} | options)


def field(*args: Any, **options: Any) -> FeatureView:
    return view(schema=[Field(*args, **options)])


def part(**options: Any) -> FeatureViewProjection:
    return FeatureViewProjection(**{"view": "stats", "version": 1, "features": ("a",)} | options)


def service(*features: Any) -> list[Definition]:
    return [USER, view(), FeatureService("svc", features)]


STATS, FEATURE, SVC = "FeatureView 'stats'", "FeatureView 'stats', feature ", "FeatureService 'svc'"
SOURCE = "FeatureView 'stats', source "

# what it is about -> (definitions, where, message, fix)
RULES: dict[str, tuple[Sequence[Definition], str, str, str]] = {
    "entity twice": (
        [USER, Entity("user", "user_id", "string")],
        "Entity 'user'",
        "is declared twice, differently",
        "rename one, or keep only one of them",
    ),
    "version twice": (
        [USER, view(version=2), view(version=2, ttl="1h")],
        "FeatureView 'stats@v2'",
        "is declared twice, differently",
        "rename one, or keep only one of them",
    ),
    "source twice": (
        [PushSource("p"), PushSource("p", FileSource("x"))],
        "PushSource 'p'",
        "is declared twice, differently",
        "rename one, or keep only one of them",
    ),
    "entity name": ([Entity("a b", "k")], "Entity 'a b'", "'a b' is not a usable name", NAME_FIX),
    "empty name": ([Entity("", "k")], "Entity ''", "'' is not a usable name", NAME_FIX),
    "long name": (
        [Entity("x" * 129, "k")],
        f"Entity '{'x' * 129}'",
        f"'{'x' * 129}' is not a usable name",
        NAME_FIX,
    ),
    "view name": ([USER, view("1st")], "FeatureView '1st'", "'1st' is not a usable name", NAME_FIX),
    "name with a newline": (
        [USER, view("x\n")],
        "FeatureView 'x\n'",
        "'x\\n' is not a usable name",
        NAME_FIX,
    ),
    "name that is no text": ([USER, view(7)], "FeatureView '7'", "7 is not a usable name", NAME_FIX),
    "service name": (
        [USER, view(), FeatureService("a:b", [view()])],
        "FeatureService 'a:b'",
        "'a:b' is not a usable name",
        NAME_FIX,
    ),
    "push source name": ([PushSource("a/b")], "PushSource 'a/b'", "'a/b' is not a usable name", NAME_FIX),
    "inner push source name": (
        [USER, view(source=PushSource("a/b"))],
        SOURCE + "'a/b'",
        "'a/b' is not a usable name",
        NAME_FIX,
    ),
    "description": (
        [Entity("user", description=7)],  # type: ignore[arg-type]
        "Entity 'user'",
        "description is a int",
        "write description as text",
    ),
    "owner": (
        [Entity("user", owner=None)],  # type: ignore[arg-type]
        "Entity 'user'",
        "owner is a NoneType",
        "write owner as text",
    ),
    "tag": (
        [USER, view(tags={"tier": 1})],
        STATS,
        "tag 'tier' is 1",
        "write tags and their values as text",
    ),
    "too few key types": (
        [Entity("pair", ["a", "b"], ["int64"])],
        "Entity 'pair'",
        "has 2 join keys but 1 types",
        "give one type for all, or one per join key",
    ),
    "join key name": (
        [Entity("user", "user-id")],
        "Entity 'user'",
        "join key 'user-id' is not a usable column name",
        "rename it",
    ),
    "reserved join key": (
        [Entity("user", "event_timestamp")],
        "Entity 'user'",
        "join key 'event_timestamp' is not a usable column name",
        "rename it",
    ),
    "join key type": (
        [Entity("user", "user_id", "float64")],
        "Entity 'user'",
        "join key 'user_id' has type 'float64'",
        "a join key is one of string, int64, bool, bytes",
    ),
    "join key twice": (
        [Entity("user", ["k", "k"])],
        "Entity 'user'",
        "names a join key twice",
        "name each join key once",
    ),
    "unknown entity": (
        [USER, view(entities=["usr"])],
        STATS,
        "refers to entity 'usr', which is not declared",
        "declare Entity('usr'); did you mean 'user'?",
    ),
    "one key, two types": (
        [USER, Entity("buyer", "user_id", "string"), view(entities=["user", "buyer"])],
        STATS,
        "join key 'user_id' is int64 in one entity and string in another",
        "give the join key one type in all entities",
    ),
    "version 0": ([USER, view(version=0)], "FeatureView 'stats@v0'", "version is 0", "versions count from 1"),
    "version that is no number": (
        [USER, view(version="2")],
        "FeatureView 'stats@v2'",
        "version is '2'",
        "versions count from 1",
    ),
    "ttl 0": (
        [USER, view(ttl="0s")],
        STATS,
        "ttl is not positive",
        "leave ttl out for rows that hold for ever",
    ),
    "ttl beyond int64": (
        [USER, view(ttl="99999999w")],
        STATS,
        "ttl is longer than time itself",
        "leave ttl out for rows that hold for ever",
    ),
    "no features": ([USER, view(schema=[])], STATS, "has no features", "list at least one Field in schema="),
    "feature name": (
        [USER, field("a-b", "int64")],
        FEATURE + "'a-b'",
        "is not a usable feature name",
        "use letters, digits and _; not starting with __, not one of "
        "event_timestamp, created_timestamp, event_date",
    ),
    "reserved feature name": (
        [USER, field("created_timestamp", "int64")],
        FEATURE + "'created_timestamp'",
        "is not a usable feature name",
        "use letters, digits and _; not starting with __, not one of "
        "event_timestamp, created_timestamp, event_date",
    ),
    "internal feature name": (
        [USER, field("__x", "int64")],
        FEATURE + "'__x'",
        "is not a usable feature name",
        "use letters, digits and _; not starting with __, not one of "
        "event_timestamp, created_timestamp, event_date",
    ),
    "feature named as a key": (
        [USER, field("user_id", "int64")],
        FEATURE + "'user_id'",
        "has the name of a join key",
        "drop it: join keys are always in the answer",
    ),
    "feature twice": (
        [USER, view(schema=[A, Field("a", "string")])],
        FEATURE + "'a'",
        "is declared twice",
        "keep one of them",
    ),
    "feature type": (
        [USER, field("a", "integer")],
        FEATURE + "'a'",
        "unknown type 'integer'; a type is one of bool, int32, int64, float32, float64, timestamp, string, "
        "bytes, list<item> or list<item>[n]",
        "use a type of fastserve.types",
    ),
    "list length": (
        [USER, field("a", "list<float32>[0]")],
        FEATURE + "'a'",
        "the length of a fixed list is 1..65,536, not 0",
        "use a type of fastserve.types",
    ),
    "empty path": (
        [USER, view(source=FileSource("", name="s"))],
        SOURCE + "'s'",
        "has an empty path",
        "name a file, a directory or an URL",
    ),
    "timestamp field": (
        [USER, view(source=FileSource("x", timestamp_field=""))],
        SOURCE + "'x'",
        "has no timestamp_field",
        "name the column with the event time",
    ),
    "format": (
        [USER, view(source=FileSource("x", format="xls"))],
        SOURCE + "'x'",
        "unknown format 'xls'",
        "use one of parquet, csv, arrow, delta",
    ),
    "format of a push source's history": (
        [PushSource("p", FileSource("x", format="xls"))],
        "PushSource 'p'",
        "unknown format 'xls'",
        "use one of parquet, csv, arrow, delta",
    ),
    "field_mapping": (
        [USER, view(source=FileSource("x", field_mapping={"c1": "a", "c2": "a"}))],
        SOURCE + "'x'",
        "field_mapping maps two columns to one name",
        "map each to its own",
    ),
    "empty service": (service(), SVC, "has no features", "list views, view[[…]] or 'view:feature' refs"),
    "unknown view": (
        service("stat:a"),
        SVC,
        "refers to feature view 'stat', which is not declared",
        "declare it; did you mean 'stats'?",
    ),
    "unknown version": (
        service("stats@v3:a"),
        SVC,
        "refers to feature view 'stats@v3', which is not declared",
        "declare it; did you mean 'stats'?",
    ),
    "unknown feature": (
        service("stats:aa"),
        SVC,
        "view 'stats' has no feature 'aa'",
        "name one of its features; did you mean 'a'?",
    ),
    "part without features": (
        service(part(features=())),
        SVC,
        "takes no feature of view 'stats'",
        "name at least one, or drop the view",
    ),
    "alias": (service(part(alias="a b")), SVC, "with_name('a b') is not a usable name", NAME_FIX),
    "join_key_map": (
        service(part(join_key_map={"uid": "x"})),
        SVC,
        "join_key_map names 'uid', which is no join key of 'stats'",
        "its join keys are user_id",
    ),
    "feature twice in a service": (
        service("stats:a", "stats:a"),
        SVC,
        "names stats:a twice",
        "drop one, or give one view an alias by with_name()",
    ),
    "one column, two types": (
        [
            USER,
            Entity("text", "user_id", "string"),
            view(),
            view("other", entities=["text"]),
            FeatureService("svc", ["stats:a", "other:a"]),
        ],
        SVC,
        "reads column 'user_id' as int64 for 'stats' and as string for 'other'",
        "give 'other' a column of its own by with_join_key_map()",
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: str) -> None:
    objects, where, message, fix = RULES[rule]
    with pytest.raises(DefinitionError) as caught:
        check(objects)
    assert [(p.where, p.message, p.fix) for p in caught.value.problems] == [(where, message, fix)]
    assert f"{where}: {message}\n  fix: {fix}" in str(caught.value)


def test_a_source_without_name_and_path() -> None:
    assert [(p.where, p.message, p.fix) for p in find_problems([FileSource("")])] == [
        ("FileSource ''", "has no name", "give it a path or a name"),
        ("FileSource ''", "has an empty path", "name a file, a directory or an URL"),
    ]


DEFAULTS: dict[str, list[Any]] = {
    "bool": [1, "true", 0.0],
    "int32": [True, 1.0, 2**31, -(2**31) - 1, "1"],
    "int64": [2**63, -(2**63) - 1, False, 1.5],
    "float32": [True, "1", b""],
    "float64": ["NaN", [1.0]],
    "timestamp": ["2013-01-01", 1.0, 2**63, MAX_US + 1, MIN_US - 1],
    "string": [1, b"x", ["x"]],
    "bytes": ["x", 1],
    "list<int64>": [1, [1.0], ["1"], [None], "12"],
    "list<float32>[2]": [[1.0], [1.0, 2.0, 3.0], [1.0, True]],
}


@pytest.mark.parametrize(("dtype", "value"), [(d, v) for d, values in DEFAULTS.items() for v in values])
def test_defaults_that_do_not_fit(dtype: str, value: Any) -> None:
    (problem,) = find_problems([USER, field("a", dtype, default=value)])
    assert problem.where == "FeatureView 'stats', feature 'a'"
    assert problem.fix == f"give a default of type {dtype}, or none"


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("bool", False),
        ("int32", -(2**31)),
        ("int64", 2**63 - 1),
        ("float32", 1),
        ("float64", float("nan")),
        ("timestamp", 0),
        ("string", ""),
        ("bytes", b"\x00"),
        ("list<string>", []),
        ("list<bytes>", [b"x"]),
        (Array(Float32, 2), (1.0, 2.0)),
        ("int64", None),
    ],
)
def test_defaults_that_fit(dtype: str, value: Any) -> None:
    check([USER, field("a", dtype, default=value)])


def test_all_problems_at_once() -> None:
    objects = [
        Entity("bad name", "event_date", "float64"),
        view("stats", entities=["who"], schema=[Field("x", "y"), Field("x", "int64")], ttl="0s"),
        FeatureService("svc", ["nowhere:a", "stats:z"]),
    ]
    with pytest.raises(DefinitionError) as caught:
        check(objects)
    assert len(caught.value.problems) == 9
    assert str(caught.value).startswith("9 problems in the definitions\n- Entity 'bad name': ")
    assert str(caught.value).count("fix: ") == 9


def test_what_is_allowed() -> None:
    pair = Entity("pair", ["x", "y"], ["int64", "string"])
    two = view(version=2, schema=[Field("b", "string")])
    check(
        [
            USER,
            USER,  # the same object twice is one object
            pair,
            view(),
            two,
            view("global_view", entities=[], source=PushSource("p")),
            view("pairs", entities=[pair, USER]),
            PushSource("p"),
            FeatureService(
                "svc",
                ["stats:b", "stats@v1:a", view().with_name("again"), "pairs:a", "global_view:a"],
            ),
        ]
    )
    check([])


def test_a_ref_without_version_means_the_newest() -> None:
    two = view(version=2, schema=[Field("b", "string")])
    (problem,) = find_problems([USER, view(), two, FeatureService("svc", ["stats:a"])])
    assert problem.message == "view 'stats' has no feature 'a'"


def test_labels_and_join_keys() -> None:
    assert label(view()) == "FeatureView 'stats'"
    assert label(view(version=3)) == "FeatureView 'stats@v3'"
    pair = Entity("pair", ["z", "b"], ["int64", "string"])
    keys = join_keys_of(view(entities=[USER, pair]), {"user": USER, "pair": pair})
    assert list(keys.items()) == [("b", "string"), ("user_id", "int64"), ("z", "int64")]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"ttl": "2d", "retention": "1d"}, "retention 1d is shorter than ttl 2d"),
        ({"retention": "1d"}, "has a retention but no ttl"),
        ({"ttl": "2d", "retention": "0s"}, "retention is not positive"),
        ({"ttl": "2d", "retention": "9999999d"}, "retention is longer than time itself"),
        ({"ttl": "2d", "retention": "2d"}, ""),
    ],
)
def test_what_may_still_be_the_answer_is_kept(options: dict[str, str], problem: str) -> None:
    view = FeatureView("v", schema=[Field("a", "int64")], **options)
    assert [p.message for p in find_problems([view])] == ([problem] if problem and "but no" not in problem else
        [f"{problem}, so that its rows hold for ever"] if problem else [])  # fmt: skip
