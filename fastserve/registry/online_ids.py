"""Online ids: the first part of the online keys of a view's row set, and which of them may still have rows.

A view version begins with one set, whose online id is its view id. A refresh builds another, under a new id of the same
sequence: none is ever given twice, so no row of the past can be taken for one of the present. Which set is served the
online store itself says (fastserve/online/live.py); what is written down here is which ids there ever were, and the one
served last, for a store that has lost its keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from fastserve.registry.engine import Database
from fastserve.registry.schema import objects, online_ids, revisions, views
from fastserve.timeutil import now_us


@dataclass(frozen=True, slots=True)
class OnlineId:
    """An online id.

    Attributes:
        online_id, view_id: the id, and the view whose rows it is for.
        made_us: when it was given.
        live_us: when its set became the served one, the last time; None if it never was.
        gone_us: when its rows were removed; None while there may be some.
    """

    online_id: int
    view_id: int
    made_us: int
    live_us: int | None = None
    gone_us: int | None = None


class OnlineIds:
    """The online ids of a project, in SQL. Who moves row sets holds `Registry.lock_sets`."""

    def __init__(self, database: Database, project: str) -> None:
        self._database = database
        self._project = project

    def allocate(self, view_id: int) -> int:
        """A new online id for a view; its first one is written down too."""
        with self._database.write() as connection:
            _note(connection, view_id, view_id)
            named = sa.select(views.c.project, views.c.name, views.c.version).where(
                views.c.view_id == view_id
            )
            row = connection.execute(named).one()
            made = connection.execute(sa.insert(views).values(**row._mapping)).inserted_primary_key
            assert made is not None
            _note(connection, int(made[0]), view_id)
            return int(made[0])

    def set_live(self, view_id: int, online_id: int) -> None:
        """Note which set is served from now on."""
        with self._database.write() as connection:
            newest = sa.select(sa.func.max(online_ids.c.live_us)).where(online_ids.c.view_id == view_id)
            after = (connection.scalar(newest) or 0) + 1  # a clock may stand still, or be set back
            _note(connection, online_id, view_id)
            where = online_ids.c.online_id == online_id
            values = {"live_us": max(now_us(), after), "gone_us": None}
            connection.execute(sa.update(online_ids).where(where).values(**values))

    def of_view(self, view_id: int) -> list[OnlineId]:
        """The ids of a view, oldest first; none for one that was never refreshed."""
        query = sa.select(online_ids).where(online_ids.c.view_id == view_id).order_by(online_ids.c.online_id)
        with self._database.read() as connection:
            return [OnlineId(**row._mapping) for row in connection.execute(query)]

    def mark_gone(self, view_id: int, ids: Iterable[int]) -> None:
        """Note that the rows of sets were removed."""
        with self._database.write() as connection:
            for online_id in ids:
                _note(connection, online_id, view_id)
                where = online_ids.c.online_id == online_id
                connection.execute(sa.update(online_ids).where(where).values(gone_us=now_us()))

    def mark_there(self, ids: Iterable[int]) -> None:
        """Note that sets may have rows again: a writer was on its way when they were removed."""
        with self._database.write() as connection:
            where = online_ids.c.online_id.in_(sorted(ids))
            connection.execute(sa.update(online_ids).where(where).values(gone_us=None))

    def retired(self, before_us: int) -> dict[int, str]:
        """The views of the project that no definition has any more, since before a time: view id -> name."""
        last = sa.func.max(objects.c.to_revision).label("last")
        over = (
            sa.select(objects.c.view_id, last)
            .where(objects.c.project == self._project, objects.c.view_id.is_not(None))
            .group_by(objects.c.view_id)
            .having(sa.func.count() == sa.func.count(objects.c.to_revision))
            .subquery()
        )
        query = (
            sa.select(views.c.view_id, views.c.name)
            .join(over, over.c.view_id == views.c.view_id)
            .join(
                revisions,
                sa.and_(revisions.c.project == self._project, revisions.c.revision == over.c.last),
            )
            .where(revisions.c.applied_us <= before_us)
            .order_by(views.c.view_id)
        )
        with self._database.read() as connection:
            return {int(view_id): str(name) for view_id, name in connection.execute(query)}


def read_live(connection: sa.Connection, project: str) -> dict[int, int]:
    """View id -> the online id served last, of the project's views that were ever refreshed."""
    query = (
        sa.select(online_ids.c.view_id, online_ids.c.online_id)
        .join(views, views.c.view_id == online_ids.c.view_id)
        .where(views.c.project == project, online_ids.c.live_us.is_not(None))
        .order_by(online_ids.c.live_us)
    )
    return {int(view_id): int(online_id) for view_id, online_id in connection.execute(query)}


def _note(connection: sa.Connection, online_id: int, view_id: int) -> None:
    """Write an id down, once."""
    if (
        connection.scalar(sa.select(online_ids.c.online_id).where(online_ids.c.online_id == online_id))
        is None
    ):
        values = {"online_id": online_id, "view_id": view_id, "made_us": now_us()}
        connection.execute(sa.insert(online_ids).values(**values))
