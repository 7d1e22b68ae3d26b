"""What is known of a shard: one small value in the store, which moves with everything that follows from it.

    {"epoch": 3, "owner": "host-17-a1", "offset": "1700000000000-4", "watermark_us": …, "settled_us": null,
     "buckets": [9, 10],
     "counters": {"entries": …, "events": …, "applied": …, "late": …, "duplicates": …, "dead": …, "rows": …,
                  "takeovers": …}}

An owner that finds other bytes there than those it wrote last has lost the shard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final

from fastserve.errors import StoreError

START: Final = "0-0"
COUNTERS: Final = ("entries", "events", "applied", "late", "duplicates", "dead", "rows", "takeovers")


@dataclass(frozen=True, slots=True)
class ShardState:
    """See the module's docstring.

    Attributes:
        epoch: rises with each owner.
        owner: the worker's name; '' when it was given back.
        offset: the last entry that has been applied.
        watermark_us: the newest event time so far; None before the first event.
        settled_us: events of then or before are a run's, see settled.py; None where no run has said so.
        buckets: of event ids that are kept, see seen.py.
        counters: since the beginning: entries and events read, of these those that were applied, came too late, were
            there already, or were of no use; rows written, each as often as it was; how often the owner changed.
    """

    epoch: int = 0
    owner: str = ""
    offset: str = START
    watermark_us: int | None = None
    settled_us: int | None = None
    buckets: tuple[int, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Equal states are equal bytes."""
        held = {each.name: getattr(self, each.name) for each in fields(self)}
        return json.dumps(held, sort_keys=True, separators=(",", ":")).encode()

    def claimed(self, owner: str) -> ShardState:
        """The same in other hands."""
        taken = self.counters.get("takeovers", 0) + (bool(self.owner) and self.owner != owner)
        counters = {**self.counters, "takeovers": taken}
        return replace(self, epoch=self.epoch + 1, owner=owner, counters=counters)

    def released(self) -> ShardState:
        """The same in nobody's hands."""
        return replace(self, epoch=self.epoch + 1, owner="")


def decode_state(data: bytes | None, where: str) -> ShardState:
    """The state that a store holds; of a shard that nobody has read yet the first one.

    Raises:
        StoreError: it cannot be read.
    """
    if data is None:
        return ShardState()
    try:
        held = json.loads(data)
        counters = {str(name): int(count) for name, count in held["counters"].items()}
        return ShardState(**{**held, "buckets": tuple(held["buckets"]), "counters": counters})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(
            f"the state of a shard cannot be read: {error}",
            where=where,
            hint="a newer fastserve may have written it",
        ) from None


def added(counters: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Sums."""
    return {name: counters.get(name, 0) + more.get(name, 0) for name in COUNTERS}
