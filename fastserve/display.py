"""Small HTML tables: how definitions, plans and results show in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def html_table(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]], note: str = "") -> str:
    """A captioned table; every text is escaped, None is an empty cell.

    Args:
        title: the caption.
        header: column names.
        rows: one sequence of cells per row.
        note: a line under the table.
    """
    head = "".join(f"<th style='text-align:left'>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    foot = f"<div><small>{escape(note)}</small></div>" if note else ""
    caption = f"<caption style='text-align:left'><b>{escape(title)}</b></caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{foot}"


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"<td style='text-align:left'>{escape(text)}</td>"
