"""`materializer reconcile`: is what is online what history says?"""

from __future__ import annotations

import json
from typing import Any, Final

import click

from fastserve.config import Config
from fastserve.errors import RequestError
from fastserve.loading import loading
from materializer.options import SIGNAL_BASE, duration_option, time_option
from materializer.progress import progress_bar
from materializer.reconcile.request import SAMPLE, Request
from materializer.stop import Stop

_EPILOG: Final = """\b
Kinds of differences, and what --repair does:
  missing  history has a row that holds, nothing is online        writes it
  late     the row online is older than history's                 replaces it
  value    equal times, other values                              replaces it
  corrupt  the row online cannot be read                          replaces or removes it
  ttl      online a day after it should have been dropped         removes it
  newer    newer than history's, and older than the grace         with --prune: replaces it
  extra    online, no row of the key holds in history             with --prune: removes it
  filled   has a field that history's row is too old for          nothing: history would lose it
A row that others write meanwhile is never touched.

\b
Exit codes:
  0    nothing differs, or nothing does any more
  1    something differs, or a view failed; the others were looked at all the same
  2    a mistake in the command, the configuration or the definitions
  3    a view was being materialized all the time
  130  stopped by SIGINT; what was put right stays so
  143  stopped by SIGTERM; likewise
"""


@click.command("reconcile", epilog=_EPILOG)
@click.argument("views", nargs=-1, metavar="[VIEW[@vN]]...")
@click.option("--sample", type=int, metavar="N", help=f"N keys drawn at random.  [default: {SAMPLE}]")
@click.option("--all", "everything", is_flag=True, help="All keys, also those that only the store has.")
@click.option("--seed", type=int, metavar="N", help="Draw the same keys again: the seed that a report names.")
@click.option("--repair", is_flag=True, help="Put right what differs.")
@click.option("--prune", is_flag=True, help="With --repair: take away what history does not have, too.")
@click.option("--ignore", multiple=True, metavar="KIND", help="Count it, but do not mind; repeatable.")
@click.option(
    "--grace",
    "grace_us",
    callback=duration_option,
    default="1h",
    show_default=True,
    metavar="DURATION",
    help="How long after its creation a row may be online without being in history.",
)
@click.option(
    "--now",
    "now_us",
    callback=time_option,
    metavar="TIME",
    help="Replay: this is the present, for ttl and lifetimes.",
)
@click.option("--repo", default=".", metavar="DIR", show_default=True, help="Where fastserve.toml is.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
@click.pass_context
def reconcile_command(
    ctx: click.Context, /, repo: str, as_json: bool, sample: int | None, everything: bool, **options: Any
) -> None:
    """Compare the online rows of VIEWs, by default of all, with what their history says now.

    Reads the history at one version and looks twice: what somebody writes meanwhile is no difference.
    """
    if everything and sample is not None:
        raise RequestError(
            "--sample and --all exclude each other", where="--sample", hint="drop one of the two"
        )
    options |= {"views": tuple(options["views"]), "ignore": tuple(options["ignore"])}
    request = Request(sample=None if everything else SAMPLE if sample is None else sample, **options)
    stop = Stop()
    with stop.on_signals():
        with loading():
            from materializer.reconcile.run import reconcile  # noqa: PLC0415  (--help must not wait for Arrow)

        config = Config.from_repo(repo)
        with progress_bar() as progress:
            report = reconcile(config, request, progress=progress, stop=stop)
    for view in report.views:
        if view.error is not None:
            click.echo(f"error: view {view.view}: {view.error}", err=True)
    click.echo(json.dumps(report.to_dict()) if as_json else str(report))
    ctx.exit(SIGNAL_BASE + stop.signum if stop.signum else report.exit_code)
