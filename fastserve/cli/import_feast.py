"""`fastserve import-feast`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fastserve.cli.options import echo_json, json_option


@click.command("import-feast")
@click.argument("feast_repo", metavar="REPO")
@click.option("--output", default="fastserve_repo", show_default=True, metavar="DIR", help="Where to write.")
@click.option(
    "--python", default=sys.executable, metavar="FILE", help="An interpreter with feast; default this one."
)
@json_option
def import_feast_command(feast_repo: str, output: str, python: str, as_json: bool) -> None:
    """Write a fastserve repo from the Feast repo in directory REPO, and say what has no counterpart."""
    from fastserve.feast_import.importer import import_repo  # noqa: PLC0415

    done = import_repo(Path(feast_repo), Path(output), python)
    if as_json:
        echo_json(done.to_dict())
        return
    for kind, names in done.to_dict()["imported"].items():
        click.echo(f"{kind.replace('_', ' ')}: {', '.join(names) or 'none'}")
    for note in done.made.notes:
        click.echo(f"{note.what}: {note.where}: {note.why}")
    click.echo(f"\nwrote {done.output}. Try:\n\n  cd {output}\n  fastserve plan\n  fastserve apply")
    click.echo("  materializer run --incremental\n  fastserve serve")
