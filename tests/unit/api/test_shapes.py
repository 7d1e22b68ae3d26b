"""Bodies known by their skeleton: the twins agree, and what is taken is what parsing the body gives."""

from __future__ import annotations

import importlib
import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.api.shapes import KnownBodies, entity_columns
from fastserve.codec.keys import KeyEncoder
from tests.unit.serving.world import World

MODULES = {"py": "fastserve.api.shapes_py", "native": "fastserve._native.shapes"}
Table = Any

IDS = st.integers(-(2**63), 2**63 - 1) | st.integers(-20, 20)
NAMES = st.text(max_size=8) | st.text('ab|%\x7f"\\[], ', max_size=6)
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", ":\t")])


@pytest.fixture(params=list(MODULES))
def table(request: pytest.FixtureRequest) -> Table:
    if request.param == "native":
        pytest.importorskip(MODULES["native"])
    return importlib.import_module(MODULES[request.param]).ShapeTable()


def learned(
    table: Table, template: bytes, key_types: list[str], reads: list[tuple[bytes, list[int]]]
) -> None:
    skeleton = table.skeleton(template)
    assert skeleton is not None
    table.add(skeleton, key_types, reads, "plan")


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(IDS, NAMES), min_size=1, max_size=6), SEPARATORS)
@pytest.mark.parametrize("which", list(MODULES))
def test_keys_are_those_of_the_key_encoder(which: str, rows: list[tuple[int, str]], separators: Any) -> None:
    table = pytest.importorskip(MODULES[which]).ShapeTable()
    ids, names = [i for i, _ in rows], [name for _, name in rows]

    def body(ids: list[int], names: list[str]) -> bytes:
        data = {"feature_service": "s", "entities": {"id": ids, "name": names}}
        return json.dumps(data, ensure_ascii=False, separators=separators).encode()

    learned(table, body([1], ["a"]), ["int64", "string"], [(b"7:", [1, 0]), (b"z:", [0])])
    found = table.match(body(ids, names))
    plain = all(abs(i) < 10**18 for i in ids) and all(
        name.isascii() and name.isprintable() and not set(name) & set('"\\|%[]') for name in names
    )
    if found is None:
        assert not plain, "an ordinary request is known"
        return
    known, batch, n = found
    wanted = KeyEncoder(7, ["string", "int64"]).encode([names, ids], n)
    wanted += KeyEncoder(35, ["int64"]).encode([ids], n)
    assert (known, n, batch.keys()) == ("plan", len(rows), wanted)


BODY = b'{"feature_service":"s","entities":{"id":[%b]}}'


@pytest.mark.parametrize(
    "items",
    [b"", b" ", b"01", b"-0", b"1.0", b"1e3", b"+1", b"1,", b",1", b"1 2", b"--1", b"-", b"null", b"true", b'"1"',
     b"[1]", b"1]", b"[", b"1234567890123456789", b"1,,2", b'"a', b"\xff", b"1\x00"],
)  # fmt: skip
def test_what_is_no_plain_list_of_integers_is_left_to_the_parser(table: Table, items: bytes) -> None:
    learned(table, BODY % b"1", ["int64"], [(b"1:", [0])])
    assert table.match(BODY % items) is None


@pytest.mark.parametrize(
    "items",
    [b"1", b'"a\\n"', b'"\xc5\xbc"', b'"a|b"', b'"50%"', b'"a', b'a"', b'"a""b"', b'"a" "b"', b'"a",',
     b'"\x1f"', b'"\x7f"', b'"]"'],
)  # fmt: skip
def test_what_is_no_list_of_plain_texts_is_left_to_the_parser(table: Table, items: bytes) -> None:
    learned(table, BODY % b'"a"', ["string"], [(b"1:", [0])])
    assert table.match(BODY % items) is None


@pytest.mark.parametrize(("items", "keys"), [
    (b"0", [b"1:0"]),
    (b" -7 ,\t8\r\n", [b"1:-7", b"1:8"]),
    (b"999999999999999999", [b"1:999999999999999999"]),
])  # fmt: skip
def test_integers_of_any_spacing(table: Table, items: bytes, keys: list[bytes]) -> None:
    learned(table, BODY % b"1", ["int64"], [(b"1:", [0])])
    found = table.match(BODY % items)
    assert found is not None and found[1].keys() == keys and found[2] == len(keys)


def test_a_text_may_hold_commas(table: Table) -> None:
    learned(table, BODY % b'"a"', ["string"], [(b"1:", [0])])
    found = table.match(BODY % b'"a,b", ",","" ')
    assert found is not None and found[1].keys() == [b"1:a,b", b"1:,", b"1:"]


def test_other_texts_around_the_lists_are_other_requests(table: Table) -> None:
    learned(table, BODY % b"1", ["int64"], [(b"1:", [0])])
    for body in (b"", b"{}", BODY % b"1" + b" ", BODY.replace(b"id", b"ix") % b"1", BODY[:-1] % b"1",
                 b'{"feature_service":"s","entities":{"id":[1],"id":[2]}}'):  # fmt: skip
        assert table.match(body) is None
    assert table.match(BODY % b"1") is not None
    table.forget(table.skeleton(BODY % b"5"))
    assert table.match(BODY % b"1") is None and len(table) == 0


def test_bounds(table: Table) -> None:
    learned(table, BODY % b"1", ["int64"], [(b"1:", [0])])
    most = table.match(BODY % b",".join([b"1"] * 10_000))
    assert most is not None and most[2] == len(most[1]) == 10_000
    assert table.match(BODY % b",".join([b"1"] * 10_001)) is None
    assert table.skeleton(b'{"entities":{"a":[' + b" " * (1 << 20) + b"]}}") is None
    assert table.skeleton(b" " * 4_096 + BODY % b"1") is None
    assert table.skeleton(b'{"entities":{' + b",".join(b'"a%d":[1]' % i for i in range(9)) + b"}}") is None
    for bad in (["bool"], [], ["int64"] * 9):
        with pytest.raises(ValueError, match="key"):
            table.add(b"x", bad, [], None)
    with pytest.raises(ValueError, match="columns"):
        table.add(b"x", ["int64"], [(b"1:", [1])], None)


@pytest.mark.parametrize(("body", "names"), [
    ({"feature_service": "s", "entities": {"a": [1]}}, ["a"]),
    ({"entities": {"b": ["x"], "a": [1]}, "features": ["v:f"]}, None),
    ({"features": ["v:f", "v:g"], "entities": {"b": ["x"], "a": [1]}}, ["b", "a"]),
    ({"features": ["entities"], "entities": {"a": [1]}}, None),
])  # fmt: skip
def test_which_lists_are_columns(body: dict[str, Any], names: list[str] | None) -> None:
    text = orjson.dumps(body)
    skeleton = KnownBodies().table.skeleton(text)
    assert skeleton is not None and entity_columns(text, skeleton) == names


@pytest.mark.parametrize("text", [
    b'{"entities":{"a":[1]},"entities":{"a":[2]}}',
    b'{"entities":{"a":[1],"a":[2]}}',
    b'{"entities":{"a":[1]},"x":[1]}',
    b'{"entities":{"a":["]"]}}',
])  # fmt: skip
def test_lists_that_are_no_columns_are_not_learned(text: bytes) -> None:
    skeleton = KnownBodies().table.skeleton(text)
    assert skeleton is None or entity_columns(text, skeleton) is None


def test_a_body_is_known_the_third_time_until_the_registry_changes(world: World) -> None:
    known, snapshot = KnownBodies(), world.catalog.snapshot
    plan = world.catalog.plan("", ("kinds:big", "places:people"), False)
    body = orjson.dumps({"features": ["kinds:big", "places:people"],
                         "entities": {"country": ["a"], "user_id": [1], "city": ["b"]}})  # fmt: skip
    for _ in range(2):
        assert known.match(body, snapshot) is None
        known.learn(body, plan)
    found = known.match(body.replace(b"[1]", b"[42]"), snapshot)
    assert found is not None
    same = world.read_path.encode(plan, {"user_id": [42], "city": ["b"], "country": ["a"]}, 1)
    assert found[0].plan is plan and found[1].keys() == same.keys() and found[2] == 1
    again = world.registry.snapshot()
    assert known.match(body, again) is None or again is snapshot


@pytest.mark.parametrize("features", [["devices:battery"], ["global_stats:total", "kinds:big"]])
def test_other_keys_are_not_learned(world: World, features: list[str]) -> None:
    known = KnownBodies()
    plan = world.catalog.plan("", tuple(features), False)
    body = orjson.dumps({"features": features, "entities": {name: ["x"] for name in plan.entity_columns}})
    for _ in range(3):
        assert known.match(body, world.catalog.snapshot) is None
        known.learn(body, plan)
