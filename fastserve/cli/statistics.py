"""Statistics of a view as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from fastserve.cli.options import echo_table

if TYPE_CHECKING:
    from fastserve.statistics import ViewStatistics

_HEADER = ("FEATURE", "TYPE", "ROWS", "NULL", "MIN", "P50", "MAX", "MEAN", "STD", "DISTINCT", "TOP")


def echo_statistics(found: ViewStatistics | None) -> None:
    """A line a feature. Of texts, bytes and lists MIN to STD are of their lengths."""
    if found is None:
        click.echo("statistics: none; `materializer run` notes them")
        return
    about = found.to_dict()
    twice = "; some rows may count twice" if found.overlapping else ""
    runs = f"{found.runs} run" + ("s" if found.runs != 1 else "")
    click.echo(f"statistics: {found.rows:,} rows of {about['start']} to {about['end']}, {runs}{twice}")
    echo_table(_HEADER, [_line(name, one) for name, one in about["features"].items()])


def _line(name: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = one.get("length", one)
    share = one["null_share"]
    top = ", ".join(f"{_short(line['value'])} {line['share']:.0%}" for line in one.get("top", ())[:3])
    return (
        name,
        one["dtype"],
        f"{one['rows']:,}",
        "" if share is None else f"{share:.1%}",
        _short(numbers.get("min")),
        _short(numbers.get("quantiles", {}).get("p50")),
        *(_short(numbers.get(key)) for key in ("max", "mean", "std")),
        _short(one.get("distinct")),
        "hidden: pii" if "hidden" in one else top,
    )


def _short(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 27 else text[:26] + "…"
