"""`fastserve serve`."""

from __future__ import annotations

import json
import sys

import click

from fastserve.cli.options import json_option, parse_moment, repo_option
from fastserve.config import name_values


@click.command("serve")
@repo_option
@json_option
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=6566, show_default=True, help="0 takes a free one."
)
@click.option(
    "--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes sharing the port."
)
@click.option("--cert", default="", metavar="PEM", help="Serve TLS with this certificate chain.")
@click.option("--key", default="", metavar="PEM", help="The certificate's private key.")
@click.option(
    "--deadline-ms",
    type=click.IntRange(1),
    default=1_000,
    show_default=True,
    help="Longest wait for the online store.",
)
@click.option(
    "--drain-s",
    type=click.FloatRange(0, 3_600),
    default=10.0,
    show_default=True,
    help="Longest wait for requests when stopping.",
)
@click.option(
    "--cache-mb",
    type=click.IntRange(0),
    default=64,
    show_default=True,
    help="Memory of each worker for rows read lately from Redis; 0 for none.",
)
@click.option(
    "--stale-if-down-s",
    type=click.FloatRange(0, 86_400),
    default=300.0,
    show_default=True,
    help="Age of cached rows that are answered, flagged, while the store is down.",
)
@click.option(
    "--max-queue-ms",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="Work that a worker queues; more requests are refused with 429.",
)
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=VALUE",
    help="What one client may cost, like max_connections=20000; again for others. docs/operations.md names them.",
)
@click.option(
    "--log-answers", default="", metavar="DIR", help="Log some answers there, for `fastserve verify --log`."
)
@click.option(
    "--log-rate",
    type=click.FloatRange(0, 1, min_open=True),
    default=None,
    metavar="SHARE",
    help="The share of answers that are logged.  [default: 0.001]",
)
@click.option("--clock", default=None, metavar="TIME", help="Answer as of this instant: replay the past.")
@click.option(
    "--compat",
    type=click.Choice(["", "feast"]),
    default="",
    metavar="feast",
    help="Give null and expired values to Feast clients as Feast does: PRESENT.",
)
def serve_command(clock: str | None, as_json: bool, limits: tuple[str, ...], **options: str) -> None:
    """Answer online feature requests over HTTP/2 and HTTP/1.1 until SIGTERM.

    Where on-demand views are registered the Python files of the repo are imported, for their functions.
    """
    from fastserve.app import ServeOptions, serve  # noqa: PLC0415

    bounds = name_values(limits, "--limit")
    chosen = ServeOptions(clock_us=parse_moment(clock, "--clock"), limits=bounds, **options)  # type: ignore[arg-type]
    sys.exit(serve(chosen, _ready_json if as_json else None))


def _ready_json(workers: int, host: str, port: int) -> str:
    return json.dumps({"ready": True, "workers": workers, "host": host, "port": port})
