"""`fastserve control`."""

from __future__ import annotations

import json
import sys

import click

from fastserve.cli.options import json_option, repo_option


@click.command("control")
@repo_option
@json_option
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--port", default=6567, show_default=True, type=click.IntRange(0, 65_535), help="0 takes a free one."
)
@click.option(
    "--max-jobs",
    default=2,
    show_default=True,
    type=click.IntRange(0, 1_000),
    help="Jobs that run at the same time; 0 only queues them.",
)
def control_command(repo: str, as_json: bool, host: str, port: int, max_jobs: int) -> None:
    """Answer REST requests about definitions and jobs until SIGTERM; jobs that run go on without it."""
    from fastserve.control.app import ControlOptions, control  # noqa: PLC0415

    options = ControlOptions(repo=repo, host=host, port=port, max_jobs=max_jobs)
    sys.exit(control(options, _ready_json if as_json else None))


def _ready_json(workers: int, host: str, port: int) -> str:
    return json.dumps({"ready": True, "host": host, "port": port})
