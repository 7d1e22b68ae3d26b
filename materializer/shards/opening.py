"""Where a training set is joined, in this process or by tasks of the engine that was asked for; where tasks hand on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastserve.config import Config
from fastserve.errors import RequestError
from materializer.engine import Engine, check_engine, open_engine
from materializer.engine.reach import Use
from materializer.stop import Stop

if TYPE_CHECKING:
    from materializer.shards.join import Shards


@contextmanager
def open_shards(
    config: Config, engine: str | Engine = "local", master: str | None = None, work: str = ""
) -> Iterator[Shards | None]:
    """The engine, ended at the end; None for this process alone.

    Args:
        engine: `local`, `spark`, or an engine that is open, and stays it.
        master: of Spark.
        work: path or URL that the driver and all workers see, for what tasks hand on; '' for beside the offline
            tables.

    Raises:
        RequestError: there is no such engine, or what another one needs was given.
        ConfigError: pyspark is not installed, or Spark does not start.
    """
    from materializer.shards.join import Shards  # noqa: PLC0415  (a run without tasks joins nothing)

    place = place_of(config, work)
    if isinstance(engine, Engine):
        yield Shards(engine, place)
        return
    check_engine(engine, master)
    check_work(engine, work)
    if engine == "local":
        yield None
        return
    uses: list[Use] = ["offline"]
    with open_engine(config, Stop(), engine=engine, master=master, uses=uses) as opened:
        yield Shards(opened, place)


def check_work(engine: str, work: str) -> None:
    """Raise RequestError for a work directory of an engine that has no tasks."""
    if work and engine == "local":
        raise RequestError("only tasks hand files on", where="--work", hint="add --engine spark")


def place_of(config: Config, work: str) -> str:
    """The path or URL that a work directory is made in: what was asked for, or else beside the offline tables."""
    place = work or config.offline_store
    return place if "://" in place else str(Path(place).absolute())
