"""The files of a table are rewritten by one process at a time, wherever its registry is."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from fastserve import FeatureView, Field
from fastserve.errors import AlreadyRunningError
from fastserve.offline.delta import OfflineTable
from fastserve.offline.rewrite import rewriting
from fastserve.registry import Registry
from tests.integration.registry.conftest import Worker
from tests.integration.registry.test_locks import line
from tests.unit.offline.test_delta import batch
from tests.unit.offline.views import registered

ROUNDS = 4
DAY = date(1970, 1, 1)


@pytest.fixture
def table(tmp_path: Path) -> OfflineTable:
    rv = registered(FeatureView("w", schema=[Field("a", "int64")]), {"u": "int64"})
    return OfflineTable(str(tmp_path / "offline"), "demo", rv)


def append(table: OfflineTable, first: int, n_files: int = 12, rows: int = 50) -> None:
    """So many rows of one day, each of a user of its own, in so many files."""
    for at in range(first, first + n_files * rows, rows):
        table.append_new([batch(table.rv, [(u, 5, 5, u) for u in range(at, at + rows)], start=0)])


def test_two_processes_that_join_files_double_no_row(
    registry: Registry, url: str, worker: Worker, table: OfflineTable, tmp_path: Path
) -> None:
    workers = [worker("rewrite", url, tmp_path / "offline") for _ in range(2)]
    assert [line(process) for process in workers] == ["ready", "ready"]
    for n in range(1, ROUNDS + 1):
        append(table, (n - 1) * 600)
        for process in workers:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        said = [line(process) for process in workers]
        assert any(word.isdecimal() for word in said)
        users = [row["u"] for part in table.read([]) for row in part.to_pylist()]
        assert sorted(users) == list(range(n * 600)), said


def test_while_another_process_holds_the_files_nothing_is_joined(
    registry: Registry, url: str, worker: Worker, table: OfflineTable
) -> None:
    holder = worker("hold-files", url, table.rv.view_id)
    assert line(holder) == "held"
    with (
        pytest.raises(AlreadyRunningError, match=f"rewrite's lock: pid {holder.pid} on "),
        rewriting(registry, table),
    ):
        pass
    with registry.lock_view(table.rv.view_id):
        pass
    holder.communicate("\n")
    append(table, 0, n_files=2)
    with rewriting(registry, table) as files:
        assert files.compact([DAY], 2) == 2
