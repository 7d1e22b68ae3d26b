"""A data set that was made: found by id, name or directory, and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fastserve.config import Config
from fastserve.display import html_table
from fastserve.errors import InvalidDataError, RequestError
from materializer.datasets.content import file_hash, read_parquet
from materializer.datasets.create import DatasetRequest, create
from materializer.datasets.labels import read_labels
from materializer.datasets.manifest import DATA, MANIFEST, DatasetManifest, read_manifest
from materializer.pit.spine import Spine
from materializer.progress import join_bar
from materializer.training import TrainingSet

if TYPE_CHECKING:
    from fastserve.registry import Registry


@dataclass(frozen=True, slots=True, repr=False)
class Dataset:
    """A training data set on disk.

    Attributes:
        folder: its directory.
        manifest: what it is made of.
    """

    folder: Path
    manifest: DatasetManifest

    @property
    def id(self) -> str:
        """Its id."""
        return self.manifest.id

    @property
    def schema_fingerprint(self) -> str:
        """What serving answers of the same features carry."""
        return self.manifest.schema_fingerprint

    def load(self) -> TrainingSet:
        """The rows, after a check that the file is the one that was written.

        Raises:
            InvalidDataError: data.parquet is missing, or not what the manifest says.
        """
        path = self.folder / DATA
        if file_hash(path) != self.manifest.output_sha256:
            raise InvalidDataError(
                "is not the file that was made: its SHA-256 differs from the manifest's",
                where=str(path),
                hint=f"`fastserve training-set verify {self.id}` says which columns and rows",
            )
        table = read_parquet(path)
        names = self.manifest.output_names
        spine = table.select([name for name in table.column_names if name not in names])
        return TrainingSet(Spine(spine), {name: table[name] for name in names})

    def to_arrow(self) -> pa.Table:
        """Labels, then features."""
        return self.load().to_arrow()

    def to_df(self) -> Any:
        """A pandas frame; features in nullable types."""
        return self.load().to_df()

    def to_polars(self) -> Any:
        """A polars frame."""
        return self.load().to_polars()

    def __len__(self) -> int:
        return self.manifest.rows

    def __repr__(self) -> str:
        about = f"{self.manifest.rows:,} rows; {len(self.manifest.output_names)} features"
        return f"Dataset({self.id!r}; {about}; schema {self.schema_fingerprint})"

    def _repr_html_(self) -> str:
        views = [
            (
                f"{v['view']}@v{v['version']}",
                v["origin"]["kind"],
                v["origin"].get("version"),
                v["origin"]["uri"],
            )
            for v in self.manifest.views
        ]
        return html_table(f"Training data set {self.id}", ("view", "rows from", "version", "place"), views,
                          f"{self.manifest.rows:,} rows, schema {self.schema_fingerprint}")  # fmt: skip


def make_dataset(
    config: Config, registry: Registry, labels: Any, fields: Mapping[str, Any], output: str | Path = ""
) -> Dataset:
    """`create` from a frame or the path of a file, and the data set opened.

    Args:
        fields: of DatasetRequest, by name; and `progress`, whether to show a bar.

    Raises:
        RequestError: an unknown field, or as `create`.
    """
    fields = dict(fields)
    progress = bool(fields.pop("progress", False))
    unknown = set(fields) - {field.name for field in dataclass_fields(DatasetRequest)}
    if unknown:
        raise RequestError(
            f"unknown option {min(unknown)!r}",
            where="create_training_dataset",
            hint="options: cutoff, full_feature_names, timestamp_column, allow_incomplete, author, memory, "
            "threads, engine, master, work, progress",
        )
    table = labels
    if isinstance(labels, (str, Path)):
        table = read_labels(str(labels), registry.snapshot().key_columns())
    with join_bar(progress) as watch:
        manifest = create(config, registry, table, DatasetRequest(**fields), output=output, watch=watch)
    return open_dataset(config, registry, manifest.id)


def open_dataset(config: Config, registry: Registry, dataset: str | Path) -> Dataset:
    """A data set by its id, its name (the newest one) or its directory.

    Raises:
        UnknownObjectError: none is registered by that id or name.
        InvalidDataError: its directory or manifest is gone or damaged.
    """
    given = Path(dataset)
    if (given / MANIFEST).is_file():
        return Dataset(given.absolute(), read_manifest(given))
    folder = config.repo / registry.training_dataset(str(dataset)).uri
    return Dataset(folder, read_manifest(folder))
