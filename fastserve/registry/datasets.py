"""Training data sets in SQL: what was made, from which view versions and rows, and which services are pinned to it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fastserve.definitions import FeatureService, FeatureView, OnDemandFeatureView
from fastserve.definitions.fingerprint import output_fields, schema_fingerprint
from fastserve.definitions.validate import label, resolve
from fastserve.errors import DefinitionError, Problem, UnknownObjectError
from fastserve.registry.plan import Plan
from fastserve.registry.schema import dataset_views, training_datasets, views
from fastserve.registry.snapshot import Pin


@dataclass(frozen=True, slots=True)
class UsedView:
    """A view version that a data set was made from.

    Attributes:
        definition_hash: the definition's content hash at that time.
        origin: where its rows came from: ``{"kind": "offline_table", "uri", "version"}``, or a source's files.
    """

    view_id: int
    view: str
    version: int
    definition_hash: str
    origin: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TrainingDataset:
    """A registered training data set.

    Attributes:
        service: the feature service it was made for; '' for a list of features.
        fingerprint: its schema fingerprint.
        uri: its directory; a relative one is relative to the repo.
        rows: how many labels.
        manifest: what is in its manifest.json.
        views: its lineage.
    """

    dataset_id: str
    name: str
    service: str
    fingerprint: str
    uri: str
    rows: int
    created_us: int
    author: str
    manifest: Mapping[str, Any]
    views: tuple[UsedView, ...] = ()


def write_dataset(connection: sa.Connection, project: str, dataset: TrainingDataset) -> None:
    """Insert a data set and its lineage, or move it: its id stands for its content."""
    key = (
        training_datasets.c.project == project,
        training_datasets.c.dataset_id == dataset.dataset_id,
    )
    moved = connection.execute(sa.update(training_datasets).where(*key).values(uri=dataset.uri))
    if moved.rowcount:
        return
    connection.execute(
        sa.insert(training_datasets).values(
            project=project,
            dataset_id=dataset.dataset_id,
            name=dataset.name,
            service=dataset.service,
            fingerprint=dataset.fingerprint,
            uri=dataset.uri,
            rows=dataset.rows,
            created_us=dataset.created_us,
            author=dataset.author,
            manifest=json.dumps(dataset.manifest),
        )
    )
    for used in dataset.views:
        connection.execute(
            sa.insert(dataset_views).values(
                project=project,
                dataset_id=dataset.dataset_id,
                view_id=used.view_id,
                definition_hash=used.definition_hash,
                origin=json.dumps(used.origin),
            )
        )


def read_datasets(
    connection: sa.Connection, project: str, *, view: str = "", service: str = ""
) -> list[TrainingDataset]:
    """The data sets of a project, newest first; of those, the ones that read a view or are for a service."""
    query = sa.select(training_datasets).where(training_datasets.c.project == project)
    if service:
        query = query.where(training_datasets.c.service == service)
    rows = connection.execute(
        query.order_by(training_datasets.c.created_us.desc(), training_datasets.c.dataset_id)
    ).all()
    lineage = _lineage(connection, project)
    found = [_dataset(row, lineage.get(row.dataset_id, ())) for row in rows]
    return [d for d in found if not view or any(used.view == view for used in d.views)]


def read_dataset(connection: sa.Connection, project: str, dataset: str) -> TrainingDataset:
    """A data set by id, else the newest one of that name.

    Raises:
        UnknownObjectError: there is none.
    """
    found = read_datasets(connection, project)
    for one in (*(d for d in found if d.dataset_id == dataset), *(d for d in found if d.name == dataset)):
        return one
    names = {d.dataset_id for d in found} | {d.name for d in found}
    if not names:
        raise UnknownObjectError(
            f"unknown training data set {dataset!r}",
            hint="none is registered yet; `fastserve training-set create` makes one",
        )
    raise UnknownObjectError.of("training data set", dataset, names)


def _lineage(connection: sa.Connection, project: str) -> dict[str, tuple[UsedView, ...]]:
    rows = connection.execute(
        sa.select(dataset_views, views.c.name, views.c.version)
        .join(views, views.c.view_id == dataset_views.c.view_id)
        .where(dataset_views.c.project == project)
        .order_by(views.c.name, views.c.version)
    )
    found: dict[str, tuple[UsedView, ...]] = {}
    for row in rows:
        used = UsedView(row.view_id, row.name, row.version, row.definition_hash, json.loads(row.origin))
        found[row.dataset_id] = (*found.get(row.dataset_id, ()), used)
    return found


def _dataset(row: Any, lineage: tuple[UsedView, ...]) -> TrainingDataset:
    return TrainingDataset(
        dataset_id=row.dataset_id,
        name=row.name,
        service=row.service,
        fingerprint=row.fingerprint,
        uri=row.uri,
        rows=row.rows,
        created_us=row.created_us,
        author=row.author,
        manifest=json.loads(row.manifest),
        views=lineage,
    )


# ---- pins ----------------------------------------------------------------------------------------


def read_pins(connection: sa.Connection, project: str, ids: Collection[str]) -> dict[str, Pin]:
    """Data set id -> what a service pinned to it is held to; unknown ids are left out."""
    rows = connection.execute(
        sa.select(training_datasets).where(
            training_datasets.c.project == project, training_datasets.c.dataset_id.in_(sorted(ids))
        )
    )
    return {row.dataset_id: _pin(row.dataset_id, json.loads(row.manifest)) for row in rows}


def _pin(dataset_id: str, manifest: Mapping[str, Any]) -> Pin:
    return Pin(
        dataset_id=dataset_id,
        fingerprint=manifest["schema_fingerprint"],
        full_feature_names=manifest["full_feature_names"],
        versions={
            part["view"]: part["version"] for part in manifest["features"] if part["asked_version"] is None
        },
        functions={
            (used["view"], used["version"]): used["origin"]["code_sha256"]
            for used in manifest.get("views", ())
            if used["origin"]["kind"] == "on_demand"
        },
    )


def check_pins(connection: sa.Connection, plan: Plan) -> None:
    """Refuse to apply what would make a pinned service answer another schema than its data set's.

    Raises:
        DefinitionError: an unknown data set, or a service that no longer fits its; all of them.
    """
    after = [c.definition for c in plan.changes if c.action != "retire" and c.definition is not None]
    pinned = [o for o in after if isinstance(o, FeatureService) and o.pinned_to]
    if not pinned:
        return
    pins = read_pins(connection, plan.project, {service.pinned_to for service in pinned})
    known = {(o.name, o.version): o for o in after if isinstance(o, FeatureView)}
    problems = [p for service in pinned for p in _pin_problems(service, pins.get(service.pinned_to), known)]
    if problems:
        raise DefinitionError(problems)


def _other_functions(
    service: FeatureService, pin: Pin, known: Mapping[tuple[str, int], FeatureView]
) -> Iterator[Problem]:
    """On-demand views that would compute the service's features otherwise than the data set's."""
    for (name, version), digest in pin.functions.items():
        view = known.get((name, version))
        if isinstance(view, OnDemandFeatureView) and view.code_sha256 != digest:
            yield Problem(
                label(service),
                f"is pinned to {pin.dataset_id}, made by another function of on-demand view {name!r}",
                f"declare the new one as another version of {name!r}, or take pinned_to away",
            )


def _pin_problems(
    service: FeatureService, pin: Pin | None, known: dict[tuple[str, int], FeatureView]
) -> Iterator[Problem]:
    if pin is None:
        yield Problem(
            label(service),
            f"is pinned to training data set {service.pinned_to!r}, which is not registered",
            "take an id from `fastserve training-set list`",
        )
        return
    parts = []
    for part in pin.applied(service.features):
        view = resolve(part, known)
        if view is None:
            yield Problem(
                label(service),
                f"is pinned to {pin.dataset_id}, which used {part.view}@v{part.version}; that is not registered",
                "keep that version of the view, or take pinned_to away",
            )
            return
        parts.append((part, view))
    yield from _other_functions(service, pin, known)
    made = schema_fingerprint(output_fields(parts, full_feature_names=pin.full_feature_names))
    if made != pin.fingerprint:
        yield Problem(
            label(service),
            f"is pinned to {pin.dataset_id} of schema {pin.fingerprint}, and would answer schema {made}",
            "declare what the data set has under this name, or a service of another name for the next model",
        )
