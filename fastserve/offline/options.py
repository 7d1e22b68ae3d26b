"""What the reader of a source may be told beside the source: times, limits, how to stop, which versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from fastserve.config import SQL_MEMORY


def _go_on() -> None:
    """Never stops."""


@dataclass(frozen=True, slots=True)
class Pin:
    """Which state of an input to read.

    Attributes:
        files: no other files than these, as `list_files` names them; None for all.
        version: of a Delta table; None for its newest.
    """

    files: frozenset[str] | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Spooled:
    """What was read of a database: rows, and SHA-256 of their Arrow IPC bytes, in hex."""

    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """For sources that are queries or transforms; files need none of it.

    Attributes:
        as_of_us: the present, microseconds UTC: ``$as_of``; None for the wall clock.
        memory: what DuckDB may take, as ``"1GiB"``; beyond it spills to TMPDIR. Arrow's buffers of a scan come on top.
        check: called at least every tenth of a second while a query runs; what it raises ends the query.
        pins: input name -> the state to read; others are read as they are.
        spooled: told of every input that was read from a database.
    """

    as_of_us: int | None = None
    memory: str = SQL_MEMORY
    check: Callable[[], None] = _go_on
    pins: Mapping[str, Pin] = field(default_factory=dict)
    spooled: Callable[[str, Spooled], None] | None = None


READ: Final = ReadOptions()
