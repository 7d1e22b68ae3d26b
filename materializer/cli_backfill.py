"""`materializer backfill`: one line of JSON, as `run`."""

from __future__ import annotations

import json
from typing import Any, Final

import click

from fastserve.config import Config
from fastserve.loading import loading
from materializer.options import SIGNAL_BASE, engine_options, time_option
from materializer.progress import progress_bar
from materializer.stop import Stop

_EXIT_CODES: Final = """\b
Exit codes:
  0    every date is complete
  1    it failed; the dates that were finished are kept
  2    a mistake in the command, the configuration or the definitions; nothing was changed
  3    another run or backfill holds the view; nothing was changed
  130  stopped by SIGINT, 143 by SIGTERM; what was finished is kept, the same command goes on from there
"""


@click.command("backfill", epilog=_EXIT_CODES)
@click.argument("view", metavar="VIEW")
@click.option(
    "--start",
    "start_us",
    callback=time_option,
    metavar="DATE",
    help="First date, inclusive. Default: the source's first.",
)
@click.option(
    "--end", "end_us", callback=time_option, metavar="DATE", help="Last date, inclusive. Default: today."
)
@click.option(
    "--target", type=click.Choice(["online", "offline", "both"]), help="Default: as the view declares."
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    help="So many tasks at once. Default: 1, and with Spark one a core.",
)
@engine_options
@click.option("--again", is_flag=True, help="Do dates that are complete again, too.")
@click.option("--plan", "only_plan", is_flag=True, help="Say what it would do and take, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="The plan as JSON.")
@click.option("--repo", default=".", metavar="DIR", show_default=True, help="Where fastserve.toml is.")
@click.option("--now", "now_us", callback=time_option, metavar="TIME", help="Replay: this is the present.")
@click.pass_context
def backfill_command(
    ctx: click.Context, /, repo: str, only_plan: bool, as_json: bool, **options: Any
) -> None:
    """Fill a view's stores date by date, UTC, in parallel; what is complete already is left out.

    VIEW is NAME or NAME@vN. The registry keeps for each date and store whether it is complete, and of which files:
    running the same command again does the dates that are missing, whose files changed, or whose rows a store has
    lost. Dates are done newest first.
    """
    with loading():
        from materializer.backfill import BackfillRequest, backfill, make_plan  # noqa: PLC0415  (--help is quick)

    if only_plan:
        plan = make_plan(Config.from_repo(repo), BackfillRequest(**options))
        click.echo(json.dumps(plan.to_dict()) if as_json else str(plan))
        return
    stop = Stop()
    with stop.on_signals(), progress_bar() as progress:
        summary = backfill(Config.from_repo(repo), BackfillRequest(**options), progress=progress, stop=stop)
    if summary.error is not None:
        click.echo(f"error: view {summary.view}: {summary.error}", err=True)
    click.echo(json.dumps(summary.to_dict()))
    ctx.exit(SIGNAL_BASE + stop.signum if summary.status == "stopped" else summary.exit_code)
