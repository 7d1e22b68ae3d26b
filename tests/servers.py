"""Real servers for tests: started on free ports of the loopback address, ended by their process."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

PG_BIN = Path(os.environ.get("FASTSERVE_TEST_PG_BIN", "/usr/lib/postgresql/15/bin"))


def free_port() -> int:
    """A TCP port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class PostgresServer:
    """A PostgreSQL of our own: user ``postgres``, whose password on TCP is `password`."""

    directory: Path
    port: int
    password: str = "s3cret/pass@word"
    _numbers: Iterator[int] = field(default_factory=count)

    def url(self, database: str = "postgres") -> str:
        """The URL of a database, over TCP with the password."""
        quoted = self.password.replace("/", "%2F").replace("@", "%40")
        return f"postgresql://postgres:{quoted}@127.0.0.1:{self.port}/{database}"

    def make_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"db{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str) -> None:
        """Run a statement as superuser, over the unix socket."""
        import psycopg

        where = f"host={self.directory} port={self.port} user=postgres dbname=postgres"
        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute(statement)


@contextlib.contextmanager
def start_postgres() -> Iterator[PostgresServer]:
    """A fresh PostgreSQL cluster in a temporary directory; stopped and removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="fastserve-pg-", dir="/tmp"))  # a socket path is short
    server = PostgresServer(directory, free_port())
    # PostgreSQL refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    (directory / "password").write_text(server.password)
    for path in (directory, directory / "password"):
        shutil.chown(path, user)
    process = None
    try:
        _initdb(server, user)
        process = _start_postgres(server, user)
        yield server
    finally:
        if process is not None:
            process.terminate()
            process.wait(30)
        shutil.rmtree(directory, ignore_errors=True)


def _initdb(server: PostgresServer, user: str) -> None:
    options = "--username=postgres --auth-local=trust --auth-host=scram-sha-256 --no-locale --no-sync"
    command = [PG_BIN / "initdb", *options.split(), "-E", "UTF8", "-D", server.directory / "data"]
    command.append(f"--pwfile={server.directory / 'password'}")
    subprocess.run(command, user=user, group=user, extra_groups=[], cwd="/", check=True, capture_output=True)


def _start_postgres(server: PostgresServer, user: str) -> subprocess.Popen[bytes]:
    options = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=60"
    command = [PG_BIN / "postgres", "-D", server.directory / "data", "-k", server.directory]
    command += ["-p", str(server.port), "-h", "127.0.0.1", *options.split()]
    with (server.directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command, user=user, group=user, extra_groups=[], cwd="/", stdout=log, stderr=log
        )
    ready = [PG_BIN / "pg_isready", "-q", "-h", server.directory, "-p", str(server.port)]
    deadline = time.monotonic() + 30
    while subprocess.run(ready, check=False).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise RuntimeError((server.directory / "log").read_text())
        time.sleep(0.02)
    return process
