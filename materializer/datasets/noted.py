"""The state of files and tables that rows were read from: noted, and compared with the present one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fastserve.definitions import FileInput, PostgresInput, SQLSource, TransformSource
from fastserve.errors import InvalidDataError
from fastserve.offline.delta import table_state, why_unreadable
from fastserve.offline.files import Files, ListedFile, delta_uri, list_files
from fastserve.offline.options import Pin, Spooled


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source: its path below the source's declared one, its bytes, their SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOrigin:
    """One input of a query or transform.

    Attributes:
        uri: path as declared; of PostgreSQL ``$VARIABLE`` and the table, never the URL.
        version, table_id: of a Delta table.
        files: by ascending path.
        rows, sha256: of what was read of PostgreSQL.
    """

    name: str
    kind: Literal["files", "delta", "postgres"]
    uri: str
    version: int | None = None
    table_id: str = ""
    files: tuple[SourceFile, ...] = ()
    rows: int | None = None
    sha256: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; what does not apply is left out."""
        return {name: value for name, value in asdict(self).items() if value not in ("", None, ())}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> InputOrigin:
        """What `to_dict` described."""
        return cls(**{**data, "files": tuple(SourceFile(**file) for file in data.get("files", ()))})

    @property
    def pin(self) -> Pin:
        """The state to read again."""
        files = frozenset(file.path for file in self.files) if self.kind == "files" else None
        return Pin(files, self.version)


@dataclass(slots=True)
class NotedInputs:
    """The inputs of a source as they are when it is first read.

    Attributes:
        pins: what every later read must read.
    """

    source: SQLSource | TransformSource
    repo: Path
    pins: dict[str, Pin] = field(default_factory=dict)
    _listed: dict[str, list[ListedFile]] = field(default_factory=dict)
    _found: dict[str, InputOrigin] = field(default_factory=dict)

    @classmethod
    def of(cls, source: SQLSource | TransformSource, repo: Path) -> NotedInputs:
        """Look at them now.

        Raises:
            InvalidDataError: a file or table is not there.
        """
        noted = cls(source, repo)
        for name, given in source.inputs.items():
            if isinstance(given, PostgresInput):
                continue
            if given.format == "delta":
                table_id, version = table_state(delta_uri(given, repo))
                made = InputOrigin(
                    name=name, kind="delta", uri=given.path, version=version, table_id=table_id
                )
                noted._found[name], noted.pins[name] = made, made.pin
            else:
                listed = noted._listed[name] = list_files(given, repo)
                noted.pins[name] = Pin(frozenset(file.path for file in listed))
        return noted

    def spooled(self, name: str, read: Spooled) -> None:
        """PostgreSQL gave these rows."""
        given = self.source.inputs[name]
        assert isinstance(given, PostgresInput)
        before = self._found.get(name)
        if before is not None and before.sha256 != read.sha256:
            raise InvalidDataError(
                "answered other rows than before, while the data set was made",
                where=f"source {self.source.name!r}, input {name!r}",
                hint="make it again when nobody writes to the table",
            )
        uri = f"${given.url_env} {given.table}".strip()
        self._found[name] = InputOrigin(
            name=name, kind="postgres", uri=uri, rows=read.rows, sha256=read.sha256
        )

    def origins(self) -> tuple[InputOrigin, ...]:
        """All of them, in the order declared, after all reads; files are hashed now.

        Raises:
            InvalidDataError: a file changed while the data set was made.
        """
        for name, before in self._listed.items():
            given = self.source.inputs[name]
            assert isinstance(given, FileInput)
            files = hashed(given, before, self.repo, f"source {self.source.name!r}, input {name!r}")
            self._found[name] = InputOrigin(name=name, kind="files", uri=given.path, files=files)
        return tuple(self._found[name] for name in self.source.inputs if name in self._found)


def hashed(source: Files, before: Sequence[ListedFile], repo: Path, where: str) -> tuple[SourceFile, ...]:
    """Files with their hashes, if they still are as they were listed.

    Raises:
        InvalidDataError: one changed.
    """
    found = tuple(SourceFile(file.path, file.size, file.sha256()) for file in before)
    after = {file.path: file for file in list_files(source, repo)}
    for file in before:
        if after.get(file.path) != file:
            raise InvalidDataError(
                "changed while the data set was made",
                where=f"{where}, file {file.path!r}",
                hint="make it again when nobody writes to the source",
            )
    return found


# ---- and now -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something about an origin that is no longer as recorded; `fatal` when its rows cannot be read at all."""

    kind: Literal["source", "history"]
    where: str
    message: str
    fatal: bool


def files_troubles(
    source: Files | None, files: Sequence[SourceFile], repo: Path, where: str
) -> Iterator[Trouble]:
    """What became of files."""
    try:
        present = {} if source is None else {f.path: f for f in list_files(source, repo)}
    except InvalidDataError as error:
        yield Trouble("source", where, error.message, fatal=True)
        return
    for file in files:
        yield from _file_troubles(file, present.get(file.path), where)


def input_troubles(
    inputs: Sequence[InputOrigin], source: SQLSource | TransformSource, repo: Path, where: str
) -> Iterator[Trouble]:
    """What became of the inputs of a source; of PostgreSQL, reading it again tells."""
    for noted in inputs:
        place, given = f"{where}, input {noted.name!r}", source.inputs.get(noted.name)
        if not isinstance(given, FileInput):
            continue
        if noted.kind == "files":
            yield from files_troubles(given, noted.files, repo, place)
        elif noted.version is not None:
            reason = why_unreadable(delta_uri(given, repo), noted.version, noted.table_id)
            if reason:
                yield Trouble("history", place, reason, fatal=True)


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
