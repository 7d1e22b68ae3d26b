"""The functions of the repo that this process runs in, and which of them are the registered ones.

The registry keeps the name and the text of a function and of what it reaches in the repo; never code to run. A process
imports its repo, once, when there is an on-demand view, and calls only a function whose name, text and arguments are
those that were applied. Where it has no such function the view cannot be computed here, and the reason is told.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterable
from pathlib import Path

from fastserve.definitions import OnDemandFeatureView
from fastserve.definitions.load import load_definitions
from fastserve.errors import ConfigError
from fastserve.on_demand.call import OnDemandFunction

log = logging.getLogger(__name__)


class Functions:
    """See the module's docstring.

    Args:
        repo: its directory.
    """

    def __init__(self, repo: Path) -> None:
        self._repo = repo
        self._loaded: dict[tuple[str, str, tuple[str, ...]], OnDemandFeatureView] = {}
        self._failed = ""  # why the repo cannot be imported
        self._looked_for: set[tuple[str, str, tuple[str, ...]]] = set()
        self._made: dict[OnDemandFeatureView, OnDemandFunction] = {}

    def prepare(self, views: Iterable[OnDemandFeatureView]) -> None:
        """Import the repo if some of the views need it; again where the files may be newer than they were."""
        wanted = {_identity(view) for view in views}
        if wanted <= self._looked_for:
            return
        self._looked_for |= wanted
        if not wanted <= self._loaded.keys():
            self._load()

    def of(self, view: OnDemandFeatureView) -> OnDemandFunction:
        """The view's function, of those that `prepare` found.

        Raises:
            ConfigError: the repo has none, or another than was applied; or it cannot be imported.
        """
        made = self._made.get(view)
        if made is None:
            found = self._loaded.get(_identity(view))
            if found is None or found.call is None:
                raise self._missing(view)
            made = self._made[view] = OnDemandFunction(view, found.call)
        return made

    def _load(self) -> None:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # what a file prints is not what the process answers
                found = load_definitions(self._repo)
        except ConfigError as error:
            self._failed = error.message
            log.error("on-demand views cannot be computed: %s", error)
            return
        self._failed = ""
        self._loaded |= {_identity(v): v for v in found if isinstance(v, OnDemandFeatureView)}

    def _missing(self, view: OnDemandFeatureView) -> ConfigError:
        where = f"on-demand view {view.name!r}"
        if self._failed:
            return ConfigError(f"the repo cannot be imported: {self._failed}", where=where)
        if any(name == view.function for name, *_ in self._loaded):
            return ConfigError(
                f"the repo's {view.function} is not the function that was applied",
                where=where,
                hint="run `fastserve apply` to use the repo's, or bring the repo that was applied and start anew",
            )
        return ConfigError(
            f"the repo has no function {view.function}", where=where, hint="run in the repo that was applied"
        )


def _identity(view: OnDemandFeatureView) -> tuple[str, str, tuple[str, ...]]:
    return view.function, view.code, view.arguments
