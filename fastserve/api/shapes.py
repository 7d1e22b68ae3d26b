"""What a body asks for, known from its skeleton (shapes_py.py), for the plans of one registry revision."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from fastserve.batch import ReadBatch
from fastserve.registry import Snapshot
from fastserve.serving.plan import ReadPlan

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from fastserve.api.shapes_py import ShapeTable
else:
    try:
        from fastserve._native.shapes import ShapeTable
    except ImportError:
        from fastserve.api.shapes_py import ShapeTable

__all__ = ["Known", "KnownBodies", "ShapeTable"]

MAX_SHAPES: Final = 1_024


@dataclass(slots=True, eq=False)
class Known:
    """What bodies of one skeleton ask for.

    Attributes:
        plan: of the snapshot that is served.
        ages_us: how old a cached row of each read may be.
        lanes: Accept header -> what answers hits in the form that it chooses.
    """

    plan: ReadPlan
    ages_us: tuple[int, ...]
    lanes: dict[bytes | None, Any] = field(default_factory=dict)


class KnownBodies:
    """Skeletons that were seen twice.

    Learning a skeleton takes longer than reading a body: one that is seen once, as from a client that asks for other
    features each time, is not worth it.

    Attributes:
        snapshot: whose plans they ask for.
        table: of them.
    """

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        self.table: ShapeTable[Known] = ShapeTable()
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def renew(self, snapshot: Snapshot) -> None:
        """Forget all: plans are of another snapshot now."""
        self.snapshot = snapshot
        self.table = ShapeTable()
        self._seen.clear()

    def match(self, body: bytes, snapshot: Snapshot) -> tuple[Known, ReadBatch, int] | None:
        """What is known, the encoded keys and the number of entities; None where the body has to be parsed."""
        if snapshot is not self.snapshot:
            self.renew(snapshot)
        return self.table.match(body)

    def learn(self, body: bytes, plan: ReadPlan) -> None:
        """A body that was parsed asks for this plan, of the snapshot that `match` was last asked about."""
        skeleton = self.table.skeleton(body)
        if skeleton is None or plan.revision != getattr(self.snapshot, "revision", None):
            return
        if skeleton not in self._seen:
            self._seen[skeleton] = None
            if len(self._seen) > MAX_SHAPES:
                self._seen.popitem(last=False)
            return
        columns = entity_columns(body, skeleton)
        if columns is None or not {"int64", "string"}.issuperset(plan.entity_columns.values()):
            return
        if columns != list(plan.entity_columns) and sorted(columns) != sorted(plan.entity_columns):
            return
        if not all(read.key_columns for read in plan.reads):
            return
        if len(self.table) >= MAX_SHAPES:
            self.table = ShapeTable()
        reads = [
            (read.keys.prefix, [columns.index(name) for name in read.key_columns]) for read in plan.reads
        ]
        self.table.add(
            skeleton, [plan.entity_columns[name] for name in columns], reads, Known(plan, plan.max_ages_us)
        )


def entity_columns(body: bytes, skeleton: bytes) -> list[str] | None:
    """The columns whose lists the skeleton leaves out, in their order; None if it leaves out anything else."""
    data: dict[str, Any] = orjson.loads(body)
    try:
        bare = orjson.loads(skeleton)
    except orjson.JSONDecodeError:
        return None
    names = list(data.get("entities", {}))
    emptied = data | {"entities": {name: [] for name in names}}
    if bare != emptied or list(bare["entities"]) != names or skeleton.count(b'"entities"') != 1:
        return None
    # As many holes as columns: then each is one, for every column is a list of the body after "entities".
    holes = skeleton.partition(b'"entities"')[2].count(b"[]")
    return names if holes == len(names) else None
