"""bench/results/*.json -> docs/performance.md.  `python -m bench.render`; a test compares the page.

The page has hand-written text and, between `<!-- bench:<name> -->` and `<!-- end -->`, what a results file says.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final

import orjson

RESULTS: Final = Path(__file__).parent / "results"
PAGE: Final = Path(__file__).parents[1] / "docs" / "performance.md"
_MARK: Final = re.compile(r"(<!-- bench:([a-z0-9_]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def page_of(document: dict[str, Any]) -> str:
    """One results file as Markdown."""
    stamp = document["stamp"]
    versions = ", ".join(f"{name} {version}" for name, version in stamp["versions"].items())
    parts = [_table(table) for table in document["tables"]]
    if document["targets"]:
        parts.append(_targets(document["targets"]))
    parts += [f"- {note}" for note in document["notes"]]
    parts.append(
        f"`{document['command']}` on {stamp['date']}, commit {stamp['commit']}: {stamp['cpu']}, {stamp['cores']} cores,"
        f" Linux {stamp['kernel']}, Python {stamp['python']}, {versions}."
    )
    return "\n\n".join(parts)


def rendered(page: str) -> str:
    """The page with every marked part replaced by its results file.

    Raises:
        FileNotFoundError: a marked part has no results file.
    """

    def part(match: re.Match[str]) -> str:
        document = orjson.loads((RESULTS / f"{match[2]}.json").read_bytes())
        return f"{match[1]}\n{page_of(document)}\n\n{match[3]}"

    return _MARK.sub(part, page)


def _table(table: dict[str, Any]) -> str:
    columns = table["columns"]
    head = [
        table["title"],
        *(f"{c['name'].replace('_', ' ')}{f', {unit}' if (unit := c['unit']) else ''}" for c in columns),
    ]
    lines = [_line(head), _line(["---", *("---:" for _ in columns)])]
    for row in table["rows"]:
        lines.append(_line([row["label"], *(_cell(row.get(c["name"])) for c in columns)]))
    return "\n".join(lines)


def _targets(targets: list[dict[str, Any]]) -> str:
    lines = [
        _line(["aim", "at least", "reach for", "measured", ""]),
        _line(["---", "---:", "---:", "---:", "---"]),
    ]
    for one in targets:
        bound = f"≥ {number(one['at_least'])}" if "at_least" in one else f"≤ {number(one['at_most'])}"
        reach = number(one["reach"]) if "reach" in one else ""
        verdict = "holds" if one["holds"] else "**missed**"
        lines.append(_line([one["what"], bound, reach, number(one["measured"]), verdict]))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return f"{number(value['median'])} ({number(value['worst'])})"
    return number(value)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    """Three significant digits, thousands marked."""
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def main() -> int:
    """Write the page anew."""
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
