"""Rows read lately, in front of a store that tells of changes; with what each view allows, and what is known.

A cached row may be answered when all of this holds:

- the change feed is up, and was when the row was fetched: a change since then would have dropped it;
- it was fetched no longer ago than the view's max_staleness, which bounds what a lost message can cost.

While the store is down rows up to `stale_if_down_us` old are answered too, and are flagged. Times here are the
monotonic clock's microseconds: the wall clock, or a frozen one, ages features and not copies.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Final

from fastserve.batch import ReadBatch
from fastserve.cache import RowCache
from fastserve.errors import CodecError
from fastserve.online import OnlineStore
from fastserve.serving.plan import ReadPlan

log = logging.getLogger(__name__)

NEVER: Final = 2**62


class ViewCache:
    """See the module's docstring.

    Args:
        store: whose rows are kept; its change feed is followed from now on.
        budget_bytes: memory for rows, keys and tables together.
        stale_if_down_us: how old a row may be when the store is down; 0 for never.

    Attributes:
        rows: the cache itself.
        since: rows fetched from this moment on count, for the feed was up all the time; NEVER while it is down.
    """

    def __init__(self, store: OnlineStore, budget_bytes: int, *, stale_if_down_us: int) -> None:
        self.rows = RowCache(budget_bytes)
        self._stale_if_down_us = stale_if_down_us
        self.since = NEVER  # no feed yet
        self._lost = 0
        self._changes = 0
        self._stale_rows = 0
        store.on_changes(self._told, self._listening)

    def look_up(self, plan: ReadPlan, batch: ReadBatch, n: int, moment: int) -> int:
        """Fill in what is fresh enough; how many rows are still missing.

        Args:
            batch: n keys for each read of the plan.
            moment: now, by the monotonic clock.
        """
        since = self.since
        if since > moment:
            return batch.missing
        return self.rows.get_reads(batch, n, plan.max_ages_us, moment, since)

    def look_up_stale(self, batch: ReadBatch, moment: int) -> int:
        """Fill in what is missing, however old within `stale_if_down_us`; how many rows that were."""
        if not self._stale_if_down_us:
            return 0
        missing = batch.missing
        self.rows.get_many(batch, 0, len(batch), moment - self._stale_if_down_us, stale=True)
        found = missing - batch.missing
        self._stale_rows += found
        return found

    def keep(self, batch: ReadBatch) -> None:
        """Take in what came from the store. Rows are checked by then: a corrupt one must not stay."""
        self.rows.put_many(batch, 0, len(batch))

    def counters(self) -> Mapping[str, float]:
        """For /metrics."""
        return {
            **self.rows.stats(),
            "changes": self._changes,
            "stale_rows": self._stale_rows,
            "feed_lost": self._lost,
            "feed_up": self.since != NEVER,
        }

    def _told(self, message: bytes) -> None:
        try:
            changed = ReadBatch.from_packed(message)
        except CodecError as error:  # whoever wrote that may have changed anything
            log.warning("dropping the cache: %s", error.message)
            self.rows.clear()
            return
        self._changes += len(changed)
        self.rows.drop(changed)

    def _listening(self, up: bool) -> None:
        if up:
            self.since = time.monotonic_ns() // 1_000
            return
        if self.since != NEVER:
            log.warning(
                "the change feed of the online store is lost: not answering from the cache until it is back"
            )
            self._lost += 1
        self.since = NEVER
