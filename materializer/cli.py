"""The `materializer` command, made for cron: one line of JSON on standard output, everything else on stderr."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

import click

from fastserve.config import Config
from fastserve.errors import ConfigError, DefinitionError, FastserveError, RequestError
from fastserve.loading import loading
from materializer.cli_backfill import backfill_command
from materializer.cli_optimize import optimize_command
from materializer.cli_sets import reclaim_command, refresh_command, rollback_command
from materializer.options import SIGNAL_BASE, duration_option, engine_options, time_option, work_option
from materializer.progress import progress_bar
from materializer.reconcile.command import reconcile_command
from materializer.stop import Stop
from materializer.summary import EXIT_FAILED, EXIT_OK, EXIT_USAGE, Summary

log = logging.getLogger("materializer")

_EXIT_CODES: Final = """\b
Exit codes:
  0    every view is done
  1    a view failed; the others ran all the same
  2    a mistake in the command, the configuration or the definitions; nothing was changed
  3    a view was already being materialized by another run; no view failed
  130  stopped by SIGINT; what was finished is kept, the next run goes on from there
  143  stopped by SIGTERM; likewise
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
@click.version_option(package_name="fastserve", prog_name="materializer")
def cli() -> None:
    """Move rows of sources into the offline and the online store. Run it from cron."""


@cli.command("run", epilog=_EXIT_CODES)
@click.option(
    "--start",
    "start_us",
    callback=time_option,
    metavar="TIME",
    help="First event time, inclusive: 2013-01-01 or 2013-01-01T05:00:00Z.",
)
@click.option(
    "--end",
    "end_us",
    callback=time_option,
    metavar="TIME",
    help="Last event time, inclusive. One in the future means now.",
)
@click.option("--incremental", is_flag=True, help="All that is new since the last such run, late rows too.")
@click.option("--view", "views", multiple=True, metavar="NAME[@vN]", help="Only this view; repeatable.")
@click.option("--repo", default=".", metavar="DIR", show_default=True, help="Where fastserve.toml is.")
@click.option("--target", type=click.Choice(["online", "offline", "both"]), help="Default: as views declare.")
@click.option(
    "--now",
    "now_us",
    callback=time_option,
    metavar="TIME",
    help="Replay: this is the present, for ends, ttl and lifetimes.",
)
@click.option(
    "--overlap",
    "overlap_us",
    callback=duration_option,
    default="0s",
    show_default=True,
    metavar="DURATION",
    help="Incremental: read again what was created that long before the last run's newest row, for sources"
    " whose rows become visible late.",
)
@click.option(
    "--statistics/--no-statistics", default=True, show_default=True, help="Note what the rows are like."
)
@engine_options
@work_option
@click.pass_context
def run_command(ctx: click.Context, /, repo: str, **options: Any) -> None:
    """Fill the stores with the rows of [START, END], or with what is new (--incremental).

    Reads each view's source once, writes its offline table and the newest row of every entity to the online
    store, date by date. Running it again changes nothing; a run that was killed is taken up by the next.
    The last line of standard output, the only one, is a JSON summary.
    """
    _check_options(options)
    stop = Stop()
    with stop.on_signals():
        with loading():
            from materializer.run import Request, run  # noqa: PLC0415  (--help must not wait for Arrow)

        config = Config.from_repo(repo)
        options["views"] = tuple(options["views"])
        request = Request(**options)
        with progress_bar() as progress:
            summary = run(config, request, progress=progress, stop=stop)
    _report(summary)
    ctx.exit(SIGNAL_BASE + stop.signum if stop.signum else summary.exit_code)


_OTHERS: Final = (
    backfill_command,
    refresh_command,
    rollback_command,
    reclaim_command,
    reconcile_command,
    optimize_command,
)
for command in _OTHERS:
    cli.add_command(command)


def main(argv: list[str] | None = None) -> None:
    """Entry point; see `materializer run --help` for the exit codes."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    args = sys.argv[1:] if argv is None else argv
    try:
        code = cli.main(args=args, prog_name="materializer", standalone_mode=False)
    except click.ClickException as error:
        sys.exit(_refuse(RequestError(error.format_message(), where="command line", hint=_usage(error))))
    except click.Abort:
        sys.exit(SIGNAL_BASE + 2)
    except (ConfigError, DefinitionError, RequestError) as error:
        sys.exit(_refuse(error))
    except Exception as error:
        sys.exit(_refuse(error, code=EXIT_FAILED))
    sys.exit(code if isinstance(code, int) else EXIT_OK)


def _check_options(options: dict[str, Any]) -> None:
    """Raise RequestError for options that do not go together."""
    if options["incremental"] and options["start_us"] is not None:
        raise RequestError(
            "--start and --incremental exclude each other",
            where="--start",
            hint="an incremental run starts where the last one ended; drop one of the two",
        )
    if options["incremental"]:
        return
    missing = [name for name in ("start", "end") if options[f"{name}_us"] is None]
    if missing:
        raise RequestError(
            f"{' and '.join(f'--{name}' for name in missing)} must be given",
            where="command line",
            hint="give --start and --end, or --incremental for all that is new",
        )
    if options["overlap_us"]:
        raise RequestError("--overlap is for incremental runs", where="--overlap", hint="add --incremental")


def _refuse(error: Exception, code: int = EXIT_USAGE) -> int:
    """Report that nothing ran."""
    if not isinstance(error, FastserveError):
        log.error("the run failed", exc_info=error)
    _report(Summary(error=error))
    return code


def _report(summary: Summary) -> None:
    """Errors for people on standard error, the summary for programs on standard output."""
    import json  # noqa: PLC0415

    if summary.error is not None:
        click.echo(f"error: {summary.error}", err=True)
    for view in summary.views:
        if view.error is not None:
            click.echo(f"error: view {view.view}: {view.error}", err=True)
        if view.statistics_error:
            click.echo(f"warning: view {view.view}: no statistics: {view.statistics_error}", err=True)
    click.echo(json.dumps(summary.to_dict()))


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"see `{context.command_path if context is not None else 'materializer'} --help`"


if __name__ == "__main__":
    main()
