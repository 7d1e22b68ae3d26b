"""A results file: what was measured, on what, by which command. bench/render.py makes the tables in docs/ of them.

{"name", "title", "command", "stamp": {…},
 "tables": [{"title", "columns": [{"name", "unit"}], "rows": [{"label": …, "<column>": {"median", "worst", …}}]}],
 "targets": [{"what", "measured", "at_least" | "at_most", "reach", "holds"}],
 "notes": […]}
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import orjson

from bench.measure import Figure
from bench.render import RESULTS, page_of
from bench.scale import SMOKE

_WRITE: Final = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
_SOURCES: Final = (
    ":/",
    ":!/bench/results",
    ":!/docs/performance.md",
)  # not what a bench before this one wrote
PACKAGES: Final = (
    "numpy",
    "pyarrow",
    "orjson",
    "uvloop",
    "redis",
    "hiredis",
    "cython",
    "lmdb",
    "granian",
    "feast",
)


@dataclass(slots=True)
class Table:
    """Rows of figures.

    Attributes:
        columns: name -> unit; a row may lack one.
        rows: (label, column -> Figure, or a plain number or text), in order.
    """

    title: str
    columns: Mapping[str, str]
    rows: list[tuple[str, Mapping[str, Figure | float | str]]] = field(default_factory=list)

    def add(self, label: str, **figures: Figure | float | str) -> None:
        """One more row."""
        unknown = set(figures) - set(self.columns)
        assert not unknown, f"no such columns: {unknown}"
        self.rows.append((label, figures))


@dataclass(frozen=True, slots=True)
class Target:
    """What the figures were hoped to be; exactly one of at_least and at_most."""

    what: str
    measured: float
    at_least: float | None = None
    at_most: float | None = None
    reach: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it was met."""
        if self.at_least is not None:
            return self.measured >= self.at_least
        return self.at_most is not None and self.measured <= self.at_most


def save(
    name: str,
    title: str,
    tables: Sequence[Table],
    *,
    targets: Sequence[Target] = (),
    notes: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
) -> Path:
    """Write bench/results/<name>.json, unless this is a smoke test, and print the tables.

    Args:
        name: the module's, `python -m bench.<name>`.
        versions: of what is no Python package here: redis-server, h2load, the peer in its own environment.
    """
    document = {
        "name": name,
        "title": title,
        "command": f"python -m bench.{' '.join([name, *sys.argv[1:]])}",
        "stamp": stamp(versions or {}),
        "tables": [_table(table) for table in tables],
        "targets": [_target(target) for target in targets],
        "notes": list(notes),
    }
    path = RESULTS / f"{name}.json"
    print(page_of(document))
    if SMOKE:
        print("A smoke test: the figures mean nothing, and are not kept.")
        return path
    RESULTS.mkdir(exist_ok=True)
    path.write_bytes(orjson.dumps(document, option=_WRITE))
    print(f"written to {path}")
    return path


def stamp(versions: Mapping[str, str]) -> dict[str, Any]:
    """When, on what machine, with what versions, at which commit."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "commit": _git("rev-parse", "--short=10", "HEAD")
        + ("+" if _git("status", "--porcelain", "--", *_SOURCES) else ""),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))} | dict(versions),
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "columns": [{"name": name, "unit": unit} for name, unit in table.columns.items()],
        "rows": [
            {"label": label}
            | {name: fig.as_dict() if isinstance(fig, Figure) else fig for name, fig in figures.items()}
            for label, figures in table.rows
        ],
    }


def _target(target: Target) -> dict[str, Any]:
    bounds = {"at_least": target.at_least, "at_most": target.at_most, "reach": target.reach}
    found = {"what": target.what, "measured": target.measured, "holds": target.holds}
    return found | {name: bound for name, bound in bounds.items() if bound is not None}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(RESULTS.parent), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
