"""The `fastserve` command. Each subcommand is a module of this package, imported when it is called."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from typing import Final

import click

from fastserve import __version__
from fastserve.errors import ConfigError, DefinitionError, FastserveError, RegistryError, RequestError
from fastserve.loading import loading

COMMANDS: Final = {
    "init": ("fastserve.cli.init", "Write a working example repo."),
    "import-feast": ("fastserve.cli.import_feast", "Write a repo from a Feast repo."),
    "plan": ("fastserve.cli.apply", "Show what apply would change."),
    "apply": ("fastserve.cli.apply", "Register the repo's definitions."),
    "serve": ("fastserve.cli.serve", "Answer online feature requests over HTTP/2 and HTTP/1.1."),
    "control": ("fastserve.cli.control", "Registry, jobs, metrics and health over REST."),
    "get": ("fastserve.cli.get", "Read online features of some entities."),
    "list": ("fastserve.cli.show", "List entities, views or services."),
    "describe": ("fastserve.cli.show", "Everything the registry knows of one object."),
    "inspect": ("fastserve.cli.get", "Decode the stored row of one entity."),
    "training-set": ("fastserve.cli.training_set", "Training sets: create, list, show, verify."),
    "stream": ("fastserve.cli.stream", "Events into windows: run, status, push."),
    "verify": ("fastserve.cli.verify", "Rebuild online answers from history and compare the bytes."),
    "status": ("fastserve.cli.show", "Revision, stores and materialized ranges."),
}


class _Commands(click.Group):
    """Commands by name; help texts stand above, so that `--help` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        with loading():
            module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name.replace("-", "_") + "_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches  # noqa: PLC0415

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"no such command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fastserve")
def cli() -> None:
    """fastserve, a feature store: train on and serve the same bytes."""


def main(argv: list[str] | None = None) -> None:
    """Entry point: user mistakes exit 2, failures 1, each with one readable message and no traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    args = sys.argv[1:] if argv is None else argv
    try:
        cli.main(args=args, prog_name="fastserve", standalone_mode=False)
    except FastserveError as error:
        sys.exit(_report(error, as_json="--json" in args))
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:  # no permission, no space: the system's words are the message
        sys.exit(_report(FastserveError(str(error)), as_json="--json" in args))


def _report(error: FastserveError, *, as_json: bool) -> int:
    if as_json:
        body = {
            "code": type(error).__name__,
            "message": error.message,
            "where": error.where,
            "hint": error.hint,
        }
        click.echo(json.dumps({"error": body}))
    else:
        click.echo(f"error: {error}", err=True)
    user_mistake = isinstance(error, (ConfigError, DefinitionError, RequestError, RegistryError))
    return 2 if user_mistake else 1


if __name__ == "__main__":
    main()
