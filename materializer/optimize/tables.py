"""Which tables are put in order: one of each view, and one of the events that were streamed of each feed.

A table of events is read by all views of its feed. One of them, always the same, stands for it: by its id the files are
held, and what was done is noted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastserve.config import Config
from fastserve.definitions import AggregatedFeatureView
from fastserve.offline.delta import OfflineTable
from fastserve.offline.streamed import history_table
from fastserve.registry import RegisteredView, Snapshot
from materializer.select import name_of, named


@dataclass(frozen=True, slots=True)
class Kept:
    """A table.

    Attributes:
        name: in reports: the view's, with `@vN` from version 2 on; of events that of their feed.
        table: of the view that stands for it.
        readers: the views whose history it is.
    """

    name: str
    table: OfflineTable
    readers: tuple[RegisteredView, ...]

    @property
    def keyed(self) -> bool:
        """Whether its dates may be ordered by entity: the place of an event among its copies counts."""
        rv = self.table.rv
        return bool(rv.join_keys) and not isinstance(rv.view, AggregatedFeatureView)


def kept_tables(config: Config, snapshot: Snapshot, names: Sequence[str]) -> list[Kept]:
    """The tables of the views named, or of all, each once.

    Raises:
        UnknownObjectError, RequestError: as `select.choose`.
    """
    found: dict[str, Kept] = {}
    for rv in named(snapshot, names):
        table = history_table(config.offline_store, config.project, rv)
        if table.uri not in found:
            found[table.uri] = _kept(config, snapshot, rv, table)
    return list(found.values())


def _kept(config: Config, snapshot: Snapshot, rv: RegisteredView, table: OfflineTable) -> Kept:
    view = rv.view
    if not isinstance(view, AggregatedFeatureView):
        return Kept(name_of(view), table, (rv,))
    tables = [
        history_table(config.offline_store, config.project, other)
        for other in sorted(snapshot.views.values(), key=lambda other: other.view_id)
        if isinstance(other.view, AggregatedFeatureView)
    ]
    same = [theirs for theirs in tables if theirs.uri == table.uri]
    readers = tuple(theirs.rv for theirs in same)
    return Kept(f"{view.events.name}:{','.join(rv.join_keys)}", same[0], readers)
