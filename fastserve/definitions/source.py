"""Sources: where the rows of a feature view come from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from fastserve.definitions.event_source import EventSource
from fastserve.definitions.freeze import freeze, frozen_tags
from fastserve.definitions.inputs import FileInput, Input, format_of

RUN_TIMES: Final = ("start", "end", "created_after", "as_of")
"""What a run tells a query (``$start``) or a transform (``start=``): see docs/sql.md."""


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
class SQLSource:
    """The answer of one SELECT, in DuckDB's SQL, over declared inputs; it can read nothing else.

    Of rows with the same join keys and times the one with the greatest values holds, compared column by column in
    the order of the SELECT, null least: so the answer does not depend on the order in which rows come.

    Args:
        query: the SELECT. Inputs are its tables; ``$name`` is a parameter, bound as a value and never pasted.
            ``$start``, ``$end``, ``$created_after`` and ``$as_of`` are the times of the run.
        inputs: table -> FileInput or PostgresInput; a path or a FileSource is taken as a FileInput.
        parameters: further parameters: name -> number, text or bool.
        timestamp_field: column with the time from which a row holds (event time).
        created_timestamp_column: column with the time at which the row became known; as of a FileSource.
        name: default a hash of the query.
    """

    name: str
    query: str
    inputs: Mapping[str, Input] = field(default_factory=dict, hash=False)
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    timestamp_field: str = "event_timestamp"
    created_timestamp_column: str = ""
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    owner: str = ""

    def __init__(
        self,
        query: str,
        inputs: Mapping[str, Input | FileSource | str | Path],
        timestamp_field: str = "event_timestamp",
        created_timestamp_column: str | None = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        name: str = "",
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str = "",
    ) -> None:
        freeze(
            self,
            name=name or f"query-{hashlib.sha256(query.encode()).hexdigest()[:8]}",
            query=query,
            inputs=_inputs(inputs),
            parameters=frozen_tags(parameters),
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column or "",
            description=description,
            tags=frozen_tags(tags),
            owner=owner,
        )

    @property
    def field_mapping(self) -> Mapping[str, str]:
        """None: the query names its columns."""
        return {}

    @property
    def format(self) -> str:
        """``sql``; of a FileSource it is the files' format."""
        return "sql"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformSource:
    """What a Python function of the repo makes of declared inputs: Arrow tables in, one Arrow table out.

    Made by `batch_feature_view`. The registry keeps the function's name and its text, to tell a changed one; the text
    is never executed: a run imports the repo.

    Attributes:
        function: ``module:name``, module being a file of the repo.
        code: the function's text, without decorators.
        arguments: the times of the run that it asks for, of RUN_TIMES.
        call: the function itself where the repo was imported, else None.
    """

    name: str
    function: str
    code: str
    inputs: Mapping[str, Input] = field(default_factory=dict, hash=False)
    arguments: tuple[str, ...] = ()
    timestamp_field: str = "event_timestamp"
    created_timestamp_column: str = ""
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    owner: str = ""
    call: Callable[..., Any] | None = field(
        default=None, compare=False, repr=False, metadata={"transient": True}
    )

    def __init__(
        self,
        function: str,
        code: str,
        inputs: Mapping[str, Input | FileSource | str | Path],
        timestamp_field: str = "event_timestamp",
        created_timestamp_column: str | None = None,
        *,
        arguments: Sequence[str] = (),
        name: str = "",
        call: Callable[..., Any] | None = None,
    ) -> None:
        freeze(
            self,
            name=name or function.partition(":")[2],
            function=function,
            code=code,
            inputs=_inputs(inputs),
            arguments=tuple(arguments),
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column or "",
            description="",
            tags=frozen_tags(None),
            owner="",
            call=call,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Without the function: another process imports the repo for it."""
        times = (self.timestamp_field, self.created_timestamp_column)
        return _transform, (self.function, self.code, dict(self.inputs), *times, self.arguments, self.name)

    @property
    def field_mapping(self) -> Mapping[str, str]:
        """None: the function names its columns."""
        return {}

    @property
    def format(self) -> str:
        """``python``; of a FileSource it is the files' format."""
        return "python"


def _transform(*given: Any) -> TransformSource:
    *first, arguments, name = given
    return TransformSource(*first, arguments=arguments, name=name)


def _inputs(inputs: Mapping[str, Input | FileSource | str | Path]) -> Mapping[str, Input]:
    made = {}
    for name, given in dict(inputs).items():
        if isinstance(given, FileSource):
            given = FileInput(given.path, format=given.format)
        made[name] = FileInput(given) if isinstance(given, (str, Path)) else given
    return frozen_tags(made)


BatchSource: TypeAlias = FileSource | SQLSource | TransformSource
"""What holds the history of a view's rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushSource:
    """Rows pushed by a producer; `batch_source`, if any, holds their history."""

    name: str
    batch_source: BatchSource | None = None
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    owner: str = ""

    def __init__(
        self,
        name: str,
        batch_source: BatchSource | None = None,
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


Source: TypeAlias = BatchSource | PushSource | EventSource


def batch_source(source: Source | None) -> BatchSource | None:
    """Where a source's history is read from, if it has any."""
    return source.batch_source if isinstance(source, (PushSource, EventSource)) else source
