"""Opening: URLs, failures in our words, migrations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from fastserve.errors import ConfigError, FastserveError, RegistryError
from fastserve.registry import Registry, open_registry
from fastserve.registry.engine import open_database
from fastserve.registry.schema import HEAD, VERSION_TABLE, metadata
from tests.integration.registry.conftest import ROOT, Worker
from tests.integration.registry.objects import USER
from tests.servers import PostgresServer, free_port


@pytest.mark.parametrize(
    "url",
    [
        "",
        "registry.db",
        "mysql://u:hunter2@h/db",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql://u:hunter2@h:x/db",
    ],
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_registry(url, "demo")
    assert "sqlite:///" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_unreachable_server() -> None:
    url = f"postgresql://ana:hunter2@127.0.0.1:{free_port()}/db?options=-csecret%3Dhunter2"
    with pytest.raises(RegistryError, match="hint") as caught:
        open_registry(url, "demo")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__  # no driver traceback above it


@pytest.mark.parametrize("change", [("password", "wr0ng"), ("database", "nowhere")])
def test_refused_by_the_server(postgres: PostgresServer, change: tuple[str, str]) -> None:
    url = sa.make_url(postgres.url()).set(**{change[0]: change[1]})  # type: ignore[arg-type]
    with pytest.raises(RegistryError) as caught:
        open_registry(url.render_as_string(hide_password=False), "demo")
    assert "wr0ng" not in str(caught.value)
    assert postgres.password not in str(caught.value)


def test_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from fastserve.registry import open_registry\n"
        "from fastserve.errors import ConfigError\n"
        "try: open_registry('postgresql://u:hunter2@h/db', 'demo')\n"
        "except ConfigError as error: print(error)"
    )
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert "pip install 'fastserve[postgres]'" in done.stdout
    assert "hunter2" not in done.stdout


def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database at all\n" * 100)
    with pytest.raises(RegistryError, match="something else"):
        open_registry(f"sqlite:///{path}", "demo")


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RegistryError, match="cannot make the directory"):
        open_registry(f"sqlite:///{tmp_path}/file/registry.db", "demo")


def test_a_path_that_is_a_directory(tmp_path: Path) -> None:
    with pytest.raises(RegistryError):
        open_registry(f"sqlite:///{tmp_path}", "demo")


def test_odd_paths_work(tmp_path: Path) -> None:
    path = tmp_path / "50%25 & co? #1" / "ü.db"
    with open_registry(f"sqlite:///{path}", "demo") as registry:
        registry.apply([USER])
    assert path.exists()


def test_sqlite_is_in_wal_mode(tmp_path: Path) -> None:
    with (
        open_registry(f"sqlite:///{tmp_path}/r.db", "demo") as registry,
        registry._database.read() as connection,
    ):
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_the_data_version_is_of_every_commit(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/odd?#%.db"
    with open_registry(url, "demo") as reader, open_registry(url, "other") as writer:
        before = reader.data_version()
        assert before is not None and reader.data_version() == before
        writer.apply([USER])
        after = reader.data_version()
        assert after != before and reader.data_version() == after


def test_no_data_version_of_a_file_that_is_gone(tmp_path: Path) -> None:
    with open_registry(f"sqlite:///{tmp_path}/registry.db", "demo") as registry:
        assert registry.data_version() == registry.data_version()
        for path in tmp_path.iterdir():
            path.unlink()
        with pytest.raises(RegistryError, match="removed"):
            registry.data_version()


def test_postgres_has_no_data_version(postgres: PostgresServer) -> None:
    with open_registry(postgres.make_database(), "demo") as registry:
        assert registry.data_version() is None


def test_the_id_is_for_life(url: str) -> None:
    with open_registry(url, "demo") as first, open_registry(url, "demo") as second:
        assert first.registry_id == second.registry_id


def test_a_current_database_needs_no_alembic(url: str, worker: Worker) -> None:
    open_registry(url, "demo").close()
    out, _ = worker("alembic", url).communicate()
    assert out.strip() == "False"


def test_a_newer_schema_is_refused(url: str) -> None:
    open_registry(url, "demo").close()
    database = open_database(url)
    with database.write() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    database.close()
    with pytest.raises(RegistryError, match="upgrade fastserve"):
        open_registry(url, "demo")


def test_migrations_build_the_declared_tables(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    open_registry(url, "demo").close()
    database = open_database(url)
    with database.engine.connect() as connection:
        options = {"version_table": VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        found = [(what, index.name) for what, index in compare_metadata(context, metadata)]
        assert found == [("remove_index", "fastserve_objects_current")]  # not declared, see schema.py
        assert context.get_current_revision() == HEAD
    database.close()
    scripts = ScriptDirectory(str(ROOT / "fastserve/registry/migrations"))
    assert scripts.get_current_head() == HEAD


def test_the_database_refuses_two_current_rows(registry: Registry) -> None:
    registry.apply([USER])
    with pytest.raises(RegistryError, match=r"(?i)unique"), registry._database.write() as connection:
        columns = "project, kind, name, version, body, hash, from_revision"
        connection.exec_driver_sql(
            f"INSERT INTO fastserve_objects ({columns}) SELECT {columns} FROM fastserve_objects"
        )


def test_a_failed_migration_leaves_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastserve.registry import migrate

    upgrade = migrate._upgrade

    def fail(connection: sa.Connection) -> None:
        upgrade(connection)
        raise RegistryError("power cut")

    monkeypatch.setattr(migrate, "_upgrade", fail)
    with pytest.raises(RegistryError, match="power cut"):
        open_registry(url, "demo")
    database = open_database(url)
    assert sa.inspect(database.engine).get_table_names() == []
    database.close()
    monkeypatch.undo()
    open_registry(url, "demo").close()


def test_failures_later_are_ours_too(url: str) -> None:
    with open_registry(url, "demo") as registry:
        with registry._database.write() as connection:
            connection.exec_driver_sql("DROP TABLE fastserve_projects")
        for call in (registry.revision, registry.snapshot, lambda: registry.apply([USER])):
            with pytest.raises(FastserveError, match="fastserve_projects"):
                call()


def test_a_restarted_server_is_found_again(postgres: PostgresServer) -> None:
    with open_registry(postgres.make_database(), "demo") as registry:
        registry.apply([USER])
        postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        assert registry.revision() == 1


def test_a_forked_child_does_not_talk_on_its_parents_connection(postgres: PostgresServer) -> None:
    with open_registry(postgres.make_database(), "demo") as registry:

        def backend() -> int:
            with registry._database.read() as connection:
                return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())

        ours = backend()
        assert backend() == ours  # it is pooled
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if backend() != ours else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert backend() == ours


def test_a_forked_child_opens_connections_of_its_own(url: str) -> None:
    with open_registry(url, "demo") as registry:
        registry.apply([USER])
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if registry.revision() == 1 and registry.snapshot().entities else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert registry.revision() == 1
