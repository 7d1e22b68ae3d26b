"""`fastserve verify`."""

from __future__ import annotations

import sys
from typing import Final

import click

from fastserve.cli.options import echo_json, json_option, repo_option
from fastserve.errors import RequestError
from fastserve.store import FeatureStore

_EPILOG: Final = """\b
Kinds of differences, which --allow takes:
  late         history got the row after the answer
  correction   history's row was put in the place of the one that was served, after the answer
  ttl          one row, taken as expired on one side
  lag          an older row was online; the newer one had been known for less than the grace
  code         another on-demand function, or another definition of its view, than served it
  corrupt      the stored row cannot be read
  unexplained  none of these

\b
Exit codes:
  0  every value is equal, or differs in a way that is allowed
  1  some differ, or history or the store cannot be read
  2  a mistake in the command, the configuration or the definitions
"""


@click.command("verify", epilog=_EPILOG)
@repo_option
@json_option
@click.option("--service", default=None, help="Of one feature service; without it and FEATURES, of all.")
@click.option(
    "--sample",
    type=click.IntRange(1),
    default=1_000,
    show_default=True,
    help="Entities to ask for, drawn at random; of a log, the newest rows.",
)
@click.option(
    "--log", default=None, metavar="DIR", help="Answers that were served: what `serve --log-answers` wrote."
)
@click.option("--allow", multiple=True, metavar="KIND", help="Count it, but do not mind; repeatable.")
@click.option(
    "--grace",
    default="1h",
    show_default=True,
    metavar="DURATION",
    help="How long after it became known a row need not be online.",
)
@click.option(
    "--settle",
    default="0s",
    show_default=True,
    metavar="DURATION",
    help="How long history is given before it is read; of a log, answers so new are left out.",
)
@click.option("--seed", type=int, default=None, help="Draw the same entities again: what a report names.")
@click.option("--now", default=None, metavar="TIME", help="Ask for this instant instead of now.")
@click.argument("features", nargs=-1)
def verify_command(  # noqa: PLR0913  (an option each)
    repo: str,
    as_json: bool,
    service: str | None,
    sample: int,
    log: str | None,
    allow: tuple[str, ...],
    grace: str,
    settle: str,
    seed: int | None,
    now: str | None,
    features: tuple[str, ...],
) -> None:
    """Rebuild online answers from history, and compare the bytes of every value.

    Of entities drawn at random, asked for now; or of a log of served answers. Nothing is written.
    """
    if features and service:
        raise RequestError("name either features or --service", hint="fastserve verify view:feature")
    if log is not None and (features or seed is not None or now is not None):
        raise RequestError(
            "of a log, neither features nor --seed nor --now can be chosen",
            where="--log",
            hint="--service and --sample can",
        )
    with FeatureStore(repo) as store:
        report = store.verify_answers(
            list(features) or None,
            service=service,
            sample=sample,
            log=log,
            allow=allow,
            grace=grace,
            settle=settle,
            seed=seed,
            now=now,
        )
    if as_json:
        from fastserve.api.json_answer import json_value  # noqa: PLC0415

        data = report.to_dict()
        for example in data["examples"]:
            for side in ("served", "rebuilt"):
                example[side] = json_value(example[side])
            example["entity"] = {name: json_value(value) for name, value in example["entity"].items()}
        echo_json(data)
    else:
        click.echo(str(report))
    if not report.ok:
        sys.exit(1)
