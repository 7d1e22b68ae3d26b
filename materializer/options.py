"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from fastserve.errors import RequestError
from fastserve.timeutil import parse_duration, parse_timestamp

F = TypeVar("F", bound=Callable[..., Any])

SIGNAL_BASE: Final = 128
"""Exit status of a command that a signal stopped, less the signal's number."""


def time_option(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A date or time as microseconds UTC."""
    return None if value is None else _parsed(parse_timestamp, param, value)


def duration_option(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """A duration as microseconds."""
    return _parsed(parse_duration, param, value)


def engine_options(command: F) -> F:
    """Where the work is done: `engine` and `master`, as materializer.engine.open_engine takes them."""
    master = click.option(
        "--master",
        metavar="URL",
        help="Spark's: local[*], spark://HOST:PORT, yarn, k8s://…; default: [spark] of fastserve.toml, then Spark's own"
        " configuration.",
    )
    engine = click.option(
        "--engine",
        type=click.Choice(["local", "spark"]),
        default="local",
        show_default=True,
        help="Where the work is done: on this machine, or by the workers of a Spark cluster.",
    )
    return engine(master(command))


def work_option(command: F) -> F:
    """What the tasks of an engine hand on: `work`, '' for beside the offline tables."""
    work = click.option(
        "--work",
        default="",
        metavar="URL",
        help="With Spark: storage that all workers see, for what tasks hand on; by default beside the offline tables.",
    )
    return work(command)


def _parsed(parse: Callable[[str], int], param: click.Parameter, value: str) -> int:
    """What a parser of timeutil makes of an option; its errors read "what is wrong; how to write it"."""
    try:
        return parse(value)
    except (ValueError, OverflowError) as error:
        message, _, hint = str(error).partition("; ")
        raise RequestError(message, where=param.opts[0], hint=hint) from None
