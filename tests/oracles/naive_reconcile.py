"""What is wrong with one online row, told from plain facts: no bytes, no batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Fact:
    """A row: its times, and the values of the fields it was written with."""

    event: int
    created: int
    values: Mapping[str, Any]


def newest(rows: Iterable[Fact], now: int, ttl: int | None) -> Fact | None:
    """The row of one key that holds now; of rows with equal times the last."""
    found = None
    for row in rows:
        if row.event > now or row.created > now or (ttl is not None and row.event <= now - ttl):
            continue
        if found is None or (row.event, row.created) >= (found.event, found.created):
            found = row
    return found


def kind_of(
    history: Iterable[Fact],
    online: Fact | str | None,
    *,
    now: int,
    ttl: int | None,
    grace: int,
    defaults: Mapping[str, Any],
) -> str:
    """The kind of a key; `online` is text for a row that cannot be read."""
    truth = newest(history, now, ttl)
    if isinstance(online, str):
        return "corrupt"
    if online is None:
        return "equal" if truth is None else "missing"
    if ttl is not None and online.event <= now - ttl:
        if truth is not None:
            return "late"
        return "ttl" if online.event + 2 * ttl + 2 * DAY_US <= now else "equal"
    if truth is None or (online.event, online.created) > (truth.event, truth.created):
        if online.created > now - grace:
            return "recent"
        return "extra" if truth is None else "newer"
    if (online.event, online.created) < (truth.event, truth.created):
        return "late"
    differing = {
        name
        for name, default in defaults.items()
        if truth.values.get(name, default) != online.values.get(name, default)
    }
    if not differing:
        return "equal"
    return "value" if differing & truth.values.keys() else "filled"
