"""Sources: where the rows of a feature view come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from fastserve.definitions.freeze import freeze, frozen_tags

FORMATS: Final = ("parquet", "csv", "arrow", "delta")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """Files of one schema: a file, a directory, or any URL that pyarrow opens (``s3://``, ``gs://``).

    Args:
        path: file, directory or URL; a relative path is relative to the repo directory.
        timestamp_field: column with the time from which a row holds (event time).
        created_timestamp_column: column with the time at which the row became known. Without one, or where
            it is null, a row counts as known at its event time.
        field_mapping: source column -> field or join key name, where they differ.
        format: ``parquet``, ``csv``, ``arrow`` or ``delta``; default by the path's ending, else Parquet.
        name: default the path.
    """

    name: str
    path: str
    timestamp_field: str
    created_timestamp_column: str = ""
    field_mapping: Mapping[str, str] = field(default_factory=dict, hash=False)
    format: str = "parquet"
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    owner: str = ""

    def __init__(
        self,
        path: str,
        timestamp_field: str = "event_timestamp",
        created_timestamp_column: str | None = None,
        *,
        name: str = "",
        field_mapping: Mapping[str, str] | None = None,
        format: str | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str = "",
    ) -> None:
        path = str(path)
        freeze(
            self,
            name=name or path,
            path=path,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column or "",
            field_mapping=frozen_tags(field_mapping),
            format=format or format_of(path),
            description=description,
            tags=frozen_tags(tags),
            owner=owner,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PushSource:
    """Rows pushed by a producer; `batch_source`, if any, holds their history."""

    name: str
    batch_source: FileSource | None = None
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    owner: str = ""

    def __init__(
        self,
        name: str,
        batch_source: FileSource | None = None,
        *,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str = "",
    ) -> None:
        freeze(
            self,
            name=name,
            batch_source=batch_source,
            description=description,
            tags=frozen_tags(tags),
            owner=owner,
        )


Source: TypeAlias = FileSource | PushSource


def format_of(path: str) -> str:
    """The file format that a path's ending names; Parquet where it names none."""
    ending = path.rstrip("/").rsplit(".", 1)[-1].lower()
    return {"csv": "csv", "gz": "csv", "arrow": "arrow", "feather": "arrow", "ipc": "arrow"}.get(
        ending, "parquet"
    )


def batch_source(source: Source | None) -> FileSource | None:
    """The files that hold a source's history, if any."""
    return source.batch_source if isinstance(source, PushSource) else source
