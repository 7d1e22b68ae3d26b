"""Definitions in SQL: read the state at a revision, write a plan as the next one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

import sqlalchemy as sa

from fastserve.codec.layout import Layout
from fastserve.definitions import Definition, Entity, EventSource, FeatureService, FeatureView, PushSource
from fastserve.definitions.serde import canonical_json, content_hash, from_dict
from fastserve.definitions.validate import join_keys_of
from fastserve.errors import RegistryError
from fastserve.registry.datasets import read_pins
from fastserve.registry.online_ids import read_live
from fastserve.registry.plan import Change, Plan, Revision
from fastserve.registry.schema import layouts, objects, projects, revisions, views
from fastserve.registry.snapshot import RegisteredView, Snapshot, fields_of, with_sources
from fastserve.timeutil import now_us
from fastserve.types import parse_dtype

T = TypeVar("T")


def read_revision(connection: sa.Connection, project: str) -> int:
    """The project's revision; 0 when nothing was ever applied."""
    found = connection.scalar(sa.select(projects.c.revision).where(projects.c.project == project))
    return int(found or 0)


def lock_project(connection: sa.Connection, project: str) -> int:
    """The project's revision, held until the transaction ends: writers of a project take turns.

    SQLite has taken its write lock already; PostgreSQL locks the project's row.
    """
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert  # noqa: PLC0415  (needs no driver, only time)

        new = insert(projects).values(project=project, revision=0).on_conflict_do_nothing()
        connection.execute(new)
        query = sa.select(projects.c.revision).where(projects.c.project == project).with_for_update()
        return int(connection.execute(query).scalar_one())
    return read_revision(connection, project)


def read_snapshot(connection: sa.Connection, registry_id: str, project: str, revision: int) -> Snapshot:
    """The project's state at a revision that exists."""
    rows = connection.execute(
        sa.select(objects.c.kind, objects.c.body, objects.c.view_id)
        .where(
            objects.c.project == project,
            objects.c.from_revision <= revision,
            sa.or_(objects.c.to_revision.is_(None), objects.c.to_revision > revision),
        )
        .order_by(objects.c.kind, objects.c.name, objects.c.version)
    ).all()
    found: list[Definition] = []
    view_ids: dict[tuple[str, int], int] = {}
    for kind, body, view_id in rows:
        obj = from_dict(kind, json.loads(body))
        found.append(obj)
        if isinstance(obj, FeatureView):
            view_ids[obj.name, obj.version] = view_id
    records = _read_layouts(connection, project, revision)
    made = _snapshot(registry_id, project, revision, found, view_ids, records)
    made = made.serving(read_live(connection, project))
    pinned = {service.name: service.pinned_to for service in made.services.values() if service.pinned_to}
    if not pinned:
        return made
    pins = read_pins(connection, project, set(pinned.values()))
    return replace(made, pins=MappingProxyType({name: pins[to] for name, to in pinned.items() if to in pins}))


def read_history(connection: sa.Connection, project: str, limit: int) -> list[Revision]:
    """The newest revisions, newest first."""
    columns = (revisions.c.revision, revisions.c.applied_us, revisions.c.author, revisions.c.summary)
    query = (
        sa.select(*columns)
        .where(revisions.c.project == project)
        .order_by(revisions.c.revision.desc())
        .limit(limit)
    )
    return [Revision(*row) for row in connection.execute(query)]


def write_plan(connection: sa.Connection, before: Snapshot, plan: Plan, author: str) -> int:
    """Write a plan made against `before`, in a transaction that holds the project; the new revision."""
    revision = before.revision + 1
    for change in plan.effective:
        view_id = None
        if isinstance(change.definition, FeatureView):
            view_id = _write_view(connection, before, change, revision)
        if change.action != "create":
            _close(connection, before.project, change, revision)
        if change.action != "retire":
            _insert(connection, before.project, change, revision, view_id)
    project = before.project
    if before.revision == 0 and connection.dialect.name != "postgresql":
        connection.execute(sa.insert(projects).values(project=project, revision=revision))
    else:
        where = projects.c.project == project
        connection.execute(sa.update(projects).where(where).values(revision=revision))
    connection.execute(
        sa.insert(revisions).values(
            project=project,
            revision=revision,
            applied_us=now_us(),
            author=author,
            summary=plan.summary,
        )
    )
    return revision


# ---- reading -------------------------------------------------------------------------------------


def _read_layouts(connection: sa.Connection, project: str, revision: int) -> dict[int, tuple[Layout, ...]]:
    rows = connection.execute(
        sa.select(layouts.c.view_id, layouts.c.layout_id, layouts.c.fields)
        .join(views, views.c.view_id == layouts.c.view_id)
        .where(views.c.project == project, layouts.c.from_revision <= revision)
        .order_by(layouts.c.view_id, layouts.c.layout_id)
    )
    found: dict[int, tuple[Layout, ...]] = {}
    for view_id, layout_id, text in rows:
        fields = json.loads(text)
        record = Layout(
            layout_id, tuple(name for name, _ in fields), tuple(parse_dtype(dtype) for _, dtype in fields)
        )
        found[view_id] = (*found.get(view_id, ()), record)
    return found


def _snapshot(
    registry_id: str,
    project: str,
    revision: int,
    found: list[Definition],
    view_ids: Mapping[tuple[str, int], int],
    records: Mapping[int, tuple[Layout, ...]],
) -> Snapshot:
    entities = {o.name: o for o in found if isinstance(o, Entity)}
    registered = {}
    for key, view in {(o.name, o.version): o for o in found if isinstance(o, FeatureView)}.items():
        view_id = view_ids[key]
        keys = MappingProxyType(join_keys_of(view, entities))
        registered[key] = RegisteredView(view, view_id, keys, records[view_id])
    return Snapshot(
        registry_id=registry_id,
        project=project,
        revision=revision,
        entities=MappingProxyType(entities),
        views=MappingProxyType(with_sources(registered)),
        services=_named(o for o in found if isinstance(o, FeatureService)),
        push_sources=_named(o for o in found if isinstance(o, PushSource)),
        event_sources=_named(o for o in found if isinstance(o, EventSource)),
    )


def _named(found: Iterable[T]) -> Mapping[str, T]:
    return MappingProxyType({o.name: o for o in found})  # type: ignore[attr-defined]


# ---- writing -------------------------------------------------------------------------------------


def _write_view(connection: sa.Connection, before: Snapshot, change: Change, revision: int) -> int:
    """The view's id, new for a created one; with its layout, where that is a new one."""
    view = change.definition
    assert isinstance(view, FeatureView)
    if change.action == "create":
        values = {"project": before.project, "name": view.name, "version": view.version}
        made = connection.execute(sa.insert(views).values(**values)).inserted_primary_key
        assert made is not None
        _insert_layout(connection, made[0], 1, view, revision)
        return int(made[0])
    registered = before.views[view.name, view.version]
    known = [(layout.names, layout.dtypes) for layout in registered.layouts]
    if change.action == "update" and fields_of(view) not in known:
        newest = registered.layouts[-1].layout_id
        _insert_layout(connection, registered.view_id, newest + 1, view, revision)
    return registered.view_id


def _insert_layout(
    connection: sa.Connection, view_id: int, layout_id: int, view: FeatureView, revision: int
) -> None:
    fields = json.dumps([[f.name, f.dtype] for f in view.schema])
    values = {"view_id": view_id, "layout_id": layout_id, "fields": fields, "from_revision": revision}
    connection.execute(sa.insert(layouts).values(**values))


def _close(connection: sa.Connection, project: str, change: Change, revision: int) -> None:
    closed = connection.execute(
        sa.update(objects)
        .where(
            objects.c.project == project,
            objects.c.kind == change.kind,
            objects.c.name == change.name,
            objects.c.version == (change.version or 0),
            objects.c.to_revision.is_(None),
        )
        .values(to_revision=revision)
    )
    if closed.rowcount != 1:
        raise RegistryError(f"{change.label} changed while it was being written; nothing was written")


def _insert(
    connection: sa.Connection, project: str, change: Change, revision: int, view_id: int | None
) -> None:
    assert change.definition is not None
    connection.execute(
        sa.insert(objects).values(
            project=project,
            kind=change.kind,
            name=change.name,
            version=change.version or 0,
            view_id=view_id,
            body=canonical_json(change.definition),
            hash=content_hash(change.definition),
            from_revision=revision,
        )
    )
