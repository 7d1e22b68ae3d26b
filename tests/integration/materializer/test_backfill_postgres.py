"""Backfills by several workers, with the registry in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.materializer.repo import USER, Repo, stats_view
from tests.integration.materializer.test_backfill import NOW, fill, rows_of
from tests.integration.materializer.test_crash import commits, kill_at
from tests.servers import PG_BIN, start_postgres

ARGS = ("--now", "2013-04-11", "--start", "2013-01-01", "--workers", "2")


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Repo]:
    """A repo with 12 dates of rows."""
    if not PG_BIN.exists():
        pytest.skip(f"no PostgreSQL in {PG_BIN}")
    with start_postgres() as server:
        (tmp_path / "repo" / "data").mkdir(parents=True)
        lines = f'project = "test"\nonline_store = "lmdb://.fastserve/online"\nregistry = "{server.make_database()}"\n'
        (tmp_path / "repo" / "fastserve.toml").write_text(lines)
        repo = Repo.at(tmp_path / "repo")
        with repo.registry() as registry:
            registry.apply([USER, stats_view()])
        fill(repo, rows_of())
        yield repo


def test_a_killed_backfill_frees_the_view_and_is_taken_up(shared: Repo, tmp_path: Path) -> None:
    other = Repo.make(tmp_path / "other")
    fill(other, rows_of())
    other.materialize(NOW)
    process = shared.start("stats", *ARGS, command="backfill")
    assert kill_at(process, lambda: commits(shared) >= 2, 0)
    process.communicate()
    code, summary, err = shared.cli("stats", *ARGS, command="backfill")
    assert code == 0, err
    assert (
        summary["dates_done"] + summary["dates_unchanged"] + summary["dates_skipped"] == 2 * summary["dates"]
    )
    assert shared.offline_table() == other.offline_table()
    assert shared.online_rows() == other.online_rows()
    with shared.registry() as registry:
        assert registry.backfills.incomplete(shared.view().view_id) is None
    code, summary, _ = shared.cli("stats", *ARGS, command="backfill")
    assert (code, summary["dates_skipped"]) == (0, 2 * summary["dates"])
