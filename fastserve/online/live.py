"""Which rows of a view are served. A small key in the store says so, and one write of it moves all readers.

    !live:<view id>     {"live": 17, "other": 5, "role": "kept", "since_us": …, "until_us": …}

A view's rows are a *row set*: keys that begin with the set's online id. There is a second set while one is built beside
the served one (`building`), and for a while after the switch, for a rollback (`kept`). Without the key a view has
one set, the one the registry names. A view that was retired has none (`retired`), and the key stays: it tells those who
cannot ask the registry.

    writers     write to every set, then look again (`fresh`): a write counts when a look that began after it names no
                set that it is not in. So a write that counts is in the set before it is built from the history, or
                goes into both: a switch, or a rollback, loses nothing. No clock has a part in this.
    readers     follow the key, which lies where the rows lie: whoever reaches the rows reaches it.
    movers      replace the key they have read: it carries a number, where a row has its order, and the newest wins,
                so of two who move at a time the second one is told.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal, TypeAlias

from fastserve.errors import AlreadyRunningError, StoreError
from fastserve.online.base import OnlineStore

Role: TypeAlias = Literal["", "building", "kept", "retired"]

SURE_US: Final = 30_000_000
"""How long a server goes by what it last read of a key."""
MIN_KEEP_US: Final = 2 * SURE_US
"""How long rows that were served are kept at least."""

_ZEROS: Final = bytes(8)
_TEXT_AT: Final = 24


@dataclass(frozen=True, slots=True)
class RowSets:
    """The row sets of a view.

    Attributes:
        view_id: the view.
        live: the online id of the set that is served.
        other: that of the second set; None where there is none.
        role: what the second set is: `building`, or `kept` for a rollback; or `retired`, when there is none at all.
        since_us: when that became so, microseconds UTC.
        until_us: a kept set is not reclaimed before then.
        number: counts the moves; 0 where the store has no key.
    """

    view_id: int
    live: int
    other: int | None = None
    role: Role = ""
    since_us: int = 0
    until_us: int = 0
    number: int = 0

    @property
    def ids(self) -> tuple[int, ...]:
        """Every set that a writer writes to, the served one first; none of a retired view."""
        if self.role == "retired":
            return ()
        return (self.live,) if self.other is None else (self.live, self.other)


async def look(store: OnlineStore, known: Mapping[int, int]) -> dict[int, RowSets]:
    """The row sets of views, by view id, as the store has them now.

    Args:
        known: view id -> the online id that the registry names, for a view without a key.

    Raises:
        StoreError: the store did not answer, or a key holds what cannot be read.
    """
    if not known:
        return {}
    rows = store.get_fresh([live_key(view_id) for view_id in known])
    found = await rows if isinstance(rows, asyncio.Future) else rows
    return {
        view_id: RowSets(view_id, live) if row is None else parsed(view_id, row)
        for (view_id, live), row in zip(known.items(), found, strict=True)
    }


async def move(store: OnlineStore, before: RowSets, after: RowSets) -> RowSets:
    """Replace what was read, `before`; returns what the store holds now: `after`, with its number.

    An error leaves open whether it moved; look again.

    Raises:
        AlreadyRunningError: somebody else moved since; nothing was changed.
        StoreError: the store did not answer.
    """
    after = replace(after, number=before.number + 1)
    row = _ZEROS + after.number.to_bytes(8, "big") + _ZEROS + _text(after).encode()
    if not await store.put_many([live_key(before.view_id)], [row]):
        raise AlreadyRunningError(
            "somebody else has moved the view's row sets",
            where=f"view id {before.view_id}",
            hint="look at what it did, then run this again",
        )
    return after


def live_key(view_id: int) -> bytes:
    """The key of a view's row sets."""
    return b"!live:%d" % view_id


def _text(sets: RowSets) -> str:
    held = asdict(sets)
    return json.dumps({name: held[name] for name in ("live", "other", "role", "since_us", "until_us")})


def parsed(view_id: int, row: bytes) -> RowSets:
    """The row sets that the value of a view's key says.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        sets = RowSets(view_id, **json.loads(row[_TEXT_AT:]), number=int.from_bytes(row[8:16], "big"))
        if not all(isinstance(online_id, int) and online_id >= 0 for online_id in sets.ids):
            raise ValueError("an online id is a number")
        return sets
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"what says which rows are served cannot be read: {error}",
            where=f"online store, key {live_key(view_id).decode()}",
            hint="a newer fastserve may have written it; else delete the key and refresh the view",
        ) from None
