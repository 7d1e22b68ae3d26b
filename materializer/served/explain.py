"""Why values that were served are not what history says now. Each kind is proved, by another rebuild, or not said.

    code         an on-demand function, or what it is in, is not the one that served it
    late         of what was known by the answer's time the value comes out as served: history got rows after it
    correction   likewise, and the newest row is of the time of the row that was known: it was put in its place
    ttl          one row on both sides, taken as expired on one of them
    lag          an older row that history has was served; or windows of events up to its newest; what is newer had been
                 known for less than the grace
    corrupt      the stored row could not be read
    unexplained  none of these

A value of an on-demand view is late or a correction by its own rebuild; else it is what the answered features of the
views that it is computed from are, in the same row.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from fastserve.codec.status import Status
from fastserve.definitions import AggregatedFeatureView
from fastserve.offline.answers import UNREADABLE, Answers
from materializer.served.newest import NONE, Newest, newest_rows
from materializer.served.rebuild import Part, Rebuilder
from materializer.served.same import same_bits

Kind: TypeAlias = Literal[
    "equal", "unavailable", "late", "correction", "ttl", "lag", "code", "corrupt", "unexplained"
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
DIFFERENCES: Final[tuple[Kind, ...]] = KINDS[2:]
MOMENTS: Final = 64
"""Rebuilds of windows by what was known then: one for each instant, of so many instants of a shape at most."""

Kinds = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_CODE: Final = {kind: i for i, kind in enumerate(KINDS)}


class Explainer:
    """Explains answers of one shape.

    Args:
        rebuilder: makes values again.
        parts: what the answers are made of.
        answers: n rows.
        grace_us: how long after it became known a row need not be online.
    """

    def __init__(self, rebuilder: Rebuilder, parts: list[Part], answers: Answers, grace_us: int) -> None:
        self._rebuilder, self._parts, self._answers = rebuilder, parts, answers
        self._grace_us = grace_us
        self.rebuilt: dict[str, Any] = {}
        self.kinds: dict[str, Kinds] = {}

    def explain(self) -> None:
        """Fill `kinds`, feature -> [n], and `rebuilt`, feature -> what history says.

        Raises:
            IncompleteHistoryError, InvalidDataError, OfflineStoreError: history cannot be read.
        """
        self.rebuilt = self._rebuilder.rebuild(self._answers, self._parts)
        for part in self._parts:
            for name in part.names:
                self.kinds[name] = self._compared(name, part)
        self._by_what_was_known([part for part in self._parts if not part.changed])
        for part in self._parts:
            if not part.is_computed and not part.changed and self._left([part]).any():
                (self._windows if part.has_windows else self._rows)(part)
        for part in self._parts:
            if part.is_computed and not part.changed:
                self._inherited(part)

    def _compared(self, name: str, part: Part) -> Kinds:
        statuses = self._answers.statuses(name)
        otherwise = _CODE["code" if part.changed else "unexplained"]
        kinds = np.full(len(statuses), otherwise, np.int8)
        if name in self.rebuilt:
            kinds[same_bits(self._answers.values(name), self.rebuilt[name])] = _CODE["equal"]
        kinds[statuses == Status.UNAVAILABLE] = _CODE["unavailable"]
        kinds[statuses == UNREADABLE] = _CODE["corrupt"]
        return kinds

    def _left(self, parts: Iterable[Part]) -> Bools:
        """Rows with a value of these parts that is not explained yet."""
        found = np.zeros(len(self._answers), np.bool_)
        for part in parts:
            for name in part.names:
                found |= self.kinds[name] == _CODE["unexplained"]
        return found

    def _settle(self, part: Part, rows: Ints, made: dict[str, Any], kinds: Kinds | int) -> None:
        """Values that come out as served are of these kinds.

        Args:
            rows: that were made again.
            kinds: one, or one for each of the rows.
        """
        for name in part.names:
            served = self._answers.take(rows).values(name)
            right = same_bits(served, made[name]) & (self.kinds[name][rows] == _CODE["unexplained"])
            self.kinds[name][rows[right]] = np.broadcast_to(np.asarray(kinds, np.int8), len(rows))[right]

    # ---- rows that history got after the answer ----------------------------------------------------

    def _by_what_was_known(self, parts: list[Part]) -> None:
        windowed = [part for part in parts if part.has_windows]
        others = [part for part in parts if not part.has_windows]
        rows = np.flatnonzero(self._left(others))
        if len(rows):
            self._known(others, rows, "label_time")
        rows = np.flatnonzero(self._left(windowed))
        times = self._answers.times[rows]
        for t in np.unique(times)[:MOMENTS].tolist():
            self._known(windowed, rows[times == t], t)

    def _known(self, parts: list[Part], rows: Ints, cutoff: Any) -> None:
        parts = [part for part in parts if self._left([part])[rows].any()]
        some = self._answers.take(rows)
        made = self._rebuilder.rebuild(some, parts, cutoff=cutoff)
        history = self._rebuilder.history(int(some.times.max()))
        replaced: dict[tuple[Any, ...], Bools] = {}  # each view's history is read once for all parts
        for part in parts:
            corrected = np.zeros(len(rows), np.bool_)
            for projection, rv in part.stored:
                if isinstance(rv.view, AggregatedFeatureView):
                    continue
                key = rv.view_id, *(projection.join_key_map.get(name, name) for name in rv.join_keys)
                if key not in replaced:
                    newest = newest_rows(history, projection, rv, some.entities, some.times)
                    replaced[key] = (newest.event == newest.known_event) & (newest.created > some.times)
                corrected |= replaced[key]
            kinds = np.where(corrected, _CODE["correction"], _CODE["late"]).astype(np.int8)
            self._settle(part, rows, made, kinds)

    # ---- rows that were not online -----------------------------------------------------------------

    def _rows(self, part: Part) -> None:
        """A view of rows: which row was served, and was there a newer one?"""
        rows = np.flatnonzero(self._left([part]))
        some = self._answers.take(rows)
        assert part.rv is not None
        history = self._rebuilder.history(int(some.times.max()))
        newest = newest_rows(history, part.projection, part.rv, some.entities, some.times)
        name = next(iter(part.names))
        served = some.event_times(name)
        lags = self._lags(newest, served, some.times)
        nothing = served == NONE
        expired = some.statuses(name) == Status.OUTSIDE_MAX_AGE
        for feature in part.names:
            kinds = self.kinds[feature]
            open_ = kinds[rows] == _CODE["unexplained"]
            kinds[rows[open_ & expired & (served == newest.known_event)]] = _CODE["ttl"]
            kinds[rows[open_ & lags & (nothing | expired)]] = _CODE["lag"]
        self._earlier(part, rows[~nothing], served[~nothing], lags[~nothing])

    def _lags(self, newest: Newest, served: Ints, times: Ints) -> Bools:
        """Whether history's row is newer than the served one, and had been known for less than the grace."""
        known = np.maximum(newest.known_event, newest.known_created)
        found: Bools = (newest.known_event > served) & (known > times - self._grace_us)
        return found

    def _earlier(self, part: Part, rows: Ints, served: Ints, lags: Bools) -> None:
        """Values of the row that was served, as history has it: expired, or an older one."""
        if not len(rows):
            return
        assert part.rv is not None
        some = self._answers.take(rows)
        made = self._rebuilder.rebuild(some, [part], times=served)
        kinds = np.where(lags, _CODE["lag"], _CODE["unexplained"]).astype(np.int8)
        if part.rv.view.ttl_us is not None:
            kinds[served <= some.times - part.rv.view.ttl_us] = _CODE["ttl"]
        self._settle(part, rows, made, kinds)

    def _windows(self, part: Part) -> None:
        """A view of events: did the served row lack only such as had been known for less than the grace?"""
        rows = np.flatnonzero(self._left([part]))[:MOMENTS]
        some, name = self._answers.take(rows), next(iter(part.names))
        # A row knows what was known when it was written; one that lacks some of that, perhaps nothing after its newest.
        known = zip(some.created_times(name).tolist(), some.event_times(name).tolist(), strict=True)
        for row, t, horizons in zip(rows, some.times.tolist(), known, strict=True):
            one = np.array([row])
            for horizon in horizons:
                cutoff = max(horizon, t - self._grace_us)
                made = self._rebuilder.rebuild(self._answers.take(one), [part], cutoff=cutoff)
                self._settle(part, one, made, _CODE["lag"])

    def _inherited(self, part: Part) -> None:
        """A computed value is what the answered features of its inputs are."""
        views = {rv.view_id for _, rv in part.stored}
        for other in self._parts:
            if other.rv is None or other.is_computed or other.rv.view_id not in views:
                continue
            for source in other.names:
                theirs = self.kinds[source]
                explained = np.isin(theirs, [_CODE["ttl"], _CODE["lag"]])
                for name in part.names:
                    mine = self.kinds[name]
                    taken = explained & (mine == _CODE["unexplained"])
                    mine[taken] = theirs[taken]
