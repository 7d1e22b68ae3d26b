"""Render docs/cli.md from the commands themselves: `python deploy/render_cli.py`; a test compares the two."""

from __future__ import annotations

from pathlib import Path

import click

from fastserve.cli.main import cli as fastserve
from materializer.cli import cli as materializer

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
INTRO = """# Command line

Rendered from the commands' own help. Exit codes: 0 is success, 1 a failure, 2 a mistake in the command, the repo or
the input; `materializer` has a few more, listed there. A message goes to standard error and says what, where and
what to do; with `--json` a command prints one JSON document.
"""


def render() -> str:
    """The whole page."""
    parts = [INTRO]
    for name, command in (("fastserve", fastserve), ("materializer", materializer)):
        parts += _sections(name, command, None)
    return "\n".join(parts)


def _sections(name: str, command: click.Command, parent: click.Context | None) -> list[str]:
    widths = {"terminal_width": 100, "max_content_width": 100}
    context = click.Context(command, parent, name, **{**command.context_settings, **widths})
    found = [f"## {context.command_path}\n\n```text\n{command.get_help(context).strip()}\n```\n"]
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            inner = command.get_command(context, each)
            if inner is not None:
                found += _sections(each, inner, context)
    return found


if __name__ == "__main__":
    PAGE.write_text(render())
