"""Which views a queued or running job is about, of either kind that materializes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from fastserve import Entity, FeatureView, Field, FileSource
from fastserve.errors import RequestError, UnknownObjectError
from fastserve.jobs.materialize import backfill_args, overlapping
from fastserve.types import Int64
from tests.unit.registry.snapshots import snapshot_of

USER = Entity("user")
SOURCE = FileSource("data", timestamp_field="t")
A, B = (FeatureView(n, entities=[USER], schema=[Field("x", Int64)], source=SOURCE) for n in "ab")
SNAPSHOT = snapshot_of([USER, A, B])


@dataclass
class Waiting:
    """What of a job counts here."""

    kind: str
    args: dict[str, Any]


def test_a_backfill_keeps_its_view_busy() -> None:
    jobs: list[Any] = [Waiting("backfill", {"view": "b"}), Waiting("refresh", {"view": "a"})]
    assert overlapping(SNAPSHOT, ["a"], jobs) == set()
    assert overlapping(SNAPSHOT, ["b@v1"], jobs) == overlapping(SNAPSHOT, [], jobs) == {2}
    jobs.append(Waiting("materialize", {"views": []}))
    assert overlapping(SNAPSHOT, ["a"], jobs) == {1}


def test_what_a_backfill_may_be_asked() -> None:
    made = backfill_args(SNAPSHOT, "a", end_us=5, workers=3)
    assert made == {"view": "a", "start_us": None, "end_us": 5, "target": None, "workers": 3, "again": False}
    with pytest.raises(UnknownObjectError):
        backfill_args(SNAPSHOT, "c")
    with pytest.raises(RequestError, match="start is after end"):
        backfill_args(SNAPSHOT, "a", start_us=2, end_us=1)
