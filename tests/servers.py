"""Real servers for tests: started on free ports of the loopback address, ended by their process."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
_START_SECONDS = 60.0
_STOP_SECONDS = 60.0
PG_BIN = Path(os.environ.get("FASTSERVE_TEST_PG_BIN", "/usr/lib/postgresql/15/bin"))


def free_port() -> int:
    """A TCP port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Serving(NamedTuple):
    """A `fastserve` server that has said that it is ready."""

    port: int
    process: subprocess.Popen[str]


@contextlib.contextmanager
def serving(
    repo: Path, *options: str, command: str = "serve", stderr: int | IO[str] | None = None
) -> Iterator[Serving]:
    """`fastserve serve` of a repo on a free port, as a process group of its own, until the block ends.

    Args:
        options: of the command; with ``--json`` the ready line is JSON, and read as such.
        command: "serve" or "control".
        stderr: as Popen's; None for ours.
    """
    words = [sys.executable, "-m", "fastserve.cli.main", command, "--port", "0", *options]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        words, cwd=repo, env=environ, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{words} ended with status {process.wait(_STOP_SECONDS)}")
            port = json.loads(line)["port"] if "--json" in options else int(line.rsplit(":", 1)[1])
            yield Serving(port, process)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            finally:
                with contextlib.suppress(ProcessLookupError):  # none is left, as it should be
                    os.killpg(process.pid, signal.SIGKILL)


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
            process.send_signal(signal.SIGINT)  # its "fast" shutdown: clients are cut off
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


@dataclass
class RedisServer:
    """A running redis-server.

    Attributes:
        url: ``redis://`` or ``rediss://``, with password and CA.
        unix_url: the same server by its socket.
        port: of TCP.
        directory: its data, log, socket and certificates.
    """

    url: str
    unix_url: str
    port: int
    directory: Path
    command: list[str] = field(repr=False)
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """End it as a crash would; what was not on disk is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order; harmless when it has ended."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Start it again, same port and directory."""
        self.stop()
        self.process = _launch_redis(self.command, self.port, self.directory)

    def _end(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
            if number != signal.SIGKILL:
                self.process.send_signal(signal.SIGCONT)  # in case a test had paused it
        self.process.wait(timeout=_START_SECONDS)


def start_redis(
    tmp_path: Path, *, tls: bool = False, password: str | None = None, options: tuple[str, ...] = ()
) -> RedisServer:
    """Start redis-server and wait until it answers. The caller stops it.

    Args:
        tmp_path: where its directory goes.
        tls: TLS with a certificate made for it; the URL names the CA.
        password: what clients must give.
        options: further ``--name``, ``value`` words.
    """
    port = free_port()
    directory = tmp_path / f"redis-{port}"
    directory.mkdir(parents=True)
    sock = directory / "s"
    command = ["redis-server", "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
    command += ["--unixsocket", str(sock), "--logfile", "log", *options]
    login = ""
    if password is not None:
        command += ["--requirepass", password]
        login = f":{quote(password, safe='')}@"
    if tls:
        _make_certificate(directory)
        command += ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
        command += ["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem"]
        command += ["--tls-ca-cert-file", "cert.pem"]
        url = f"rediss://{login}127.0.0.1:{port}?ssl_ca_certs={directory / 'cert.pem'}"
    else:
        command += ["--port", str(port)]
        url = f"redis://{login}127.0.0.1:{port}"
    process = _launch_redis(command, port, directory)
    return RedisServer(url, f"unix://{login}{sock}", port, directory, command, process)


def _launch_redis(command: list[str], port: int, directory: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            if _has_loaded(directory / "s"):
                return process
        except OSError:
            pass
        time.sleep(0.01)
    process.kill()
    process.wait()
    log = directory / "log"
    raise RuntimeError(f"redis-server did not start: {log.read_text() if log.exists() else ''}")


def _has_loaded(sock: Path) -> bool:
    """Whether it answers commands: it accepts connections before that, and says LOADING."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_START_SECONDS)
        probe.connect(str(sock))
        probe.sendall(b"PING\r\n")
        return probe.recv(64).startswith((b"+PONG", b"-NOAUTH"))


_SELF_SIGNED = (
    "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
)


def _make_certificate(directory: Path) -> None:
    """A self-signed certificate for 127.0.0.1; it is its own CA."""
    subprocess.run(
        ["openssl", *_SELF_SIGNED.split(), "-keyout", directory / "key.pem", "-out", directory / "cert.pem"],
        check=True,
        capture_output=True,
    )
