"""The seam to where logs, states and rows of feeds lie. What is in them is the worker's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from fastserve.batch import ReadBatch
from fastserve.errors import FastserveError
from fastserve.hashes.mixing import Words
from fastserve.streaming.entries import DeadLetter, Entry
from fastserve.streaming.feeds import Feed


class LostShardError(FastserveError):
    """Another worker owns the shard now; nothing was written."""


class MovedError(FastserveError):
    """A guard holds another value than the worker went by; nothing was written."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What one transaction writes.

    Attributes:
        state: of the shard, encoded.
        rows: keys with their rows, all of them.
        ids: bucket -> words, kept from now on.
        let_go: buckets that are not kept any more.
        dead: for the feed's dead letters.
    """

    state: bytes
    rows: Sequence[ReadBatch] = ()
    ids: Mapping[int, Words] = field(default_factory=dict)
    let_go: Sequence[int] = ()
    dead: Sequence[DeadLetter] = ()


@dataclass(frozen=True, slots=True)
class Correction:
    """A row to be put right.

    Attributes:
        held: what the key holds, to the byte; None for nothing.
        row: what it is to hold.
        lifetime_us: how long from now on the store has to keep it at least; not positive: no longer.
    """

    key: bytes
    held: bytes | None
    row: bytes
    lifetime_us: int


DEAD_LETTERS: Final = 10_000
"""So many of a feed's are kept, the last ones."""

Work = Callable[[], Changes]
Place = tuple[Feed, int]


class FeedStore(Protocol):
    """What a worker and a producer need of a store. One object belongs to one thread.

    Every method raises StoreError when the store does not answer.

    Attributes:
        lanes: so many shards may be worked on at once, by threads; with 1 the object really belongs to one.
    """

    lanes: int

    def shard_count(self, feed: Feed, wanted: int) -> int:
        """How many shards the feed has; `wanted`, for ever, where it had none yet."""
        ...

    def append(self, entries: Sequence[tuple[Feed, int, Mapping[bytes, bytes]]]) -> None:
        """Add entries to logs, in order; on an error some of them may be there."""
        ...

    def entries(self, feed: Feed, shard: int, after: str, count: int) -> list[Entry]:
        """At most `count` entries behind one."""
        ...

    def wait(self, places: Mapping[Place, str], seconds: float) -> None:
        """Return when there is an entry behind one of these, or after some time."""
        ...

    def states(self, places: Sequence[Place]) -> list[bytes | None]:
        """The shards' states."""
        ...

    def swap(self, feed: Feed, shard: int, held: bytes | None, state: bytes) -> bool:
        """Replace a shard's state, unless it is not `held`."""
        ...

    def exchange(self, held: Mapping[bytes, bytes | None], new: Mapping[bytes, bytes]) -> bool:
        """Set keys, unless some do not hold what is given, None for nothing."""
        ...

    def ids(self, feed: Feed, shard: int, buckets: Sequence[int]) -> dict[int, Words]:
        """The words of buckets."""
        ...

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Of any keys."""
        ...

    def apply(
        self,
        feed: Feed,
        shard: int,
        held: bytes,
        guards: Mapping[bytes, bytes | None],
        keys: ReadBatch,
        work: Work,
    ) -> Changes:
        """Fill in the rows that are UNKNOWN, work, and write what comes of it: as if at one instant, or not at all.

        Args:
            held: what the shard's state must be.
            guards: what other keys must hold.
            keys: whose rows are wanted.
            work: called when all of them are known.

        Raises:
            LostShardError: the state is another one.
            MovedError: a guard holds something else, or the state, a guard or `corrected` was written to meanwhile.
        """
        ...

    def correct(self, feed: Feed, shard: int, rows: Sequence[Correction]) -> list[bool]:
        """Put rows of a shard's entities right, each unless its key holds something else by now; which ones were.

        A worker whose `apply` has read one of them before writes nothing of what it made of it. The shard's key
        `corrected` holds something else from then on: who kept rows looks there.
        """
        ...

    def beat(self, project: str, worker: str, alive_s: float) -> list[str]:
        """Note that a worker lives; the names of all that did within `alive_s`, sorted."""
        ...

    def leave(self, project: str, worker: str) -> None:
        """The worker is gone."""
        ...

    def trim(self, feed: Feed, shard: int, before: str, older_than_us: int, *, archived: bool) -> int:
        """Drop entries that are both before one and older, and archived if that is asked for; how many."""
        ...

    def note_archived(self, feed: Feed, places: Mapping[int, str]) -> None:
        """Shard -> up to which entry, that included, the offline store has it."""
        ...

    def last(self, feed: Feed, shard: int) -> str:
        """The entry that was added to a log last, whether it is still there or not; START if there was none."""
        ...

    def added(self, feed: Feed, shard: int) -> int | None:
        """How many entries were ever added to a log; None where that is not known."""
        ...

    def close(self) -> None:
        """Give up its connections."""
        ...


def check_held(feed: Feed, shard: int, wanted: Sequence[bytes | None], found: Sequence[bytes | None]) -> None:
    """Raise LostShardError or MovedError unless a shard's state, and after it the guards, hold what is wanted."""
    if found[0] != wanted[0]:
        raise LostShardError("another worker owns the shard", where=f"{feed.name}, shard {shard}")
    if list(found) != list(wanted):
        raise MovedError("the rows that are served were switched", where=feed.name)
