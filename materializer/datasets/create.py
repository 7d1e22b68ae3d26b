"""Make a data set: labels kept, features joined, everything noted and hashed, then published in one rename."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import pyarrow as pa

from fastserve.config import Config
from fastserve.definitions import FeatureViewProjection, merge_refs
from fastserve.definitions.fingerprint import output_fields, schema_fingerprint
from fastserve.definitions.serde import content_hash, to_dict
from fastserve.errors import InvalidDataError, RequestError
from fastserve.offline.history import History
from fastserve.on_demand.functions import Functions
from fastserve.registry import RegisteredView, Snapshot, TrainingDataset, UsedView
from fastserve.timeutil import format_timestamp, now_us, parse_timestamp
from materializer.datasets.content import file_hash, keep_spine, table_hash, write_hashed
from materializer.datasets.manifest import DATA, SPINE, DatasetManifest, installed, read_manifest, software
from materializer.datasets.origins import Origin, Recorder, computed
from materializer.datasets.stage import publish, staging
from materializer.engine import Engine
from materializer.on_demand import views_of
from materializer.pit.spine import Spine, to_spine
from materializer.progress import Watch, unwatched
from materializer.shards.opening import open_shards
from materializer.training import TrainingSet, as_of, join_features

if TYPE_CHECKING:
    from fastserve.registry import Registry

DATASETS: Final = ".fastserve/training"
"""Where data sets go in a repo unless told otherwise."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
Features = Sequence[str | FeatureViewProjection]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRequest:
    """What to make.

    Attributes:
        name: of the data set; further makings may have the same one.
        service: name of a registered feature service, or ''.
        features: references or projections, instead of a service.
        cutoff: only rows known (created) by then; ``label_time``: by each label's own time; None for all.
        full_feature_names: name features ``view__feature``.
        timestamp_column: the labels' time.
        allow_incomplete: make it although the offline table does not cover all labels.
        author: for the record.
        memory, threads: see `build_training_set`; the data set does not depend on them.
        engine, master, work: see `open_shards`; nor on these.
    """

    name: str
    service: str = ""
    features: Features = ()
    cutoff: int | str | datetime | Literal["label_time"] | None = None
    full_feature_names: bool = False
    timestamp_column: str = "event_timestamp"
    allow_incomplete: bool = False
    author: str = ""
    memory: int | str | None = None
    threads: int | None = None
    engine: str | Engine = "local"
    master: str | None = None
    work: str = ""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The features of a request: as asked, and the view version each projection means."""

    asked: Sequence[FeatureViewProjection]
    parts: list[tuple[FeatureViewProjection, RegisteredView]]

    @classmethod
    def of(cls, request: DatasetRequest, snapshot: Snapshot) -> _Asked:
        if bool(request.service) == bool(request.features):
            raise RequestError(
                "name either features or a service", where="features", hint="features=[...] or service='name'"
            )
        if request.service:
            asked = snapshot.service(request.service).features
            return cls(asked, snapshot.resolve(snapshot.service_parts(request.service)))
        asked = merge_refs(request.features)
        return cls(asked, snapshot.resolve(asked))

    def views(self) -> dict[int, RegisteredView]:
        """View id -> view of all that is read or computed, each once, in the order first asked."""
        return views_of(self.parts)

    def to_json(self) -> tuple[dict[str, Any], ...]:
        """The manifest's `features`: projections with the version each read."""
        made = []
        for before, (part, rv) in zip(self.asked, self.parts, strict=True):
            about: dict[str, Any] = {"join_key_map": {}, "alias": "", **to_dict(part)}
            made.append({**about, "version": rv.view.version, "asked_version": before.version})
        return tuple(made)


def create(
    config: Config,
    registry: Registry,
    spine: Any,
    request: DatasetRequest,
    *,
    output: str | Path = "",
    watch: Watch = unwatched,
) -> DatasetManifest:
    """Make a data set and register it; one that is there already, made of the same, is left as it is.

    Args:
        spine: labels: a pandas or polars frame, or Arrow.
        output: the directory to make; '' for one named after the id, under `.fastserve/training` of the repo.

    Raises:
        RequestError: a wrong name, output or cutoff, or as build_training_set; nothing was written.
        UnknownObjectError: a view, feature or service is not registered.
        InvalidDataError: a source's row does not fit, or a source changed meanwhile.
        IncompleteHistoryError: labels reach outside what the offline table covers.
    """
    _check(request)
    cutoff = _cutoff(request.cutoff)
    target = _target(config, output)
    snapshot = registry.snapshot()
    asked = _Asked.of(request, snapshot)
    labels = to_spine(spine).table
    parent = config.repo / DATASETS if target is None else target.parent
    with staging(parent) as folder:
        kept = Spine(keep_spine(labels, folder / SPINE))
        recorder = Recorder(_history(config, registry, request, cutoff), config)
        with open_shards(config, request.engine, request.master, request.work) as shards:
            made = join_features(
                kept,
                asked.parts,
                recorder,
                functions=Functions(config.repo),
                full_feature_names=request.full_feature_names,
                cutoff=cutoff,
                timestamp_column=request.timestamp_column,
                threads=request.threads,
                memory=request.memory,
                shards=shards,
                watch=watch,
            )
        origins = recorder.origins()
        manifest = _manifest(request, snapshot, asked, made, origins, folder)
        manifest.write(folder)
        target = target or parent / manifest.id
        if not publish(folder, target):
            manifest = _same(target, manifest)
    registry.record_training_dataset(record_of(manifest, config, target))
    return manifest


def _history(
    config: Config, registry: Registry, request: DatasetRequest, cutoff: int | str | None
) -> History:
    return History(
        config,
        registry,
        allow_incomplete=request.allow_incomplete,
        as_of_us=as_of(cutoff),
        each_label=cutoff == "label_time",
    )


def _check(request: DatasetRequest) -> None:
    if not isinstance(request.name, str) or not _NAME.fullmatch(request.name):
        raise RequestError(
            f"{request.name!r} is not a usable name",
            where="name",
            hint="use letters, digits and _, starting with a letter or _, at most 128 characters",
        )
    for attribute in ("service", "timestamp_column", "author", "work"):
        value = getattr(request, attribute)
        if not isinstance(value, str):
            raise RequestError(f"is a {type(value).__name__}, not text", where=attribute)
    for attribute in ("full_feature_names", "allow_incomplete"):
        value = getattr(request, attribute)
        if not isinstance(value, bool):
            raise RequestError(f"is a {type(value).__name__}, not true or false", where=attribute)
    if isinstance(request.features, str):
        raise RequestError("is one text, not a list", where="features", hint="['view:feature']")


def _cutoff(cutoff: int | str | datetime | None) -> int | str | None:
    if cutoff is None or cutoff == "label_time":
        return cutoff  # type: ignore[return-value]
    try:
        return parse_timestamp(cutoff)
    except (ValueError, TypeError) as error:
        raise RequestError(str(error), where="cutoff", hint="or 'label_time'") from None


def _target(config: Config, output: str | Path) -> Path | None:
    """The directory to make; refused early where something else stands."""
    if not str(output):
        return None
    if "://" in str(output):
        raise RequestError(
            "is an URL; data sets are written to local directories",
            where="output",
            hint="copy it there after",
        )
    target = Path(output).absolute()
    if target.is_dir() and any(target.iterdir()):
        try:
            read_manifest(target)
        except InvalidDataError:
            raise RequestError(
                "is there already and is no training data set",
                where=str(target),
                hint="name another directory",
            ) from None
    elif target.exists() and not target.is_dir():
        raise RequestError("is a file", where=str(target), hint="name a directory")
    return target


def _same(target: Path, manifest: DatasetManifest) -> DatasetManifest:
    """The manifest of what stands there already, if it is the same data set."""
    there = read_manifest(target)
    if there.id != manifest.id:
        raise RequestError(
            f"holds another data set, {there.id}",
            where=str(target),
            hint="name another directory; data sets are never overwritten",
        )
    for name, expected in ((DATA, there.output_sha256), (SPINE, there.spine_file_sha256)):
        if file_hash(target / name) != expected:
            raise InvalidDataError(
                "the same data set is there already, but damaged",
                where=str(target / name),
                hint="move the directory away and make it again",
            )
    return there


def _manifest(
    request: DatasetRequest,
    snapshot: Snapshot,
    asked: _Asked,
    made: TrainingSet,
    origins: Mapping[int, Origin],
    folder: Path,
) -> DatasetManifest:
    """Write data.parquet, and describe it."""
    columns = write_hashed(made.schema, made.batches(), folder / DATA)
    fields = output_fields(
        [(part, rv.view) for part, rv in asked.parts], full_feature_names=request.full_feature_names
    )
    cutoff = _cutoff(request.cutoff)
    draft = DatasetManifest(
        id="",
        name=request.name,
        project=snapshot.project,
        registry_id=snapshot.registry_id,
        registry_revision=snapshot.revision,
        service=request.service,
        features=asked.to_json(),
        full_feature_names=request.full_feature_names,
        output_names=tuple(made.features),
        schema_fingerprint=schema_fingerprint(fields),
        views=tuple(_used(rv, origins.get(rv.view_id) or computed(rv)) for rv in asked.views().values()),
        timestamp_column=request.timestamp_column,
        cutoff=format_timestamp(cutoff) if isinstance(cutoff, int) else cutoff,
        allow_incomplete=request.allow_incomplete,
        spine_sha256=table_hash(made.spine.table),
        spine_file_sha256=file_hash(folder / SPINE),
        output_sha256=file_hash(folder / DATA),
        columns=columns,
        rows=len(made),
        software=software() | (installed("duckdb") if "query" in {o.kind for o in origins.values()} else {}),
        created_at=format_timestamp(now_us()),
        author=request.author,
    )
    return replace(draft, id=f"{request.name}-{draft.identity()}")


def _used(rv: RegisteredView, origin: Origin) -> dict[str, Any]:
    return {
        "view": rv.view.name,
        "version": rv.view.version,
        "view_id": rv.view_id,
        "definition_hash": content_hash(rv.view),
        "layout_id": rv.layout.layout_id,
        "origin": origin.to_dict(),
    }


def record_of(manifest: DatasetManifest, config: Config, folder: Path) -> TrainingDataset:
    """The registry's line for a data set in a directory."""
    inside = folder.is_relative_to(config.repo)
    return TrainingDataset(
        dataset_id=manifest.id,
        name=manifest.name,
        service=manifest.service,
        fingerprint=manifest.schema_fingerprint,
        uri=str(folder.relative_to(config.repo) if inside else folder),
        rows=manifest.rows,
        created_us=parse_timestamp(manifest.created_at),
        author=manifest.author,
        manifest=manifest.to_dict(),
        views=tuple(
            UsedView(v["view_id"], v["view"], v["version"], v["definition_hash"], v["origin"])
            for v in manifest.views
        ),
    )


def remake(
    spine: pa.Table, manifest: DatasetManifest, parts: Any, reader: Any, functions: Functions
) -> pa.Table:
    """The data set's table again, from recorded labels, projections and rows."""
    cutoff = manifest.cutoff
    made = join_features(
        Spine(spine),
        parts,
        reader,
        functions=functions,
        full_feature_names=manifest.full_feature_names,
        cutoff=cutoff if cutoff in (None, "label_time") else parse_timestamp(cutoff),
        timestamp_column=manifest.timestamp_column,
    )
    return made.to_arrow()
