"""One transform, from its definition to rows: inputs as Arrow tables, the repo's function, its table as the answer."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.dataset as ds

from fastserve.definitions import FeatureView, TransformSource, batch_source
from fastserve.definitions.load import load_definitions
from fastserve.errors import ConfigError, FastserveError, InvalidDataError
from fastserve.offline.files import Batches, DataFile, Run
from fastserve.offline.inputs import open_inputs
from fastserve.offline.options import ReadOptions
from fastserve.offline.times import run_times
from fastserve.offline.watched import Watched
from fastserve.offline.window import Window

_MADE: Final = "answer"


def open_transform(
    source: TransformSource, repo: Path, window: Window, options: ReadOptions
) -> Generator[DataFile]:
    """The transform's table as the one file of a source.

    Raises:
        ConfigError: the repo has no such function, or another one than was applied.
        InvalidDataError: an input cannot be read, or the function fails, or gives no table.
    """
    function = _function(source, repo)
    times = run_times(source, source.arguments, window, options)
    texts = {name: moment.isoformat() for name, moment in times.items()}
    with (
        tempfile.TemporaryDirectory(prefix="fastserve-transform-") as folder,
        Watched(options.check) as watched,
    ):

        def opened() -> dict[str, pa.Table]:
            found = open_inputs(source.inputs, repo, Path(folder), options, texts, watched.cancel)
            return {
                n: t if isinstance(t, pa.Table) else t.scanner().to_reader().read_all()
                for n, t in found.items()
            }

        tables = watched.do(opened)
    table = _called(function, source, {**tables, **{name: times[name] for name in source.arguments}})
    options.check()
    yield DataFile(_MADE, _Rows(table))


class _Rows:
    """A FileReader over a table."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.schema = table.schema

    def runs(self, prune: ds.Expression | None) -> list[Run]:
        """All rows in order."""
        return [Run(0, len(self._table), self._read)]

    def _read(self, columns: Sequence[str], batch_rows: int, threads: bool) -> Batches:
        yield from self._table.select(list(columns)).to_batches(max_chunksize=batch_rows)


def _function(source: TransformSource, repo: Path) -> Callable[..., Any]:
    """The function of the repo's files, the same as was applied."""
    for view in load_definitions(repo):
        found = batch_source(view.source) if isinstance(view, FeatureView) else None
        if not isinstance(found, TransformSource) or found.function != source.function:
            continue
        if found.code != source.code:
            raise ConfigError(
                f"{source.function} is not the function that was applied",
                where=str(repo),
                hint="run `fastserve apply` to use the repo's",
            )
        assert found.call is not None
        return found.call
    raise ConfigError(
        f"the repo has no transform {source.function}",
        where=str(repo),
        hint="run it in the repo that was applied",
    )


def _called(function: Callable[..., Any], source: TransformSource, arguments: dict[str, Any]) -> pa.Table:
    where = f"source {source.name!r}"
    try:
        made = function(**arguments)
    except FastserveError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise InvalidDataError(
            f"{type(error).__name__}: {error}",
            where=f"{where}, {frame.filename}:{frame.lineno}",
            hint=f"mend the function {source.function}, or the input that it fails on",
        ) from error
    if not isinstance(made, pa.Table):
        raise InvalidDataError(
            f"{source.function} gave a {type(made).__name__}", where=where, hint="return a pyarrow.Table"
        )
    return made
