"""Where the rows of a data set came from: noted while it is made, and read again from the note.

A view's rows come from its offline table at a version, from a source that is a Delta table at a version, or from
files. A version is read as it was; files are what their bytes hash to, and rows of files added later are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.config import Config
from fastserve.definitions import FileSource, batch_source
from fastserve.errors import InvalidDataError
from fastserve.offline.delta import OfflineTable, table_state, why_unreadable
from fastserve.offline.files import ListedFile, delta_uri, list_files, open_files
from fastserve.offline.history import History, visible_range
from fastserve.offline.source import Window, scan_files

if TYPE_CHECKING:
    from fastserve.registry import RegisteredView

Ints = npt.NDArray[np.int64]
Kind = Literal["offline_table", "delta_source", "files", "nothing"]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source: its path below the source's declared one, its bytes, their SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the rows of one view came from.

    Attributes:
        kind: ``nothing`` is an offline table that no row was ever written to.
        uri: the table's, or the source's path as declared.
        source: the source's name; '' for the offline table.
        version, table_id: of a Delta table.
        pushed_version, pushed_table_id: of the offline table with pushed rows, which are read beside a source.
        files: of a source of files, by ascending path.
    """

    kind: Kind
    uri: str
    source: str = ""
    version: int | None = None
    table_id: str = ""
    pushed_version: int | None = None
    pushed_table_id: str = ""
    files: tuple[SourceFile, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; what does not apply is left out."""
        return {name: value for name, value in asdict(self).items() if value not in ("", None, ())}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Origin:
        """The origin that `to_dict` described."""
        files = tuple(SourceFile(**file) for file in data.get("files", ()))
        return cls(**{**data, "files": files})


class Recorder:
    """Reads rows as a History does, and notes where from.

    Args:
        history: decides.
        config: where sources and tables are.
    """

    def __init__(self, history: History, config: Config) -> None:
        self._history = history
        self._config = config
        self._origins: dict[int, Origin] = {}
        self._listed: dict[int, tuple[FileSource, list[ListedFile]]] = {}

    def read(self, rv: RegisteredView, columns: Sequence[str], times: Ints) -> Iterator[pa.RecordBatch]:
        """As `History.read`; every read of a view sees the same version of it."""
        if rv.view_id not in self._origins:
            self._origins[rv.view_id] = self._decide(rv, times)
        only = None
        if rv.view_id in self._listed:
            only = [file.path for file in self._listed[rv.view_id][1]]
        return read_origin(self._origins[rv.view_id], rv, columns, times, config=self._config, only=only)

    def _decide(self, rv: RegisteredView, times: Ints) -> Origin:
        source = self._history.source_for(rv, times)
        table = self._history.table(rv)
        if source is not None:
            origin = self._of_source(source, rv)
            if not table.exists:
                return origin
            table_id, version = table_state(table.uri)
            return replace(origin, pushed_version=version, pushed_table_id=table_id)
        if not table.exists:
            return Origin(kind="nothing", uri=table.uri)
        table_id, version = table_state(table.uri)
        return Origin(kind="offline_table", uri=table.uri, version=version, table_id=table_id)

    def _of_source(self, source: FileSource, rv: RegisteredView) -> Origin:
        if source.format == "delta":
            table_id, version = table_state(delta_uri(source, self._config.repo))
            return Origin(
                kind="delta_source",
                uri=source.path,
                source=source.name,
                version=version,
                table_id=table_id,
            )
        self._listed[rv.view_id] = (source, list_files(source, self._config.repo))
        return Origin(kind="files", uri=source.path, source=source.name)

    def origins(self) -> dict[int, Origin]:
        """View id -> where its rows came from, after all reads; files are hashed now.

        Raises:
            InvalidDataError: a file changed while the data set was made.
        """
        found = dict(self._origins)
        for view_id, (source, before) in self._listed.items():
            hashed = tuple(SourceFile(file.path, file.size, file.sha256()) for file in before)
            after = {file.path: file for file in list_files(source, self._config.repo)}
            for file in before:
                if after.get(file.path) != file:
                    raise InvalidDataError(
                        "changed while the data set was made",
                        where=f"source {source.name!r}, file {file.path!r}",
                        hint="make it again when nobody writes to the source",
                    )
            found[view_id] = replace(found[view_id], files=hashed)
        return found


class Replay:
    """Reads rows from where a manifest says they came from.

    Args:
        origins: view id -> origin.
        config: where sources and tables are now.
    """

    def __init__(self, origins: Mapping[int, Origin], config: Config) -> None:
        self._origins = origins
        self._config = config

    def read(self, rv: RegisteredView, columns: Sequence[str], times: Ints) -> Iterator[pa.RecordBatch]:
        """As `History.read`."""
        origin = self._origins[rv.view_id]
        only = [file.path for file in origin.files]
        return read_origin(origin, rv, columns, times, config=self._config, only=only)


def read_origin(
    origin: Origin,
    rv: RegisteredView,
    columns: Sequence[str],
    times: Ints,
    *,
    config: Config,
    only: Sequence[str] | None = None,
) -> Iterator[pa.RecordBatch]:
    """The rows that labels of these times can see; of files, those of `only`."""
    if not len(times) or origin.kind == "nothing":
        return iter(())
    start, end = visible_range(times, rv.view.ttl_us)
    table = OfflineTable(config.offline_store, config.project, rv)
    if origin.kind == "offline_table":
        return table.read(columns, start, end, version=origin.version)
    source = batch_source(rv.view.source)
    if source is None:
        raise InvalidDataError("has no batch source", where=f"FeatureView {rv.view.name!r}")
    wanted = None if only is None else frozenset(only)
    files = open_files(source, config.repo, only=wanted, version=origin.version)
    scanned = scan_files(files, source, rv, Window(start, end), columns=columns)
    if origin.pushed_version is None:
        return scanned
    return chain(scanned, table.read(columns, start, end, version=origin.pushed_version))  # as History.read


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something about an origin that is no longer as recorded; `fatal` when its rows cannot be read at all."""

    kind: Literal["source", "history"]
    where: str
    message: str
    fatal: bool


def troubles(origin: Origin, rv: RegisteredView, config: Config) -> Iterator[Trouble]:
    """What keeps the rows of an origin from being read again as they were; nothing when all is there."""
    table = OfflineTable(config.offline_store, config.project, rv).uri
    tables = [(table, origin.pushed_version, origin.pushed_table_id)]
    if origin.kind == "offline_table":
        tables.append((table, origin.version, origin.table_id))
    elif origin.kind == "delta_source":
        uri = origin.uri if "://" in origin.uri else str(config.repo / origin.uri)
        tables.append((uri, origin.version, origin.table_id))
    for uri, version, table_id in tables:
        if version is not None and (reason := why_unreadable(uri, version, table_id)):
            yield Trouble("history", _view(rv), reason, fatal=True)
    if origin.kind == "files":
        yield from _source_troubles(origin, rv, config)


def _source_troubles(origin: Origin, rv: RegisteredView, config: Config) -> Iterator[Trouble]:
    source = batch_source(rv.view.source)
    try:
        present = {} if source is None else {f.path: f for f in list_files(source, config.repo)}
    except InvalidDataError as error:
        yield Trouble("source", f"source {origin.source!r} of {_view(rv)}", error.message, fatal=True)
        return
    for file in origin.files:
        yield from _file_troubles(file, present.get(file.path), f"source {origin.source!r} of {_view(rv)}")


def _file_troubles(file: SourceFile, now: ListedFile | None, source: str) -> Iterator[Trouble]:
    where = f"{source}, file {file.path!r}"
    if now is None:
        yield Trouble("source", where, "is gone", fatal=True)
    elif now.size != file.size:
        yield Trouble("source", where, f"changed: it had {file.size:,} bytes, now {now.size:,}", fatal=False)
    else:
        found = now.sha256()
        if found != file.sha256:
            message = f"changed: same size, but SHA-256 {found[:12]}… instead of {file.sha256[:12]}…"
            yield Trouble("source", where, message, fatal=False)


def _view(rv: RegisteredView) -> str:
    return f"view {rv.view.name}@v{rv.view.version}"
