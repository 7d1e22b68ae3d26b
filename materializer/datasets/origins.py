"""Where the rows of a data set came from: noted while it is made, and read again from the note.

A view's rows come from its offline table at a version, from a source that is a Delta table at a version, or from
files, or from a query or transform over inputs of these kinds and of PostgreSQL. A version is read as it was; files are
what their bytes hash to, and rows of files added later are left out; PostgreSQL is asked again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from fastserve.config import Config
from fastserve.definitions import (
    BatchSource,
    FileSource,
    OnDemandFeatureView,
    SQLSource,
    TransformSource,
    batch_source,
)
from fastserve.errors import ConfigError, InvalidDataError
from fastserve.offline.delta import table_state, why_unreadable
from fastserve.offline.files import ListedFile, delta_uri, list_files
from fastserve.offline.history import History, visible_range
from fastserve.offline.options import READ, ReadOptions, Spooled
from fastserve.offline.pieces import Piece, source_pieces, table_pieces
from fastserve.offline.source import open_source
from fastserve.offline.streamed import history_table
from fastserve.offline.times import uses_as_of
from fastserve.offline.window import Window
from fastserve.on_demand.functions import Functions
from materializer.datasets.noted import (
    InputOrigin,
    NotedInputs,
    SourceFile,
    Trouble,
    files_troubles,
    hashed,
    input_troubles,
)

if TYPE_CHECKING:
    from fastserve.registry import RegisteredView

Ints = npt.NDArray[np.int64]
Kind = Literal["offline_table", "delta_source", "files", "query", "transform", "on_demand", "nothing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the rows of one view came from.

    Attributes:
        kind: ``nothing`` is an offline table that no row was ever written to; ``on_demand`` is an on-demand view.
        uri: the table's, or the source's path as declared, or the function.
        source: the source's name; '' for the offline table.
        version, table_id: of a Delta table.
        pushed_version, pushed_table_id: of the offline table with pushed rows, which are read beside a source.
        files: of a source of files, by ascending path.
        code_sha256: of the text of a query, a transform or an on-demand view's function.
        as_of_us: the present it was asked for, microseconds UTC, if its answer may depend on it.
        inputs: of a query or transform, in the order declared.
        incomplete: how far the backfill of the dates was that labels see, if it was not complete: ``3 of 12 dates``.
    """

    kind: Kind
    uri: str
    source: str = ""
    version: int | None = None
    table_id: str = ""
    pushed_version: int | None = None
    pushed_table_id: str = ""
    files: tuple[SourceFile, ...] = ()
    code_sha256: str = ""
    as_of_us: int | None = None
    inputs: tuple[InputOrigin, ...] = ()
    incomplete: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; what does not apply is left out."""
        found = {name: value for name, value in asdict(self).items() if value not in ("", None, ())}
        return found | ({"inputs": [one.to_dict() for one in self.inputs]} if self.inputs else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Origin:
        """The origin that `to_dict` described."""
        files = tuple(SourceFile(**file) for file in data.get("files", ()))
        inputs = tuple(InputOrigin.from_dict(one) for one in data.get("inputs", ()))
        return cls(**{**data, "files": files, "inputs": inputs})


def computed(rv: RegisteredView) -> Origin:
    """Of an on-demand view: no rows, but a function."""
    assert isinstance(rv.view, OnDemandFeatureView)
    return Origin(kind="on_demand", uri=rv.view.function, code_sha256=rv.view.code_sha256)


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
        self._noted: dict[int, NotedInputs] = {}

    def pieces(self, rv: RegisteredView, columns: Sequence[str], times: Ints) -> list[Piece]:
        """As `History.pieces`; every read of a view sees the same version of it."""
        if rv.view_id not in self._origins:
            self._origins[rv.view_id] = self._decide(rv, times)
        only = None
        if rv.view_id in self._listed:
            only = [file.path for file in self._listed[rv.view_id][1]]
        options, noted = self._history.options, self._noted.get(rv.view_id)
        if noted is not None:
            options = replace(options, pins=noted.pins, spooled=noted.spooled)
        origin = self._origins[rv.view_id]
        return origin_pieces(origin, rv, columns, times, config=self._config, only=only, options=options)

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
        found = self._history.backfill(
            rv, times
        )  # before the version: what it lacks is noted rather than forgotten
        incomplete = "" if found is None else f"{found.done} of {found.total} dates"
        table_id, version = table_state(table.uri)
        return Origin(
            kind="offline_table", uri=table.uri, version=version, table_id=table_id, incomplete=incomplete
        )

    def _of_source(self, source: BatchSource, rv: RegisteredView) -> Origin:
        if not isinstance(source, FileSource):
            self._noted[rv.view_id] = NotedInputs.of(source, self._config.repo)
            return self._of_code(source)
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

    def _of_code(self, source: SQLSource | TransformSource) -> Origin:
        is_query = isinstance(source, SQLSource)
        text = source.query if isinstance(source, SQLSource) else source.code
        return Origin(
            kind="query" if is_query else "transform",
            uri=source.name if isinstance(source, SQLSource) else source.function,
            source=source.name,
            code_sha256=hashlib.sha256(text.encode()).hexdigest(),
            as_of_us=self._history.options.as_of_us if uses_as_of(source) else None,
        )

    def origins(self) -> dict[int, Origin]:
        """View id -> where its rows came from, after all reads; files are hashed now.

        Raises:
            InvalidDataError: a file changed while the data set was made.
        """
        found = dict(self._origins)
        for view_id, (source, before) in self._listed.items():
            files = hashed(source, before, self._config.repo, f"source {source.name!r}")
            found[view_id] = replace(found[view_id], files=files)
        for view_id, noted in self._noted.items():
            found[view_id] = replace(found[view_id], inputs=noted.origins())
        return found


class Replay:
    """Reads rows from where a manifest says they came from.

    Args:
        origins: view id -> origin.
        config: where sources and tables are now.

    Attributes:
        troubles: inputs that reading showed to be no longer as recorded.
    """

    def __init__(self, origins: Mapping[int, Origin], config: Config) -> None:
        self.troubles: list[Trouble] = []
        self._origins = origins
        self._config = config

    def pieces(self, rv: RegisteredView, columns: Sequence[str], times: Ints) -> list[Piece]:
        """As `History.pieces`."""
        origin = self._origins[rv.view_id]
        only = [file.path for file in origin.files]
        options = ReadOptions(
            origin.as_of_us,
            self._config.sql_memory,
            pins={noted.name: noted.pin for noted in origin.inputs},
            spooled=partial(self._compare, origin, _view(rv)),
        )
        return origin_pieces(origin, rv, columns, times, config=self._config, only=only, options=options)

    def _compare(self, origin: Origin, view: str, name: str, read: Spooled) -> None:
        """What PostgreSQL answers now with what it answered then."""
        then = next(noted for noted in origin.inputs if noted.name == name)
        if then.sha256 != read.sha256:
            where = f"source {origin.source!r} of {view}, input {name!r}"
            message = f"changed: it had {then.rows or 0:,} rows, now {read.rows:,}"
            if then.rows == read.rows:
                message = f"changed: {read.rows:,} rows as before, but not the same, or in another order"
            self.troubles.append(Trouble("source", where, message, fatal=False))


def origin_pieces(
    origin: Origin,
    rv: RegisteredView,
    columns: Sequence[str],
    times: Ints,
    *,
    config: Config,
    only: Sequence[str] | None = None,
    options: ReadOptions = READ,
) -> list[Piece]:
    """The rows that labels of these times can see; of files, those of `only`; of inputs, those of `options`."""
    if not len(times) or origin.kind == "nothing":
        return []
    window = Window(*visible_range(times, rv.view.ttl_us))
    table = history_table(config.offline_store, config.project, rv)
    if origin.kind == "offline_table":
        return table_pieces(table, window, origin.version)
    source = batch_source(rv.view.source)
    if source is None:
        raise InvalidDataError("has no batch source", where=f"FeatureView {rv.view.name!r}")
    wanted = None if only is None else frozenset(only)
    files = open_source(source, config.repo, window, options, only=wanted, version=origin.version)
    found = source_pieces(files, source, rv, window, columns)
    if origin.pushed_version is None:
        return found
    return [*found, *table_pieces(table, window, origin.pushed_version)]  # as History.pieces


def troubles(origin: Origin, rv: RegisteredView, config: Config, functions: Functions) -> Iterator[Trouble]:
    """What keeps the rows of an origin from being read again as they were; nothing when all is there."""
    if isinstance(rv.view, OnDemandFeatureView):
        yield from _function_troubles(rv.view, functions)
        return
    table = history_table(config.offline_store, config.project, rv).uri
    tables = [(table, origin.pushed_version, origin.pushed_table_id)]
    if origin.kind == "offline_table":
        tables.append((table, origin.version, origin.table_id))
    elif origin.kind == "delta_source":
        uri = origin.uri if "://" in origin.uri else str(config.repo / origin.uri)
        tables.append((uri, origin.version, origin.table_id))
    for uri, version, table_id in tables:
        if version is not None and (reason := why_unreadable(uri, version, table_id)):
            yield Trouble("history", _view(rv), reason, fatal=True)
    source, where = batch_source(rv.view.source), f"source {origin.source!r} of {_view(rv)}"
    if origin.kind == "files":
        files = source if isinstance(source, FileSource) else None
        yield from files_troubles(files, origin.files, config.repo, where)
    elif isinstance(source, (SQLSource, TransformSource)):
        yield from input_troubles(origin.inputs, source, config.repo, where)


def _function_troubles(view: OnDemandFeatureView, functions: Functions) -> Iterator[Trouble]:
    functions.prepare([view])
    try:
        functions.of(view)
    except ConfigError as error:
        yield Trouble("source", error.where, error.message, fatal=True)


def _view(rv: RegisteredView) -> str:
    return f"view {rv.view.name}@v{rv.view.version}"
