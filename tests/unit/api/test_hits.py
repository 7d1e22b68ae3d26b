"""Hits in one call, both twins: what is a hit, what is left to the general way, and what it tells of its work."""

from __future__ import annotations

import importlib
import os
import time
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from fastserve.api.hits_py import CHEAP_US, SLICE_US, Missed
from fastserve.api.shapes import KnownBodies
from fastserve.api.tensor_answer import hit_tensor
from fastserve.batch import ReadBatch
from fastserve.cache import RowCache
from fastserve.http.message import Request, Response
from tests.support import NOW_US
from tests.unit.serving.world import World


class Case:
    """A HitPath over a real table, cache and renderer; the rest of a server is what a test says."""

    def __init__(self, world: World, name: str) -> None:
        self.module: Any = importlib.import_module(
            {"py": "fastserve.api.hits_py", "native": "fastserve._native.hits"}[name]
        )
        self.plan = world.catalog.plan("", ("kinds:single", "kinds:flag"), False)
        self.bodies, self.cache = KnownBodies(), RowCache(1 << 20)
        self.catalog = SimpleNamespace(current=(world.catalog.snapshot, {}))
        self.read_path, self.trust = SimpleNamespace(blocked=""), SimpleNamespace(since=0)
        self.scheduled = 0
        self.judged: list[float] = []
        self.load = self.module.Load(self.schedule, lambda: self.judged.append(self.load.busy_us))
        self.hits = self.module.HitPath(
            self.bodies,
            self.catalog,
            self.read_path,
            self.cache.get_reads,
            self.trust,
            self.load,
            lambda: NOW_US,
        )
        for _ in range(2):
            self.bodies.match(self.body(1), self.catalog.current[0])
            self.bodies.learn(self.body(1), self.plan)

    def schedule(self) -> None:
        self.scheduled += 1
        self.load.scheduled = True

    def body(self, *ids: int) -> bytes:
        return orjson.dumps({"features": ["kinds:single", "kinds:flag"], "entities": {"user_id": ids}})

    def ask(self, *ids: int, headers: list[tuple[bytes, bytes]] | None = None) -> Any:
        headers = [(b"accept", b"tensor")] if headers is None else headers
        return self.hits.answer(Request("POST", "/x", "", headers, self.body(*ids)))

    def cached(self, *ids: int) -> None:
        """No row for these, fetched just now."""
        batch = ReadBatch(self.plan.reads[0].keys.encode([list(ids)], len(ids)))
        batch.fill([None] * len(ids), time.monotonic_ns() // 1_000)
        self.cache.put_many(batch, 0, len(ids))

    def with_lane(self) -> Any:
        """Hits in the tensor form are answered from now on; its first kind of work."""
        missed = self.ask(1)
        assert isinstance(missed, Missed) and not missed.looked
        lane = self.module.Lane(hit_tensor(self.plan), [self.module.Kind() for _ in range(64)])
        missed.known.lanes[b"tensor"] = lane
        return lane


@pytest.fixture(params=["py", "native"])
def case(request: pytest.FixtureRequest, world: World) -> Case:
    if request.param == "native" and os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
        pytest.skip("a pure-Python install")
    return Case(world, request.param)


def test_a_hit_is_answered_and_counted(case: Case) -> None:
    lane = case.with_lane()
    case.cached(1, 2, 3)
    for asked in ((1, 2, 3), (2,)):
        answer = case.ask(*asked)
        assert isinstance(answer, Response) and answer.status == 200
        assert bytes(answer.body)[-len(asked) :] == bytes([3]) * len(asked), "NOT_FOUND each"
    assert not case.scheduled and case.load.busy_us > 0
    assert lane.kinds[2].work_us != 50 and lane.kinds[1].work_us != 50 and lane.kinds[0].work_us == 50


def test_the_load_is_looked_at_once_there_was_work_worth_a_look(case: Case) -> None:
    case.with_lane()
    case.cached(1)
    case.load.busy_us = case.load.look_us
    for _ in range(2):
        assert isinstance(case.ask(1), Response)
    assert case.scheduled == 1
    case.load.scheduled, case.load.busy_us, case.load.look_us = False, 0.0, 0.0
    assert isinstance(case.ask(1), Response) and case.scheduled == 2


def test_an_unknown_body_is_for_the_parser(case: Case) -> None:
    assert case.hits.answer(Request("POST", "/x", "", [], b'{"entities":{"user_id":[1]}}')) is None


def test_rows_that_the_cache_lacks_are_left_in_the_batch(case: Case) -> None:
    case.with_lane()
    case.cached(1)
    missed = case.ask(1, 2)
    assert isinstance(missed, Missed) and missed.looked and missed.n == 2
    assert missed.batch.missing == 1 and missed.known.plan is case.plan
    assert case.load.busy_us == 0, "the general way counts its work"


@pytest.mark.parametrize(
    "why", ["closed", "busy", "queued", "blocked", "no feed", "other form", "new deadline"]
)
def test_what_is_no_hit_is_not_looked_up(case: Case, why: str) -> None:
    case.with_lane()
    case.cached(1)
    headers = [(b"accept", b"tensor")]
    if why == "closed":
        case.load.open = False
    elif why == "busy":
        case.load.busy_us = SLICE_US
    elif why == "queued":
        case.load.queued = True
    elif why == "blocked":
        case.read_path.blocked = "another registry's"
    elif why == "no feed":
        case.trust.since = 2**62
    elif why == "other form":
        headers = [(b"accept", b"json")]
    else:
        headers = [*headers, (b"fastserve-deadline-ms", b"50")]
    missed = case.ask(1, headers=headers)
    assert isinstance(missed, Missed) and not missed.looked and missed.batch.missing == 1
    if why == "new deadline":
        case.hits.deadlines.add(b"50")
        assert isinstance(case.ask(1, headers=headers), Response)


def test_what_is_no_more_work_than_to_queue_it_is_answered_whatever_waits(case: Case) -> None:
    lane = case.with_lane()
    case.cached(1)
    lane.kinds[1].work_us = CHEAP_US
    case.load.queued, case.load.busy_us = True, 2 * SLICE_US
    assert isinstance(case.ask(1), Response)
    case.load.open = False
    assert isinstance(case.ask(1), Missed)


def test_a_slice_that_is_over_is_told_where_nothing_is_to_be_queued(case: Case) -> None:
    case.with_lane()
    case.cached(1)
    case.load.slice_us = 2 * SLICE_US
    case.load.busy_us = case.load.slice_us - 1e-9
    assert isinstance(case.ask(1), Response) and not case.judged, "it would only be queued"
    case.load.strict, case.load.busy_us = True, 0.0
    case.load.slice_us = 1e9
    assert isinstance(case.ask(1), Response) and not case.judged
    case.load.slice_us = 1e-9
    case.load.busy_us = 0.0
    assert isinstance(case.ask(1), Response)
    assert case.judged == [case.load.busy_us]


def test_rows_older_than_the_feed_do_not_count(case: Case) -> None:
    case.with_lane()
    case.cached(1)
    case.trust.since = time.monotonic_ns() // 1_000 + 1
    while time.monotonic_ns() // 1_000 <= case.trust.since:
        pass
    missed = case.ask(1)
    assert isinstance(missed, Missed) and missed.looked


def test_the_first_accept_counts(case: Case) -> None:
    case.with_lane()
    case.cached(1)
    assert isinstance(case.ask(1, headers=[(b"accept", b"tensor"), (b"accept", b"x")]), Response)
    assert isinstance(case.ask(1, headers=[(b"accept", b"x"), (b"accept", b"tensor")]), Missed)
    assert isinstance(case.ask(1, headers=[]), Missed)


def test_a_renderer_that_passes_leaves_the_rows(case: Case) -> None:
    missed = case.ask(1)
    missed.known.lanes[b"tensor"] = case.module.Lane(lambda batch, n, now: None, [case.module.Kind()] * 2)
    case.cached(1)
    passed = case.ask(1)
    assert isinstance(passed, Missed) and passed.looked and passed.batch.missing == 0


def test_a_new_snapshot_forgets_the_bodies(case: Case, world: World) -> None:
    case.with_lane()
    case.cached(1)
    assert isinstance(case.ask(1), Response)
    case.catalog.current = (world.registry.snapshot(), {})
    assert case.catalog.current[0] is not case.bodies.snapshot
    assert case.ask(1) is None and len(case.bodies.table) == 0
