"""Files are joined while others read, append, overwrite and delete; no row is lost or doubled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from fastserve import Field
from fastserve.errors import AlreadyRunningError
from fastserve.offline.delta import AppendResult, OfflineTable
from fastserve.offline.rewrite import rewriting
from fastserve.registry import Registry, open_registry
from fastserve.timeutil import DAY_US
from tests.unit.offline.test_delta import DAY, A, batch, view

FIRST, SECOND = date.fromisoformat(DAY), date(2024, 3, 11)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with open_registry(f"sqlite:///{tmp_path_factory.mktemp('r') / 'registry.db'}", "p") as opened:
        yield opened


@pytest.fixture
def table(tmp_path: Path) -> OfflineTable:
    """Five commits, each of a row on either day: values 0 … 4 and 0 … -4."""
    made = OfflineTable(str(tmp_path), "p", view())
    for i in range(5):
        made.append_new([batch(made.rv, [(i, 5, 5, i), (i, DAY_US, DAY_US, -i)])])
    return made


def values(table: OfflineTable) -> list[int]:
    return sorted(r["a"] for b in table.read() for r in b.to_pylist())


ALL = sorted([*range(5), *(-i for i in range(5))])


def test_compacting_joins_files_and_keeps_rows_and_versions(tmp_path: Path, registry: Registry) -> None:
    rv = view(schema=(A, Field("v", "list<float32>[2]")))
    table = OfflineTable(str(tmp_path), "p", rv)
    for i in range(5):
        table.append_new([batch(rv, [(i, 5, 5, i, [i, 0.5]), (i, DAY_US, DAY_US, -i, None)])])

    def rows(**options):
        return sorted((r["a"], repr(r["v"])) for b in table.read(**options) for r in b.to_pylist())

    before, version = rows(), table.version
    with rewriting(registry, table) as files:
        assert files.compact([], 2) == 0
        assert files.compact([FIRST, SECOND], 6) == 0
        assert files.compact([FIRST], 5) == 5
        assert files.compact([FIRST, SECOND], 5) == 5
    assert rows() == before == rows(version=version)
    assert table.append_new([batch(rv, [(1, 5, 5, 9, None), (9, 5, 5, 9, None)])]) == AppendResult(2, 1)


def test_only_one_rewrites_at_a_time(table: OfflineTable, registry: Registry) -> None:
    with rewriting(registry, table):
        version = table.version
        with pytest.raises(AlreadyRunningError, match="another run holds"), rewriting(registry, table):
            pass
        with registry.lock_view(table.rv.view_id):  # a materialization goes on meanwhile
            pass
    with rewriting(registry, table) as files:
        assert files.compact([FIRST], 2) == 5
    assert table.version == version + 1


def test_delta_alone_doubles_rows(table: OfflineTable) -> None:
    """What the lock is for. Once this fails, Delta has learned it."""
    late = DeltaTable(table.uri)
    DeltaTable(table.uri).optimize.compact()
    late.optimize.compact()
    assert values(table) == sorted(ALL * 2)


@pytest.mark.parametrize("first", ["compact", "change"])
@pytest.mark.parametrize("change", ["overwrite", "delete"])
def test_a_compaction_never_undoes_a_change_of_the_same_files(
    table: OfflineTable, change: str, first: str
) -> None:
    """Of a compaction and an overwrite or delete that saw the same version, the later one is refused."""

    def changed(by: DeltaTable) -> None:
        if change == "delete":
            by.delete(f"event_date = '{DAY}'")
        else:
            row = batch(table.rv, [(9, 5, 5, 9)])
            row = row.append_column("event_date", pa.array([FIRST]))
            write_deltalake(by, row, mode="overwrite", predicate=f"event_date = '{DAY}'")

    one, other = DeltaTable(table.uri), DeltaTable(table.uri)
    if first == "compact":
        one.optimize.compact()
        with pytest.raises(CommitFailedError):
            changed(other)
        assert values(table) == ALL
    else:
        changed(one)
        with pytest.raises(CommitFailedError):
            other.optimize.compact()
        assert values(table) == sorted([-i for i in range(5)] + ([9] if change == "overwrite" else []))


def test_compacting_while_another_appends(tmp_path: Path, registry: Registry) -> None:
    mine = OfflineTable(str(tmp_path), "p", view())
    done = threading.Event()

    def append() -> None:
        other = OfflineTable(str(tmp_path), "p", view())
        for i in range(25):
            other.append_new([batch(other.rv, [(i, 5, 5, i)])])
        done.set()

    thread = threading.Thread(target=append)
    thread.start()
    while not done.is_set():
        with rewriting(registry, mine) as files:
            files.compact([FIRST], 2)
    thread.join()
    assert values(mine) == list(range(25))
    for i in range(25):
        assert mine.append_new([batch(mine.rv, [(i, 5, 5, 7)])]).rows_new == 0
