"""The point-in-time rule, word for word: O(labels x rows), plain Python, nothing shared with the product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Key = tuple[Any, ...]


def naive_pit(
    labels: Sequence[tuple[Key, int]],
    rows: Sequence[tuple[Key, int, int]],
    *,
    ttl: int | None = None,
    cutoffs: Sequence[int] | None = None,
) -> list[int]:
    """Per label (key, t) the index of its row (key, event_ts, created_ts), or -1.

    A key with a None in it equals no key.
    """
    answer = []
    for i, (key, t) in enumerate(labels):
        best: tuple[int, int, int] | None = None
        for position, (row_key, event_ts, created_ts) in enumerate(rows):
            if None in key or row_key != key or event_ts > t:
                continue
            if ttl is not None and event_ts <= t - ttl:
                continue
            if cutoffs is not None and created_ts > cutoffs[i]:
                continue
            order = (event_ts, created_ts, position)
            if best is None or order > best:
                best = order
        answer.append(-1 if best is None else best[2])
    return answer
