"""`fastserve stream`: events into windows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from fastserve.cli.options import echo_json, echo_table, json_option, repo_option
from fastserve.config import Config
from fastserve.errors import RequestError
from fastserve.registry import open_registry
from fastserve.streaming.feeds import feeds_of
from fastserve.streaming.pushes import push_events
from fastserve.streaming.run import Make, StreamOptions, run_worker
from fastserve.streaming.settings import StreamSettings
from fastserve.streaming.status import ShardStatus, feed_status
from fastserve.streaming.stores import open_feeds
from fastserve.timeutil import MICROS, format_timestamp, now_us
from materializer.engine import check_engine
from materializer.options import engine_options


@click.group("stream")
def stream_command() -> None:
    """Events into windows: the worker, how far it is, and events to send."""


@stream_command.command("run")
@repo_option
@json_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Of /metrics.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=None,
    help="Of /metrics; 0 takes a free one, none without it.",
)
@engine_options
def run_command(
    repo: str, as_json: bool, host: str, port: int | None, engine: str, master: str | None
) -> None:
    """Apply events to online windows until SIGTERM.

    Several workers share the shards: start one a core. A Spark engine has all of them, and workers stand by.
    """
    check_engine(engine, master)

    def ready(worker: str, bound: int | None) -> None:
        if as_json:
            click.echo(json.dumps({"ready": True, "worker": worker, "port": bound}))
        else:
            click.echo(f"worker {worker}" + (f", metrics on http://{host}:{bound}" if bound else ""))

    config = Config.from_repo(repo)
    run_worker(
        config, StreamOptions(host, port), ready, _spark(config, master) if engine == "spark" else None
    )


def _spark(config: Config, master: str | None) -> Make:
    from materializer.streams.runner import SparkRunner  # noqa: PLC0415  (few use it)

    settings = StreamSettings.of(config.streaming)
    return lambda opened, feeds: SparkRunner(config, opened, feeds, settings, master)


@stream_command.command("status")
@repo_option
@json_option
def status_command(repo: str, as_json: bool) -> None:
    """Of each shard: its owner, how far it is behind, and what became of its events."""
    config = Config.from_repo(repo)
    settings = StreamSettings.of(config.streaming)
    with open_registry(config.registry, config.project) as registry:
        feeds = feeds_of(registry.snapshot())
    store = open_feeds(config)
    try:
        found = [
            one
            for feed in feeds
            for one in feed_status(store, feed, range(store.shard_count(feed, settings.shards)), now_us())
        ]
    finally:
        store.close()
    if as_json:
        echo_json([one.to_dict() for one in found])
    else:
        header = (
            "FEED",
            "SHARD",
            "OWNER",
            "LAG",
            "WATERMARK",
            "APPLIED",
            "LATE",
            "DUPLICATE",
            "DEAD",
            "TAKEOVERS",
        )
        echo_table(header, [_line(one) for one in found])


@stream_command.command("push")
@repo_option
@json_option
@click.argument("source")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
def push_command(repo: str, as_json: bool, source: str, file: str) -> None:
    """Send the events of FILE (.parquet, .csv, .jsonl) to SOURCE."""
    config = Config.from_repo(repo)
    with open_registry(config.registry, config.project) as registry:
        snapshot = registry.snapshot()
        feeds_of(snapshot, source)  # a wrong name is said before the file is read
        sent, _ = push_events(config, snapshot, source, _table(file))
    if as_json:
        echo_json({"source": source, "events": sent})
    else:
        click.echo(f"{sent:,} events to {source}")


def _line(one: ShardStatus) -> tuple[Any, ...]:
    counters, mark = one.state.counters, one.state.watermark_us
    lag = f"{one.lag_us / MICROS:.1f} s" + (
        "" if one.lag_entries is None else f", {one.lag_entries:,} entries"
    )
    return (
        one.feed,
        one.shard,
        one.state.owner or "-",
        lag if one.lag_us or one.lag_entries else "0",
        "-" if mark is None else format_timestamp(mark),
        *(f"{counters.get(name, 0):,}" for name in ("applied", "late", "duplicates", "dead", "takeovers")),
    )


def _table(file: str) -> pa.Table:
    readers = {
        ".parquet": pyarrow.parquet.read_table,
        ".csv": pyarrow.csv.read_csv,
        ".jsonl": pyarrow.json.read_json,
    }
    reader = readers.get(Path(file).suffix)
    if reader is None:
        raise RequestError(f"{file!r} is no file of events", hint=f"one of {', '.join(readers)}")
    try:
        return reader(file)
    except pa.ArrowException as error:
        raise RequestError(f"cannot be read: {str(error).splitlines()[0]}", where=file) from None
