"""Options and output that the commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click
import orjson

from fastserve.errors import RequestError
from fastserve.timeutil import parse_timestamp

F = TypeVar("F", bound=Callable[..., Any])


def repo_option(function: F) -> F:
    """``--repo DIR``, the directory of fastserve.toml."""
    return click.option(
        "--repo", default=".", show_default=True, metavar="DIR", help="Directory with fastserve.toml."
    )(function)


def json_option(function: F) -> F:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function)


def parse_moment(text: str | None, option: str) -> int | None:
    """Microseconds of a time given as an option, or None without it.

    Raises:
        RequestError: the text is no time; names the option.
    """
    try:
        return None if text is None else parse_timestamp(text)
    except ValueError as error:
        raise RequestError(str(error), where=option) from None


def echo_json(data: Any) -> None:
    """One JSON document on standard output."""
    click.echo(orjson.dumps(data, default=str, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS))


def echo_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Left-aligned columns; nothing fancier, so that cut and awk work."""
    cells = [[str(c) for c in header], *([str(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
