"""Answers that were served, as a table: what `fastserve verify` rebuilds from history, and what a log of them holds.

One table is of one shape of request; a row is one entity of one answer. Columns:

    answered_at              the instant t that the answer holds for
    entity:<column>          the request's columns: join keys, and those that on-demand views read
    feature:<name>           the value as it was answered, of the declared type
    status:<name>            uint8, see fastserve.codec.status
    event_timestamp:<read>   of the row that values come from, null without one; `Asked.reads` says of which features
    created_timestamp:<read> likewise

As a file it is Parquet, and what was asked is JSON in the schema's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.definitions import FeatureViewProjection
from fastserve.errors import InvalidDataError

Ints = npt.NDArray[np.int64]

TIME: Final = "answered_at"
ENTITY: Final = "entity:"
FEATURE: Final = "feature:"
STATUS: Final = "status:"
EVENT: Final = "event_timestamp:"
CREATED: Final = "created_timestamp:"
SUFFIX: Final = ".parquet"
UNREADABLE: Final = 255
"""A status beside those of a read: the stored row could not be read."""

_META: Final = b"fastserve.answers"


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, and by which definitions it was answered.

    Attributes:
        service: the service's name, or '' for references.
        parts: what is read of each view, with the view's version.
        revision: of the registry.
        reads: feature -> the read that its values come from.
        registry_id, project: where the definitions are.
    """

    service: str
    parts: tuple[FeatureViewProjection, ...]
    full_feature_names: bool
    revision: int
    fingerprint: str
    reads: Mapping[str, str]
    registry_id: str = ""
    project: str = ""

    def to_json(self) -> str:
        """As the files have it."""
        parts = [
            {
                "view": part.view,
                "version": part.version,
                "features": list(part.features),
                "alias": part.alias,
                "join_key_map": dict(part.join_key_map),
            }
            for part in self.parts
        ]
        return json.dumps({**_plain(self), "parts": parts, "reads": dict(self.reads)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Asked:
        """The inverse.

        Raises:
            ValueError, TypeError, KeyError: it is something else.
        """
        data = json.loads(text)
        parts = tuple(
            FeatureViewProjection(**{**part, "features": tuple(part["features"])})
            for part in data.pop("parts")
        )
        return cls(parts=parts, **data)


def _plain(asked: Asked) -> dict[str, Any]:
    names = ("service", "full_feature_names", "revision", "fingerprint", "registry_id", "project")
    return {name: getattr(asked, name) for name in names}


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Answers of one shape; see the module's docstring for the table's columns."""

    asked: Asked
    table: pa.Table

    def __len__(self) -> int:
        return len(self.table)

    @property
    def times(self) -> Ints:
        """The instants that rows hold for, microseconds UTC, [n]."""
        return _micros(self.table[TIME])

    @property
    def entities(self) -> pa.Table:
        """The request's columns, under their own names."""
        found = [name for name in self.table.column_names if name.startswith(ENTITY)]
        return self.table.select(found).rename_columns([name.removeprefix(ENTITY) for name in found])

    def values(self, name: str) -> pa.ChunkedArray:
        """A feature's values."""
        return self.table[FEATURE + name]

    def statuses(self, name: str) -> npt.NDArray[np.uint8]:
        """A feature's statuses, [n]."""
        found: npt.NDArray[np.uint8] = self.table[STATUS + name].to_numpy()
        return found

    def event_times(self, name: str) -> Ints:
        """Event times of the rows that a feature's values come from, microseconds, [n]; the least int64 for none."""
        return _micros(self.table[EVENT + self.asked.reads[name]])

    def created_times(self, name: str) -> Ints:
        """Created times of these rows, likewise."""
        return _micros(self.table[CREATED + self.asked.reads[name]])

    def take(self, rows: npt.NDArray[np.intp] | Ints) -> Answers:
        """Some of the rows."""
        return Answers(self.asked, self.table.take(pa.array(rows)))


def _micros(column: pa.ChunkedArray) -> Ints:
    found: Ints = column.cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy()
    return found


def write_answers(answers: Answers, path: Path) -> int:
    """Write a file, whole or not at all, that only its owner may read; its size in bytes.

    Raises:
        OSError: it cannot be written.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415  (a server without a log need not load it)

    part = path.with_name(f".{path.name}.part")
    table = answers.table.replace_schema_metadata({_META: answers.asked.to_json()})
    part.touch(mode=0o600)
    pq.write_table(table, part, compression="zstd")
    size = part.stat().st_size
    part.replace(path)
    return size


def read_answers(folder: Path) -> Iterator[Answers]:
    """The files of a log, oldest first. One that is removed meanwhile, as the oldest are, is left out.

    Raises:
        InvalidDataError: there is no such directory, or a file is none of a log.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415

    if not folder.is_dir():
        raise InvalidDataError("is no directory", where=str(folder), hint="what `serve --log-answers` names")
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            table = pq.read_table(path)
            yield Answers(Asked.from_json((table.schema.metadata or {})[_META]), table)
        except FileNotFoundError:
            continue
        except (OSError, pa.ArrowException, ValueError, TypeError, KeyError):
            raise InvalidDataError(
                "is no file of answers", where=str(path), hint="remove it, or name another directory"
            ) from None
