"""On-demand views on a server: their functions counted and timed, and never failing.

A function that fails, or that this process does not have, is told of in the log and in the answer, whose values are
then UNAVAILABLE. numpy cannot be interrupted: a call beyond its view's budget is counted, and told of in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.definitions import FeatureView, OnDemandFeatureView
from fastserve.errors import ConfigError, FastserveError
from fastserve.on_demand.call import OnDemandFunction
from fastserve.on_demand.columns import Column
from fastserve.on_demand.functions import Functions
from fastserve.registry import Snapshot

log = logging.getLogger(__name__)

QUIET_S: Final = 60.0
"""The log hears of one view's failures, and of its slow calls, once in so long."""


@dataclass(slots=True)
class Tally:
    """Of one view's calls in this process.

    Attributes:
        failed: calls that raised or gave what does not fit.
        missing: calls that could not be made: the process does not have the function.
        slow: calls that took longer than the view's budget.
    """

    calls: int = 0
    rows: int = 0
    seconds: float = 0.0
    failed: int = 0
    missing: int = 0
    slow: int = 0
    told_failed_s: float = -QUIET_S
    told_slow_s: float = -QUIET_S


class Computed:
    """One on-demand view's function as a plan calls it.

    Args:
        view: as it is registered.
        function: its function; None where this process does not have it.
        reason: why it does not.
        tally: kept from one registry revision to the next.
    """

    def __init__(
        self, view: OnDemandFeatureView, function: OnDemandFunction | None, reason: str, tally: Tally
    ) -> None:
        self.view = view
        self._function = function
        self.reason = reason
        self._tally = tally

    def __call__(self, inputs: Mapping[str, Column], at: npt.NDArray[np.int64]) -> dict[str, pa.Array] | str:
        """The features as `OnDemandFunction` gives them; or why there are none."""
        tally = self._tally
        if self._function is None:
            tally.missing += 1
            return self.reason
        begun = perf_counter()
        try:
            return self._function(inputs, at)
        except FastserveError as error:
            tally.failed += 1
            self._tell_failed(error, begun)
            return f"on-demand view {self.view.name!r} failed: {error.message}"
        finally:
            took = perf_counter() - begun
            tally.calls += 1
            tally.rows += len(at)
            tally.seconds += took
            if took * 1e6 > self.view.budget_us:
                tally.slow += 1
                self._tell_slow(took, len(at), begun)

    def _tell_failed(self, error: FastserveError, moment: float) -> None:
        if moment - self._tally.told_failed_s >= QUIET_S:
            self._tally.told_failed_s = moment
            log.error("answering UNAVAILABLE: %s", error, exc_info=error.__cause__)

    def _tell_slow(self, took: float, rows: int, moment: float) -> None:
        if moment - self._tally.told_slow_s >= QUIET_S:
            self._tally.told_slow_s = moment
            log.warning(
                "on-demand view %r took %.1f ms for %d rows, its budget is %.1f ms; nothing else is answered meanwhile",
                self.view.name,
                took * 1e3,
                rows,
                self.view.budget_us / 1e3,
            )


class Computing:
    """The on-demand views of one process.

    Args:
        repo: the directory whose files hold their functions; None for a process that has none.
    """

    def __init__(self, repo: Path | None) -> None:
        self._functions = None if repo is None else Functions(repo)
        self._tallies: dict[tuple[str, int], Tally] = {}
        self._told: dict[tuple[str, int], str] = {}  # what the log has heard of

    def prepare(self, views: Iterable[FeatureView]) -> None:
        """Have the functions of those that are on-demand; it may import the repo, so not on the event loop."""
        found = [view for view in views if isinstance(view, OnDemandFeatureView)]
        if found and self._functions is not None:
            pa.array([])  # the first one imports pandas where that is installed, which takes most of a second
            self._functions.prepare(found)
            self._tell_missing(found)

    def _tell_missing(self, views: Iterable[OnDemandFeatureView]) -> None:
        for view in views:
            reason = self.of(view).reason
            if reason and self._told.get((view.name, view.version)) != reason:
                log.error("answering UNAVAILABLE: %s", reason)
            self._told[view.name, view.version] = reason

    def of(self, view: OnDemandFeatureView) -> Computed:
        """The view, ready to be called; of those that were there when it was prepared."""
        tally = self._tallies.setdefault((view.name, view.version), Tally())
        if self._functions is None:
            return Computed(view, None, f"on-demand view {view.name!r}: this process has no repo", tally)
        try:
            return Computed(view, self._functions.of(view), "", tally)
        except ConfigError as error:
            return Computed(view, None, f"{error.where}: {error.message}", tally)

    def problems(self, snapshot: Snapshot) -> dict[str, str]:
        """View -> why it cannot be computed here."""
        views = [rv.view for rv in snapshot.views.values() if isinstance(rv.view, OnDemandFeatureView)]
        found = {f"{view.name}@v{view.version}": self.of(view).reason for view in views}
        return {name: reason for name, reason in found.items() if reason}

    def figures(self) -> dict[str, float]:
        """For /metrics, by view."""
        found: dict[str, float] = {}
        for (name, version), tally in self._tallies.items():
            label = f'{{view="{name}@v{version}"}}'
            for figure in ("calls", "rows", "seconds", "failed", "missing", "slow"):
                found[figure + label] = getattr(tally, figure)
        return found
