"""What a query or a transform may read: files and PostgreSQL, each under a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from fastserve.definitions.freeze import freeze, frozen_tags

FORMATS: Final = ("parquet", "csv", "arrow", "delta")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInput:
    """Files of one schema, as a table.

    Args:
        path: file, directory or URL; a relative path is relative to the repo directory.
        format: ``parquet``, ``csv``, ``arrow`` or ``delta``; default by the path's ending, else Parquet.
        columns: of CSV: column -> type of fastserve.types. CSV holds text, and what is not named here stays text.
    """

    path: str
    format: str = "parquet"
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __init__(
        self, path: str | Path, *, format: str | None = None, columns: Mapping[str, Any] | None = None
    ) -> None:
        path = str(path)
        types = {name: str(dtype) for name, dtype in (columns or {}).items()}
        freeze(self, path=path, format=format or format_of(path), columns=frozen_tags(types))

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresInput:
    """A table, or the answer of a query, of a PostgreSQL database. All inputs of one URL are one snapshot.

    Args:
        url_env: environment variable with the URL, ``postgresql://user:password@host/db``: a definition holds no
            password.
        table: ``table`` or ``schema.table``; or
        query: a SELECT that PostgreSQL answers. ``current_setting('fastserve.start')``, ``fastserve.end`` and
            ``fastserve.as_of`` are the run's times as text, to be cast to timestamptz.
    """

    url_env: str
    table: str = ""
    query: str = ""

    def __init__(self, url_env: str, *, table: str = "", query: str = "") -> None:
        freeze(self, url_env=url_env, table=table, query=query)


Input: TypeAlias = FileInput | PostgresInput


def format_of(path: str) -> str:
    """The file format that a path's ending names; Parquet where it names none."""
    ending = path.rstrip("/").rsplit(".", 1)[-1].lower()
    return {"csv": "csv", "gz": "csv", "arrow": "arrow", "feather": "arrow", "ipc": "arrow"}.get(
        ending, "parquet"
    )
