"""Hits in one call: answered, missed, not known, of a new snapshot, with a renderer that fails."""

import time
from types import SimpleNamespace

from fastserve._native.hits import HitPath, Kind, Lane, Load
from fastserve.api.shapes import KnownBodies
from fastserve.batch import ReadBatch
from fastserve.cache import RowCache
from fastserve.http.message import Request, Response
from tests.isolated.leak_answers import NUMBERS
from tests.isolated.meter import run

NATIVES = ("hits",)
BODY = b'{"feature_service": "s", "entities": {"id": [%d]}}'
FIRST, SECOND = SimpleNamespace(revision=7), SimpleNamespace(revision=7)


def answer(batch: ReadBatch, n: int, now_us: int) -> Response | None:
    if now_us == 3:
        raise ValueError("as a test wants it")
    return Response(200, "", b"1") if now_us else None


CATALOG, NOW = SimpleNamespace(current=(FIRST, {})), SimpleNamespace(us=0)
BODIES, CACHE, LOAD = KnownBodies(), RowCache(1 << 16), Load(lambda: None)
HITS = HitPath(
    BODIES,
    CATALOG,
    SimpleNamespace(blocked=""),
    CACHE.get_reads,
    SimpleNamespace(since=0),
    LOAD,
    lambda: NOW.us,
)


def learn() -> None:
    BODIES.renew(CATALOG.current[0])
    skeleton = BODIES.table.skeleton(BODY % 1)
    known = SimpleNamespace(lanes={b"x": Lane(answer, [Kind(), Kind()])}, ages_us=(60_000_000,), plan=NUMBERS)
    BODIES.table.add(skeleton, ["int64"], [(b"7:", [0])], known)


def once(i: int) -> None:
    if i % 64 == 0:
        CATALOG.current = (SECOND if CATALOG.current[0] is FIRST else FIRST, {})
        assert HITS.answer(Request("POST", "/", "", [], BODY % 1)) is None
        learn()
        known = ReadBatch([b"7:1"])
        known.fill([None], time.monotonic_ns() // 1_000)
        CACHE.put_many(known, 0, 1)
    NOW.us, LOAD.busy_us = i % 4, 0.0
    request = Request("POST", "/", "", [(b"accept", b"x")], BODY % (2 if i % 8 == 7 else 1))
    try:
        HITS.answer(request)
    except ValueError:
        assert NOW.us == 3
    HITS.answer(Request("POST", "/", "", [(b"accept", b"y"), (b"fastserve-deadline-ms", b"1")], BODY % 1))


if __name__ == "__main__":
    run(once)
