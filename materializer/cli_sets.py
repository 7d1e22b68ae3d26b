"""`materializer refresh`, `rollback` and `reclaim`: one line of JSON each, as `run`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from fastserve.config import Config
from fastserve.loading import loading
from materializer.options import SIGNAL_BASE, duration_option, time_option
from materializer.progress import progress_bar
from materializer.stop import Stop

if TYPE_CHECKING:
    from materializer.refresh import SetsSummary

_EXIT_CODES: Final = """\b
Exit codes:
  0    done
  1    it failed; the rows served are those before
  2    a mistake in the command, the configuration or the definitions; nothing was changed
  3    another process holds the view's row sets; nothing was changed
  130  stopped by SIGINT, 143 by SIGTERM; the rows served are those before
"""

_repo = click.option("--repo", default=".", metavar="DIR", show_default=True, help="Where fastserve.toml is.")
_now = click.option(
    "--now", "now_us", callback=time_option, metavar="TIME", help="Replay: this is the present."
)


def _keep(text: str) -> Callable[[Any], Any]:
    return click.option(
        "--keep",
        "keep_us",
        callback=duration_option,
        default="1h",
        show_default=True,
        metavar="DURATION",
        help=text,
    )


@click.command("refresh", epilog=_EXIT_CODES)
@click.argument("view", metavar="VIEW")
@_keep("How long the rows before are kept for a rollback; a minute at least.")
@click.option(
    "--carry/--no-carry",
    default=None,
    help="Take over rows that only the served set has. Default: of views with a push source.",
)
@click.option("--allow-fewer", is_flag=True, help="Switch even to less than half as many rows.")
@_repo
@_now
@click.pass_context
def refresh_command(ctx: click.Context, /, repo: str, **options: Any) -> None:
    """Build a view's online rows anew, beside those served, and switch to them at once.

    VIEW is NAME or NAME@vN. The rows come from the view's offline table, or from its source where there is none. Runs
    and pushes go on meanwhile, into both sets. Every row is read back before the switch. No answer has rows of both.
    """
    with loading():
        from materializer.refresh import RefreshRequest, refresh  # noqa: PLC0415  (--help must not wait for Arrow)

    def work(stop: Stop) -> SetsSummary:
        with progress_bar() as progress:
            return refresh(Config.from_repo(repo), RefreshRequest(**options), progress=progress, stop=stop)

    _run(ctx, work)


@click.command("rollback", epilog=_EXIT_CODES)
@click.argument("view", metavar="VIEW")
@_keep("How long the rows served until now are kept, to take the rollback back.")
@_repo
@click.pass_context
def rollback_command(ctx: click.Context, /, repo: str, view: str, keep_us: int) -> None:
    """Serve the rows before a view's last refresh again: they had every push and run since, too."""
    with loading():
        from materializer.refresh import rollback  # noqa: PLC0415

    _run(ctx, lambda stop: rollback(Config.from_repo(repo), view, keep_us=keep_us, stop=stop))


@click.command("reclaim", epilog=_EXIT_CODES)
@_keep("How long ago a view must have been retired for its rows to go.")
@_repo
@_now
@click.pass_context
def reclaim_command(ctx: click.Context, /, repo: str, keep_us: int, now_us: int | None) -> None:
    """Remove online rows that nobody reads: of sets kept no longer, of refreshes that died, of retired views.

    `materializer run` does this for the views it fills, but for retired ones.
    """
    with loading():
        from materializer.refresh import reclaim  # noqa: PLC0415

    _run(ctx, lambda stop: reclaim(Config.from_repo(repo), keep_us=keep_us, now_us=now_us, stop=stop))


def _run(ctx: click.Context, work: Callable[[Stop], SetsSummary]) -> None:
    """Do it; report; end with its exit code."""
    stop = Stop()
    with stop.on_signals():
        summary = work(stop)
    if summary.error is not None:
        click.echo(f"error: {summary.error}", err=True)
    click.echo(json.dumps(summary.to_dict()))
    ctx.exit(SIGNAL_BASE + stop.signum if summary.status == "stopped" else summary.exit_code)
