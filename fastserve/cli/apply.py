"""`fastserve plan` and `fastserve apply`."""

from __future__ import annotations

import getpass

import click

from fastserve.cli.options import echo_json, json_option, repo_option
from fastserve.store import FeatureStore

_prune = click.option("--prune", is_flag=True, help="Also retire registered objects absent from this repo.")


@click.command("plan")
@repo_option
@json_option
@_prune
def plan_command(repo: str, as_json: bool, prune: bool) -> None:
    """Show what apply would change; change nothing."""
    with FeatureStore(repo) as store:
        plan = store.plan(prune=prune)
    if as_json:
        echo_json(plan.to_dict())
    else:
        click.echo(str(plan))


@click.command("apply")
@repo_option
@json_option
@_prune
@click.option("--author", default="", help="Recorded with the revision; default the login name.")
def apply_command(repo: str, as_json: bool, prune: bool, author: str) -> None:
    """Register the repo's definitions, all or nothing."""
    with FeatureStore(repo) as store:
        result = store.apply(prune=prune, author=author or getpass.getuser())
    if as_json:
        echo_json({**result.plan.to_dict(), "revision": result.snapshot.revision})
    else:
        click.echo(str(result.plan))
        click.echo(f"registry {store.config.project!r} is at revision {result.snapshot.revision}")
