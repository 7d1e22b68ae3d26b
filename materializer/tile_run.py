"""One aggregated view of a run: the tile rows of all entities with events in reach of its end.

Every run makes them anew from the events, so it also puts right what a stream left out. Where workers stream events of
the view, it puts their rows right beside them (corrections.py). Else rows are the run's alone, and of two the one with
the newer event stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from fastserve.config import Config
from fastserve.errors import FastserveError, UnknownObjectError
from fastserve.offline.events import EventRows, event_rows
from fastserve.offline.history import History
from fastserve.registry import Interval, Registry
from fastserve.streaming.base import FeedStore
from fastserve.streaming.settings import StreamSettings
from materializer.corrections import Corrections, opened_feeds
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
        feeds = opened_feeds(self.config)
        try:
            while not self._written(made, rows, end_us, about, feeds):
                log.info("view %s: its stream has begun meanwhile; once more, beside it", self.chosen.name)
        finally:
            if feeds is not None:
                feeds.close()

    def _written(
        self, made: TileRows, rows: EventRows, end_us: int, about: ViewSummary, feeds: FeedStore | None
    ) -> bool:
        """Write all rows; False if somebody has begun to stream the view's events meanwhile."""
        beside = None if feeds is None else self._beside(feeds, end_us)
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

        def saw(batch: pa.RecordBatch, archived: bool) -> None:
            if beside is not None:
                beside.newest.add(batch, archived)

        for number, part in enumerate(made.parts(pieces, told, saw)):
            if number == 0 and beside is not None and not beside.settle():
                return False
            if beside is not None and beside.needed:
                about.rows_online_written += beside.write(made, part, sets.ids)
            else:
                about.rows_online_written += self.online.do(partial(made.write, part=part, ids=sets.ids))
        return beside is None or not beside.begun_since()

    def _beside(self, feeds: FeedStore, end_us: int) -> Corrections:
        return Corrections(
            feeds,
            self.registry.snapshot(),
            self.chosen.registered,
            StreamSettings.of(self.config.streaming),
            end_us=end_us,
            now_us=self.now_us,
            stop=self.stop,
        )
