"""`materializer optimize`."""

from __future__ import annotations

from typing import Any, Final

import click

from fastserve.config import Config
from fastserve.loading import loading
from materializer.options import SIGNAL_BASE, duration_option, time_option
from materializer.stop import Stop

_EXIT_CODES: Final = """\b
Exit codes:
  0    every view is done
  1    a view failed; the others were done all the same
  2    a mistake in the command or the configuration; nothing was changed
  3    a view was held by another process; no view failed
  130  stopped by SIGINT; what was done stays, the next run goes on from there
  143  stopped by SIGTERM; likewise
"""


@click.command("optimize", epilog=_EXIT_CODES)
@click.argument("views", nargs=-1, metavar="[VIEW]...")
@click.option("--repo", default=".", metavar="DIR", show_default=True, help="Where fastserve.toml is.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON instead of a table.")
@click.option("--order/--no-order", default=True, help="Order large dates by entity.", show_default=True)
@click.option(
    "--vacuum-after",
    "vacuum_after_us",
    callback=duration_option,
    default="7d",
    show_default=True,
    metavar="DURATION",
    help="Delete files that were replaced longer ago. Who still reads an older version loses it.",
)
@click.option(
    "--forget-training-sets",
    is_flag=True,
    help="Delete also what recorded training data sets were made from: they cannot be made again.",
)
@click.option(
    "--now", "now_us", callback=time_option, metavar="TIME", help="Replay: retention counts from then."
)
@click.pass_context
def optimize_command(
    ctx: click.Context, /, repo: str, as_json: bool, forget_training_sets: bool, **options: Any
) -> None:
    """Put the offline tables of VIEWs, or of all, in order; from cron, while everything else goes on.

    An aggregated view stands for the table of the events that were streamed of its source.

    Removes dates that are older than the view's retention, orders large dates by entity, joins small files, and
    deletes files that no version of the last days needs and no recorded training data set.
    """
    stop = Stop()
    with stop.on_signals():
        with loading():
            from materializer.optimize.run import Request, optimize  # noqa: PLC0415  (--help must not wait for Arrow)

        options["views"] = tuple(options["views"])
        request = Request(keep_datasets=not forget_training_sets, **options)
        report = optimize(Config.from_repo(repo), request, stop=stop)
    for view in report.views:
        if view.error is not None:
            click.echo(f"error: view {view.view}: {view.error}", err=True)
    if as_json:
        import json  # noqa: PLC0415

        click.echo(json.dumps(report.to_dict()))
    else:
        report.show()
    ctx.exit(SIGNAL_BASE + stop.signum if stop.signum else report.exit_code)
