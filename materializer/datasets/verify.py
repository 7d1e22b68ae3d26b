"""Make a data set again from its manifest, and say what differs.

Definitions are read at the recorded registry revision, offline tables at the recorded version, sources from the
recorded files. So neither later ingests, late rows, compaction nor newer definitions change the outcome.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fastserve.config import Config
from fastserve.definitions import FeatureViewProjection
from fastserve.definitions.serde import content_hash
from fastserve.errors import FastserveError, InvalidDataError, RegistryError, UnknownObjectError
from fastserve.on_demand.functions import Functions
from fastserve.registry import RegisteredView, Snapshot
from materializer.datasets.compare import differing_columns
from materializer.datasets.content import file_hash, read_parquet, table_hash, write_parquet
from materializer.datasets.create import remake
from materializer.datasets.manifest import DATA, SPINE, DatasetManifest, installed, software
from materializer.datasets.opened import Dataset, open_dataset
from materializer.datasets.origins import Origin, Replay, troubles
from materializer.datasets.report import Finding, Report
from materializer.on_demand import views_of

if TYPE_CHECKING:
    from fastserve.registry import Registry

Parts = list[tuple[FeatureViewProjection, RegisteredView]]


def verify(config: Config, registry: Registry, dataset: str | Path) -> Report:
    """Re-make a data set and compare the bytes.

    Args:
        dataset: id, name or directory.

    Raises:
        UnknownObjectError, InvalidDataError: as open_dataset.
        RegistryError: the registry cannot be read.
    """
    opened = open_dataset(config, registry, dataset)
    manifest = opened.manifest
    findings = [*_manifest_findings(opened, registry), *_file_findings(opened)]
    notes = _software_notes(manifest)
    parts, gone = _definitions(config, registry, manifest)
    notes += _moved_on(registry, manifest)
    if gone:
        return _report(manifest, [*findings, *gone], notes, fatal=True)
    views = views_of(parts)
    origins = {v["view_id"]: Origin.from_dict(v["origin"]) for v in manifest.views}
    functions = Functions(config.repo)
    fatal = False
    for view_id, rv in views.items():
        for trouble in troubles(origins[view_id], rv, config, functions):
            findings.append(Finding(trouble.kind, trouble.where, trouble.message))
            fatal = fatal or trouble.fatal
    spine = _spine(opened)
    if spine is None:
        fatal = True
    elif not fatal:
        replay = Replay(origins, config)
        remade = list(_remade(opened, spine, parts, replay, functions))
        findings += [Finding(t.kind, t.where, t.message) for t in dict.fromkeys(replay.troubles)] + remade
    return _report(manifest, findings, notes, fatal=fatal)


def _report(manifest: DatasetManifest, findings: list[Finding], notes: list[str], *, fatal: bool) -> Report:
    outcome = "cannot_be_remade" if fatal else "different" if findings else "equal"
    return Report(manifest.id, outcome, manifest.rows, tuple(findings), tuple(notes))  # type: ignore[arg-type]


# ---- the data set itself -------------------------------------------------------------------------


def _manifest_findings(opened: Dataset, registry: Registry) -> Iterator[Finding]:
    """The manifest against its id, and against what the registry was told."""
    manifest, where = opened.manifest, str(opened.folder)
    if manifest.id != f"{manifest.name}-{manifest.identity()}":
        yield Finding("manifest", where, "was changed: its id does not fit what it says")
    try:
        known = registry.training_dataset(manifest.id)
    except UnknownObjectError:
        yield Finding("manifest", where, f"{manifest.id} is not registered in this registry")
        return
    if dict(known.manifest) != manifest.to_dict():
        names = sorted(n for n, v in manifest.to_dict().items() if known.manifest.get(n) != v)
        yield Finding(
            "manifest", where, f"differs from the registered one in {', '.join(names) or 'fewer members'}"
        )


def _file_findings(opened: Dataset) -> Iterator[Finding]:
    for name, expected in (
        (DATA, opened.manifest.output_sha256),
        (SPINE, opened.manifest.spine_file_sha256),
    ):
        path = opened.folder / name
        try:
            if file_hash(path) != expected:
                yield Finding("file", str(path), "was changed since it was made")
        except InvalidDataError as error:
            yield Finding("file", str(path), error.message)


def _spine(opened: Dataset) -> pa.Table | None:
    """The labels, if they are still those that the data set was made for."""
    try:
        table = read_parquet(opened.folder / SPINE)
    except InvalidDataError:
        return None
    return table if table_hash(table) == opened.manifest.spine_sha256 else None


# ---- what it was made from -----------------------------------------------------------------------


def _definitions(
    config: Config, registry: Registry, manifest: DatasetManifest
) -> tuple[Parts, list[Finding]]:
    """The projections with their views at the recorded revision; or which of them is gone."""
    where = f"registry {registry.registry_id}, project {config.project}"
    if (registry.registry_id, config.project) != (manifest.registry_id, manifest.project):
        made = f"registry {manifest.registry_id}, project {manifest.project}"
        return [], [Finding("definition", where, f"the data set was made from {made}")]
    try:
        snapshot = registry.snapshot(manifest.registry_revision)
        parts = snapshot.resolve(_projection(part) for part in manifest.features)
    except (RegistryError, UnknownObjectError) as error:
        return [], [
            Finding("definition", where, f"gone at revision {manifest.registry_revision}: {error.message}")
        ]
    return parts, list(_changed_definitions(snapshot, manifest))


def _changed_definitions(snapshot: Snapshot, manifest: DatasetManifest) -> Iterator[Finding]:
    for used in manifest.views:
        rv = snapshot.view(used["view"], used["version"])
        name = f"view {used['view']}@v{used['version']}"
        if rv.view_id != used["view_id"] or content_hash(rv.view) != used["definition_hash"]:
            yield Finding(
                "definition", name, f"is another one at revision {snapshot.revision} than was recorded"
            )


def _projection(part: Any) -> FeatureViewProjection:
    return FeatureViewProjection(
        view=part["view"],
        version=part["version"],
        features=tuple(part["features"]),
        alias=part["alias"],
        join_key_map=part["join_key_map"],
    )


def _moved_on(registry: Registry, manifest: DatasetManifest) -> list[str]:
    """What happened to the definitions since; it does not matter to the outcome."""
    if registry.registry_id != manifest.registry_id:
        return []
    now = registry.snapshot()
    notes = []
    for used in manifest.views:
        name, version = used["view"], used["version"]
        rv = now.views.get((name, version))
        if rv is None:
            notes.append(f"view {name}@v{version} is no longer registered")
        elif content_hash(rv.view) != used["definition_hash"]:
            notes.append(
                f"view {name}@v{version} has another definition since revision {manifest.registry_revision}"
            )
        newest = now.versions(name)[-1:]
        if newest and newest[0] > version:
            notes.append(f"view {name} has a newer version, v{newest[0]}")
    return notes


def _software_notes(manifest: DatasetManifest) -> list[str]:
    now = software() | (installed("duckdb") if "duckdb" in manifest.software else {})
    return [
        f"made with {name} {version}, verified with {now.get(name, 'none')}"
        for name, version in manifest.software.items()
        if now.get(name) != version
    ]


# ---- making it again -----------------------------------------------------------------------------


def _remade(
    opened: Dataset, spine: pa.Table, parts: Parts, reader: Replay, functions: Functions
) -> Iterator[Finding]:
    manifest = opened.manifest
    try:
        table = remake(spine, manifest, parts, reader, functions)
    except FastserveError as error:
        yield Finding("source", error.where, f"its rows no longer make the data set: {error.message}")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / DATA
        write_parquet(table, path)
        if file_hash(path) == manifest.output_sha256 and _intact(opened):
            return
    found = list(differing_columns(table, manifest.columns, _stored(opened)))
    yield from found
    if not found and _intact(opened):
        changed = ", ".join(_software_notes(manifest)) or "by the same software"
        yield Finding("encoding", str(opened.folder / DATA), f"equal values in other bytes: {changed}")


def _intact(opened: Dataset) -> bool:
    try:
        return file_hash(opened.folder / DATA) == opened.manifest.output_sha256
    except InvalidDataError:
        return False


def _stored(opened: Dataset) -> pa.Table | None:
    try:
        return read_parquet(opened.folder / DATA)
    except InvalidDataError:
        return None
