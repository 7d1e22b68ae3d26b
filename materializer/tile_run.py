"""One aggregated view of a run: the tile rows of all entities with events in reach of its end.

Every run makes them anew from the events, so it also puts right what a stream left out. A row that the store holds
already stays if its newest event is newer: a stream may be ahead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np

from fastserve.config import Config
from fastserve.errors import FastserveError, UnknownObjectError
from fastserve.offline.events import EventRows, event_rows
from fastserve.offline.history import History
from fastserve.registry import Interval, Registry
from materializer.select import Chosen
from materializer.stop import Stop
from materializer.summary import ViewSummary
from materializer.tiles import TileRows
from materializer.window import explicit
from materializer.write import OnlineSink

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TileRun:
    """The view; its lock is held.

    Attributes:
        now_us: the run's present.
        told: of how many events were read so far.
    """

    config: Config
    registry: Registry
    online: OnlineSink
    chosen: Chosen
    now_us: int
    stop: Stop
    told: Callable[[int], None]

    def run(self, about: ViewSummary, end_us: int | None) -> None:
        """Do it; what was done goes into the summary.

        Raises:
            Stopped: between two batches.
            FastserveError: events cannot be read, or the store not written.
        """
        view_id = self.chosen.registered.view_id
        window = explicit(None, end_us, self.now_us)
        rows = event_rows(self.chosen.registered)
        made = TileRows(self.chosen.registered, rows, window.end_us, self.now_us, self.stop)
        about.start_us, about.end_us, about.end_clamped = made.after_us + 1, window.end_us, window.end_clamped
        interval = (made.after_us + 1, window.end_us + 1)
        run_id = self.registry.start_run(view_id, "online", *interval)
        try:
            if not self.online.keeps(view_id):
                self.online.mark(view_id)
            self._write(made, rows, window.end_us, about)
            done = Interval(view_id, "online", *interval, rows=about.rows_read, run_id=run_id)
            self.registry.finish_run(run_id, [done])
        except BaseException as error:
            with suppress(FastserveError):  # the first failure is the one to tell
                self.registry.fail_run(run_id, str(error) or type(error).__name__)
            raise

    def _write(self, made: TileRows, rows: EventRows, end_us: int, about: ViewSummary) -> None:
        # What training reads too: events that a stream appended are beside those of the batch source.
        history = History(self.config, self.registry, as_of_us=self.now_us)
        seen = np.array([made.after_us, end_us])  # from there on back as far as a label reaches
        pieces = history.pieces(rows.rv, rows.columns, seen)
        sets = self.online.look(self.chosen.registered)
        if not sets.ids:
            raise UnknownObjectError(f"feature view {self.chosen.name!r} was retired, and its rows removed")

        def told(read: int) -> None:
            about.rows_read = read
            self.told(read)

        for part in made.parts(pieces, told):
            about.rows_online_written += self.online.do(partial(made.write, part=part, ids=sets.ids))
