"""A report as a table on the terminal, report.json and report.html."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtest.page import page_of

COLUMNS = ("p50", "p90", "p99", "p99.9", "max")


def save(report: dict[str, Any], folder: Path) -> None:
    """Write report.json and report.html, and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page_of(report), encoding="utf-8")
    console = Console()
    show(report, console if console.is_terminal else Console(width=110))
    print(f"{folder / 'report.html'}  {folder / 'report.json'}")


def show(report: dict[str, Any], console: Console) -> None:
    """The report for a terminal."""
    table = Table(title="latency, ms", title_justify="left")
    table.add_column("", no_wrap=True)
    for name in ("ok", "errors", "bytes", *COLUMNS):
        table.add_column(name, justify="right")
    for one in report["variants"]:
        figures = [f"{one['latency_ms'][name]:.2f}" for name in COLUMNS]
        table.add_row(one["name"], f"{one['ok']:,}", f"{one['errors']:,}", f"{one['bytes']:,}", *figures)
    console.print(table)
    rate, client, server = report["rate"], report["client"], report["server"]
    asked = f"{rate['asked']:g} asked, " if rate["asked"] else ""
    console.print(f"requests/s: {asked}{rate['sent']:.1f} sent, {rate['ok']:.1f} ok", highlight=False)
    late = f"requests left {client['lag_p99_ms']:.2f} ms late at p99" if rate["asked"] else "closed loop"
    console.print(
        f"client: CPU {client['cpu_share']:.0%}, waiting for its core {client['wait_share']:.0%}, {late}",
        highlight=False,
    )
    if server:
        console.print(
            "server: " + ", ".join(f"{name} {value}" for name, value in server.items()), highlight=False
        )
    for kind, found in report["errors"].items():
        console.print(
            f"{found['count']:,} x {kind}: {'; '.join(found['examples'])}", highlight=False, markup=False
        )
    colour = {0: "green", 3: "yellow"}.get(report["exit_code"], "red")
    word = {0: "SLO met", 3: "no verdict on the server"}.get(report["exit_code"], "SLO missed")
    console.print(f"[{colour}]{word}[/]: {report['verdict']}", highlight=False)
