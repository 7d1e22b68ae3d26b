"""The engine that was asked for."""

from __future__ import annotations

from collections.abc import Collection

from fastserve.config import Config
from fastserve.errors import ConfigError, RequestError
from fastserve.loading import show_pandas
from materializer.engine.base import Engine
from materializer.engine.reach import Use, check_reach
from materializer.stop import Stop


def check_engine(engine: str, master: str | None) -> None:
    """Look at --engine and --master, before anything is done.

    Raises:
        RequestError: there is no such engine, or a master for one that has none.
    """
    if engine not in ("local", "spark"):
        raise RequestError(f"no engine {engine!r}", where="--engine", hint="local or spark")
    if master is not None and engine != "spark":
        raise RequestError("only Spark has a master", where="--master", hint="add --engine spark")


def open_engine(
    config: Config,
    stop: Stop,
    *,
    engine: str = "local",
    master: str | None = None,
    workers: int | None = None,
    uses: Collection[Use] = (),
) -> Engine:
    """Open it, as a context manager.

    Args:
        stop: heard by tasks on this machine.
        engine: `local` or `spark`.
        master: of Spark; None for what fastserve.toml or Spark's own configuration says.
        workers: tasks at once; None for 1, or for as many as Spark has cores.
        uses: what tasks read and write; see check_reach.

    Raises:
        RequestError: as check_engine.
        ConfigError: pyspark is not installed, Spark does not start, or its workers do not reach what tasks use.
    """
    check_engine(engine, master)
    if engine == "local":
        from materializer.engine.processes import Inline, Processes  # noqa: PLC0415  (a plain run starts none)

        return Processes(workers) if workers is not None and workers > 1 else Inline(stop)
    show_pandas()  # pyspark has uses for it
    from materializer.engine.spark import SparkEngine  # noqa: PLC0415  (few use it)

    if known := master or config.spark.get("spark.master"):
        check_reach(config, uses, known)  # before a start that takes a while
    made = SparkEngine(config.spark, master, workers)
    try:
        check_reach(config, uses, made.master)
    except ConfigError:
        made.shutdown()
        raise
    return made
