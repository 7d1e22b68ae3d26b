"""How far a run or a join is: a callback, and a bar on standard error for people at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

Phase = Literal["scan", "write"]


class Progress(Protocol):
    """Told how far a view is.

    Args:
        view: its name.
        phase: ``scan`` counts rows read, ``write`` counts partitions.
        done: how many so far.
        total: of how many; None while that is unknown.
    """

    def __call__(self, view: str, phase: Phase, done: int, total: int | None) -> None: ...


def silent(view: str, phase: Phase, done: int, total: int | None) -> None:
    """Show nothing."""


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar per view on standard error if that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console  # noqa: PLC0415  (costs more than a small run)
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[shown]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, int] = {}

        def show(view: str, phase: Phase, done: int, total: int | None) -> None:
            if view not in tasks:
                tasks[view] = bar.add_task(view, total=None, shown="")
            shown = f"{done:,} rows read" if phase == "scan" else f"{done:,} of {total:,} partitions"
            bar.update(tasks[view], completed=done, total=total, shown=shown)  # type: ignore[arg-type]

        yield show


class Watch(Protocol):
    """Told how far the join of a view is.

    Args:
        view: its name.
        done: rows read so far; each counts when its key is looked at, and again when its features are dealt with.
        total: of how many; 0 while that is unknown.
    """

    def __call__(self, view: str, done: int, total: int) -> None: ...


def unwatched(view: str, done: int, total: int) -> None:
    """Show nothing."""


@contextmanager
def join_bar(wanted: bool = True) -> Iterator[Watch]:
    """A bar per view with rows, rate and time left, on standard error if that is a terminal and it is wanted."""
    if not wanted or not sys.stderr.isatty():
        yield unwatched
        return
    from rich.console import Console  # noqa: PLC0415  (costs more than a small join)
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[shown]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, int] = {}

        def show(view: str, done: int, total: int) -> None:
            if view not in tasks:
                tasks[view] = bar.add_task(view, total=None, shown="")
            elapsed = bar.tasks[tasks[view]].elapsed or 0.0
            rate = f", {done / elapsed:,.0f}/s" if elapsed > 0 else ""
            shown = f"{done:,} rows{rate}"
            bar.update(tasks[view], completed=done, total=total or None, shown=shown)  # type: ignore[arg-type]

        yield show
