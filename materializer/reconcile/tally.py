"""What two looks found, as they go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastserve.timeutil import MAX_US, MIN_US, format_timestamp


@dataclass(slots=True)
class Tally:
    """Keys by kind, how many of them were put right, and a few examples of each; see ViewReport."""

    keys: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def example_of(
    key: dict[str, Any], history_us: int | None, online_us: int | None, fields: Sequence[str]
) -> dict[str, Any]:
    """One key that differs: event times of both rows, None for none or one that cannot be read."""
    times = [
        None if us is None else format_timestamp(min(max(us, MIN_US), MAX_US))
        for us in (history_us, online_us)
    ]
    found = {"key": key, "history": times[0], "online": times[1]}
    return found | {"fields": list(fields)} if fields else found
