"""Where a training set is joined: in this process, or by tasks of the engine that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastserve.config import Config
from fastserve.errors import RequestError
from materializer.engine import Engine, check_engine, open_engine
from materializer.engine.reach import Use
from materializer.shards.join import Shards
from materializer.stop import Stop


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
    place = work or config.offline_store
    if "://" not in place:
        place = str(Path(place).absolute())
    if isinstance(engine, Engine):
        yield Shards(engine, place)
        return
    check_engine(engine, master)
    if engine == "local":
        if work:
            raise RequestError("only tasks hand files on", where="--work", hint="add --engine spark")
        yield None
        return
    uses: list[Use] = ["offline"]
    with open_engine(config, Stop(), engine=engine, master=master, uses=uses) as opened:
        yield Shards(opened, place)
