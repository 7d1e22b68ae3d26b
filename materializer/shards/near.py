"""Tasks that read pieces of a view's rows: on the engine, but for pieces that only this process can read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from fastserve.offline.pieces import Piece
from materializer.engine import Engine, run_tasks
from materializer.stop import Stop


class PieceTask(Protocol):
    """Either all of its pieces are portable, or none is; see plan.groups."""

    @property
    def pieces(self) -> Sequence[Piece]:
        """What it reads; one or more."""


T = TypeVar("T", bound=PieceTask)
R = TypeVar("R")


def read_pieces(
    engine: Engine, work: Callable[[T], R], tasks: Sequence[T], stop: Stop, where: str
) -> Iterator[tuple[T, R]]:
    """Each task and what became of it; the answer of a query is in this process alone, so its tasks are done here.

    Raises:
        Exception: as run_tasks.
    """
    far: list[T] = []
    for task in tasks:
        if task.pieces[0].portable:
            far.append(task)
            continue
        stop.check()
        yield task, work(task)
    yield from run_tasks(engine, work, far, stop, where=where)
