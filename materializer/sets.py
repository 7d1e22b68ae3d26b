"""The dates of a view into every row set that the store names: one, or two while one is built or kept.

Writers of row sets write, then look (fastserve/online/live.py): a group of dates is done once a look that began after
its last write names no set that lacks it. One look a group of dates, whatever its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import TypeAlias

import pyarrow as pa

from fastserve.errors import UnknownObjectError
from fastserve.online.live import RowSets
from fastserve.registry import RegisteredView, Registry
from materializer.stop import Stop
from materializer.write import OnlineSink, ViewWriter

Chunks: TypeAlias = Callable[[date], Iterable[pa.RecordBatch]]


class SetsWriter:
    """Writes the rows of one view, best newest date first: rows of keys that a newer date wrote are not sent again.

    Args:
        online: the store.
        registry: told when a set that was given up may have rows again.
        registered: the view.
        now_us: the run's present, which lifetimes count from.
        stop: asked before every batch.
    """

    def __init__(
        self, online: OnlineSink, registry: Registry, registered: RegisteredView, now_us: int, stop: Stop
    ) -> None:
        self._online = online
        self._registry = registry
        self._registered = registered
        self._now_us = now_us
        self._stop = stop
        self._sets: RowSets | None = None  # as of the last look
        self._writers: dict[int, ViewWriter] = {}
        self._oldest: date | None = None  # of the dates that these writers wrote

    def write(self, days: Sequence[date], chunks: Chunks) -> int:
        """Write dates, newest first.

        Args:
            chunks: the rows of a date, as ViewWriter.write takes them; asked once for each set.

        Returns:
            How many keys of the served set got a newer row.

        Raises:
            Stopped, StoreError: as ViewWriter.write.
        """
        if self._oldest is not None and days[0] >= self._oldest:
            self._writers.clear()  # tasks run in any order: the keys they have seen are of older dates
        self._oldest = days[-1]
        sets = first = self._sets or self._look()
        written: dict[int, int] = {}
        while missing := [online_id for online_id in sets.ids if online_id not in written]:
            for online_id in missing:
                writer = self._writer(online_id)
                written[online_id] = self._online.write(writer, (chunks(day) for day in days))
            sets = self._look()
        given_up = written.keys() - set(sets.ids)
        if given_up and sets.number > first.number:
            self._registry.online_ids.mark_there(given_up)
        self._sets = sets
        return written[sets.live]

    def _look(self) -> RowSets:
        sets = self._online.look(self._registered)
        if not sets.ids:
            name = self._registered.view.name
            raise UnknownObjectError(f"feature view {name!r} was retired, and its rows removed")
        return sets

    def _writer(self, online_id: int) -> ViewWriter:
        if online_id not in self._writers:
            self._writers[online_id] = ViewWriter(self._registered.at(online_id), self._now_us, self._stop)
        return self._writers[online_id]
