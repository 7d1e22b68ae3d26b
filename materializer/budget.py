"""How much memory a training set may take, and what each part of its making gets of it.

The budget is the process's, as a container's limit is: what it holds already counts. Of what is left

    reading     per thread: a row group's compressed columns and a batch of them decoded
    group       keys and times dealt out to the labels' parts
    answering   a range of labels put together, and encoded
    found       features of the rows that labels have, before they are stowed away
    labels      keys, times, best rows, places: so many labels at a time
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastserve.errors import RequestError
from materializer.pit.chunks import cores
from materializer.pit.stow import RANGE_ROWS

_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
                 "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}  # fmt: skip
_MIB: Final = 1 << 20
_READING: Final = 32 * _MIB
_SLACK: Final = 0.12  # what allocators keep for themselves
_A_ROW: Final = 24  # bytes dealt out
_GROUP_ROWS: Final = 1 << 21
_LEAST_GROUP: Final = 1 << 17
_LEAST_FOUND: Final = 8 * _MIB
_LABELS: Final = 0.75  # of what is left
_ALL_LABELS: Final = (
    0.9  # likewise, where that is enough for all: those that are left over read all rows once more
)
A_LABEL: Final = 80  # bytes without its keys and places: code, time, order, best row found either way
_PER_KEY: Final = 24  # bytes a label's keys take beside themselves: hashed, counted


def parse_memory(text: str | int | None, where: str = "memory") -> int | None:
    """Bytes: a number, or text like ``1.5GiB``, ``800 MB``, ``2g``; None for no limit.

    Raises:
        RequestError: it is no size.
    """
    if text is None:
        return None
    if isinstance(text, int) and not isinstance(text, bool):
        found: float | None = text
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", str(text), re.IGNORECASE)
        unit = match[2].lower() if match else "?"
        found = float(match[1]) * _UNITS[unit] if match and unit in _UNITS else None
    if found is None or found <= 0:
        raise RequestError(
            f"{text!r} is no size of memory", where=where, hint="write 1.5GiB, 800MB, or bytes"
        )
    return int(found)


def shown(size: float) -> str:
    """Bytes for people, rounded up so that what is shown is enough."""
    return f"{-(-int(size) // _MIB):,}MiB"


def resident() -> int:
    """Bytes of memory that the process holds now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux: what it held at most
        import resource  # noqa: PLC0415

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Need:
    """What is to be made.

    Attributes:
        labels: how many.
        key_bytes: that a label's keys take, on average.
        row_bytes: that its features take, about.
        views: joins to make.
    """

    labels: int
    key_bytes: float
    row_bytes: float
    views: int


@dataclass(frozen=True, slots=True)
class Budget:
    """What each part may take.

    Attributes:
        threads: that work.
        labels: joined at a time.
        group_rows: dealt out at a time.
        found_bytes: found, for each view, before it is stowed away; None for no limit.
    """

    threads: int
    labels: int
    group_rows: int
    found_bytes: int | None

    @classmethod
    def of(cls, memory: int | None, need: Need, threads: int | None = None) -> Budget:
        """The parts of a budget.

        Args:
            memory: bytes the process may hold; None for no limit.

        Raises:
            RequestError: it is too small; says the least that works.
        """
        threads = threads or cores()
        if memory is None:
            return cls(threads, max(need.labels, 1), _GROUP_ROWS, None)
        held = resident()
        per_label = A_LABEL + 8 * need.views + _PER_KEY + need.key_bytes
        answering = 3 * RANGE_ROWS * need.row_bytes
        fewest = min(RANGE_ROWS, need.labels)
        least = _READING + _A_ROW * _LEAST_GROUP + answering + _LEAST_FOUND * need.views + fewest * per_label
        room = (memory - held) * (1 - _SLACK)
        if room < least:
            raise RequestError(
                f"{shown(memory)} is too little: the process holds {shown(held)} already, and a training set of "
                f"these features takes {shown(least / (1 - _SLACK))}",
                where="memory",
                hint=f"give {shown(held + least / (1 - _SLACK) + _MIB)} or more, or ask for fewer features",
            )
        threads = max(1, min(threads, int((room - least) // (2 * _READING)) + 1))
        group = int(min(_GROUP_ROWS, max(_LEAST_GROUP, room / 8 / _A_ROW)))
        rest = room - threads * _READING - group * _A_ROW - answering
        if need.labels * per_label <= min(_ALL_LABELS * rest, rest - 2 * _LEAST_FOUND * need.views):
            labels = need.labels
        else:
            labels = max(fewest, int(_LABELS * rest / per_label) // RANGE_ROWS * RANGE_ROWS)
        found = max((rest - labels * per_label) / 2 / need.views, _LEAST_FOUND)
        return cls(threads, max(labels, 1), group, int(found))
