"""bench/results/*.json -> docs/performance.md; suite.py -> bench/README.md.  `python -m bench.render`; a test compares.

The pages have hand-written text and, up to `<!-- end -->`, what is made:

    <!-- bench:<name> -->    what a results file says, or that there is none yet
    <!-- aims -->            the aims of all results files
    <!-- suite -->           all benches
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final

import orjson

from bench.suite import BENCHES

RESULTS: Final = Path(__file__).parent / "results"
PAGE: Final = Path(__file__).parents[1] / "docs" / "performance.md"
README: Final = Path(__file__).parent / "README.md"
_MARK: Final = re.compile(r"(<!-- (bench:[a-z0-9_]+|aims|suite) -->\n).*?(<!-- end -->)", re.DOTALL)


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
    """The page with every marked part made anew."""
    return _MARK.sub(lambda match: f"{match[1]}\n{_part(match[2])}\n\n{match[3]}", page)


def _part(mark: str) -> str:
    if mark == "suite":
        return _suite()
    if mark == "aims":
        found = [_result(bench.name) for bench in BENCHES]
        return _targets([target for document in found if document for target in document["targets"]])
    name = mark.partition(":")[2]
    document = _result(name)
    return f"Not measured yet: `python -m bench.{name}`." if document is None else page_of(document)


def _result(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return orjson.loads(path.read_bytes()) if path.exists() else None


def _suite() -> str:
    lines = [_line(["command", "measures", "about, minutes"]), _line(["---", "---", "---:"])]
    for bench in BENCHES:
        needs = f" (left out where there is no `{bench.needs}`)" if bench.needs else ""
        lines.append(
            _line([f"`python -m bench.{bench.name}`", bench.measures + needs, number(bench.minutes)])
        )
    return "\n".join(lines)


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
    """Write the pages anew."""
    for page in (PAGE, README):
        page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
