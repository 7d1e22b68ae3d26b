"""Dates of a view into its stores by a task, wherever it runs: what a store does not hold as it is, is written.

A task writes files and rows, never the ledger: its process may die at any moment, and one that outlives the work for a
moment does no harm. Rows of the offline table are staged; who handed the task out commits them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

from fastserve.config import Config
from fastserve.errors import MaterializeError, RegistryConflictError
from fastserve.offline.delta import OfflineTable
from fastserve.offline.staged import Staged, commit, stage
from fastserve.registry import open_registry
from materializer.digest import rows_digest, salt_of
from materializer.select import Target, choose
from materializer.sets import SetsWriter
from materializer.spill import Rows
from materializer.stop import Stop
from materializer.write import OnlineSink

_ATTEMPTS: Final = 8


@dataclass(frozen=True, slots=True)
class Spec:
    """What all tasks of a run or backfill of a view share.

    Attributes:
        view, target: what is filled, as `choose` takes them.
        now_us: the present.
        salt: that of the view as the work began.
        token: no other run or backfill has it.
    """

    config: Config
    view: str
    target: str
    now_us: int
    salt: str
    token: str


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one date of one store.

    Attributes:
        settled: whether all its rows were known by the present: none waits to be read later.
        unchanged: the store holds these rows already.
        staged: of the offline table, to be committed.
    """

    day: date
    target: Target
    digest: str
    rows: int
    settled: bool
    unchanged: bool = False
    rows_new: int = 0
    n_bytes: int = 0
    seconds: float = 0.0
    staged: Staged | None = None


class DateWriter:
    """Writes dates of one view, with a registry and stores of its own. A context manager.

    Args:
        stop: asked between dates, and between batches of the online store.

    Attributes:
        chosen: the view and its source.

    Raises:
        RegistryConflictError: the view was changed since the work began.
    """

    def __init__(self, spec: Spec, stop: Stop) -> None:
        self._spec = spec
        self._stop = stop
        config = spec.config
        self._registry = open_registry(config.registry, config.project)
        snapshot = self._registry.snapshot()
        [self.chosen] = choose(snapshot, [spec.view], spec.target)
        view = self.chosen.registered
        if salt_of(view) != spec.salt:
            raise RegistryConflictError(
                "the view was changed meanwhile",
                where=f"view {spec.view}",
                hint="run it again: what is done and still right is kept",
            )
        self._online = OnlineSink(config.online_store, snapshot.registry_id)
        self._sets = SetsWriter(self._online, self._registry, view, spec.now_us, stop)
        self._table = OfflineTable(config.offline_store, config.project, view)

    def __enter__(self) -> DateWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._online, self._registry:
            pass

    def write(
        self,
        rows: Rows,
        known: Mapping[tuple[date, Target], str],
        *,
        settled: bool = True,
        spent_s: float = 0.0,
    ) -> list[Written]:
        """Write dates, newest first.

        Args:
            known: (date, store) to write -> the digest of the rows it holds already; '' where it holds none to trust.
            settled: of all of them; see Written.
            spent_s: for reading the rows.

        Raises:
            Stopped: between two batches.
            FastserveError: a store cannot be written; part of the dates may be.
        """
        done = []
        there = set(rows.dates())
        for (day, target), digest in sorted(known.items(), key=lambda item: item[0], reverse=True):
            self._stop.check()
            begun = time.monotonic() - spent_s / len(known)
            if day not in there:
                done.append(Written(day, target, "", 0, settled, unchanged=True))
            else:
                done.append(self._one(day, target, digest, rows, settled, begun))
        return done

    def stage(self, day: date, rows: Rows) -> Staged:
        """Stage a date again, whose files another writer changed."""
        return stage(self._table, day, lambda: rows.chunks(day))

    def _one(self, day: date, target: Target, known: str, rows: Rows, settled: bool, begun: float) -> Written:
        digest, n_rows = rows_digest(rows.chunks(day), self._spec.salt), rows.rows_of(day)
        if digest == known:
            return Written(
                day, target, digest, n_rows, settled, unchanged=True, seconds=time.monotonic() - begun
            )
        if target == "online":
            new = self._sets.write([day], lambda one: rows.chunks(one, last_first=True))
            return Written(day, target, digest, n_rows, settled, False, new, 0, time.monotonic() - begun)
        made = self.stage(day, rows)
        spent = time.monotonic() - begun
        return Written(day, target, digest, n_rows, settled, False, made.rows_new, made.n_bytes, spent, made)


def commit_written(
    table: OfflineTable, written: Sequence[Written], restage: Callable[[Sequence[Staged]], list[Staged]]
) -> list[Written]:
    """Commit what was staged of dates, all in one, and what became of them.

    Args:
        restage: stages dates again, which other writers changed meanwhile.

    Raises:
        MaterializeError: other writers were faster, again and again; part of the dates may be committed.
        OfflineStoreError: the table cannot be read or written.
    """
    staged = {one.day: one.staged for one in written if one.staged is not None}
    todo = list(staged.values())
    for _ in range(_ATTEMPTS):
        todo = commit(table, todo) if todo else []
        if not todo:
            return [_as_staged(one, staged) for one in written]
        todo = restage(todo)
        staged |= {one.day: one for one in todo}
    raise MaterializeError(
        "other writers changed its dates each time we tried",
        where=table.uri,
        hint="run the same command again: rows that are there already are left out",
    )


def _as_staged(one: Written, staged: Mapping[date, Staged]) -> Written:
    if one.staged is None:
        return one
    made = staged[one.day]
    return replace(one, rows_new=made.rows_new, n_bytes=made.n_bytes, staged=made)
