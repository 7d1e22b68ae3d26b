"""The manifest: what a data set was made from, and the hashes of what came out."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import deltalake
import numpy as np
import pyarrow as pa

from fastserve.errors import InvalidDataError
from fastserve.version import VERSION

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
DATA: Final = "data.parquet"
SPINE: Final = "spine.parquet"
_NOT_IDENTITY: Final = ("id", "format", "registry_revision", "spine_file_sha256", "output_sha256", "software",
                        "created_at", "author")  # fmt: skip
"""What two makings of one data set may differ in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetManifest:
    """All of a data set but its rows.

    Attributes:
        id: name and the first digits of a hash of everything it is made from and came out as.
        registry_id, registry_revision: where its definitions are.
        service: the feature service it was made for; '' for a list of features.
        features: projections in order: view, version, asked_version (None: the newest then), features, alias,
            join_key_map.
        output_names: the features' column names, in order.
        schema_fingerprint: the one that serving answers carry.
        views: per view version: view, version, view_id, definition_hash, layout_id, origin (see origins.Origin).
        cutoff: a time, ``label_time``, or None.
        spine_sha256: of the labels' canonical Arrow IPC bytes.
        spine_file_sha256, output_sha256: of the files' bytes.
        columns: column of the output -> SHA-256 of its canonical Arrow IPC bytes.
        software: package -> version.
        created_at: RFC 3339.
    """

    id: str
    name: str
    project: str
    registry_id: str
    registry_revision: int
    service: str
    features: tuple[Mapping[str, Any], ...]
    full_feature_names: bool
    output_names: tuple[str, ...]
    schema_fingerprint: str
    views: tuple[Mapping[str, Any], ...]
    timestamp_column: str
    cutoff: str | None
    allow_incomplete: bool
    spine_sha256: str
    spine_file_sha256: str
    output_sha256: str
    columns: Mapping[str, str]
    rows: int
    software: Mapping[str, str]
    created_at: str
    author: str
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found

    def identity(self) -> str:
        """What the id ends in: 12 hex digits."""
        made_of = {name: value for name, value in self.to_dict().items() if name not in _NOT_IDENTITY}
        text = json.dumps(made_of, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def write(self, folder: Path) -> None:
        """Write manifest.json."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> DatasetManifest:
    """The manifest in a data set's directory.

    Raises:
        InvalidDataError: there is none, or it is damaged, or of a newer release.
    """
    path = folder / MANIFEST
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidDataError(
            f"is no training data set: {error.strerror}", where=str(path), hint="name its directory or its id"
        ) from None
    except ValueError as error:
        raise InvalidDataError(f"is not valid JSON: {error}", where=str(path)) from None
    return from_dict(data, str(path))


def from_dict(data: Any, where: str) -> DatasetManifest:
    """A manifest from its JSON.

    Raises:
        InvalidDataError: it is none.
    """
    if isinstance(data, dict) and isinstance(data.get("format"), int) and data["format"] > FORMAT:
        raise InvalidDataError(
            f"has format {data['format']}; this fastserve knows {FORMAT}",
            where=where,
            hint="upgrade fastserve",
        )
    specs = {spec.name: str(spec.type) for spec in fields(DatasetManifest)}
    if not isinstance(data, dict) or set(data) != set(specs):
        wrong = set(specs) ^ set(data) if isinstance(data, dict) else {"all"}
        raise InvalidDataError(f"is no manifest: {', '.join(sorted(wrong))}", where=where)
    values: dict[str, Any] = {}
    for name, kind in specs.items():
        value = data[name]
        if not isinstance(value, _JSON_TYPES[kind.partition("[")[0]]):
            raise InvalidDataError(f"is no manifest: {name} is a {type(value).__name__}", where=where)
        values[name] = tuple(value) if isinstance(value, list) else value
    return DatasetManifest(**values)


_JSON_TYPES: Final[dict[str, Any]] = {
    "str": str,
    "int": int,
    "bool": bool,
    "tuple": list,
    "Mapping": dict,
    "str | None": (str, type(None)),
}


def software() -> dict[str, str]:
    """The versions that decide values and bytes."""
    return {
        "fastserve": VERSION,
        "pyarrow": pa.__version__,
        "numpy": np.__version__,
        "deltalake": deltalake.__version__,
        "python": platform.python_version(),
    }


def installed(package: str) -> dict[str, str]:
    """A package that only some data sets need, with its version; empty where it is not installed."""
    try:
        return {package: version(package)}
    except PackageNotFoundError:
        return {}
