"""How far a run is: a callback, and a bar on standard error for people at a terminal."""

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
