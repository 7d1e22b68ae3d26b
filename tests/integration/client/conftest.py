"""Clients against real servers: every transport, both event loops."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from fastserve.api.handlers import FeatureReads
from fastserve.api.reader import Reader
from fastserve.api.router import Router
from fastserve.client import AsyncClient, Options
from fastserve.client import h2 as client_h2
from fastserve.client.h2_py import Session as PySession
from fastserve.http.limits import Limits
from fastserve.http.message import Handler
from fastserve.http.server import Server, make_ssl_context
from tests.unit.serving.world import World

try:
    from fastserve._native.h2_client import Session as NativeSession
except ImportError:
    NativeSession = None  # type: ignore[assignment,misc]

Make = Callable[..., AsyncClient]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    loops: dict[str, Any] = {"asyncio": asyncio.new_event_loop}
    if item.path.name not in (
        "test_process.py",
        "test_writes.py",
    ):  # there a server process is started for every test
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture(params=["h2-native", "h2-py", "h1"])
def http(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The HTTP version to ask with; the HTTP/2 twins take turns."""
    if request.param == "h1":
        return "1.1"
    session: Any = PySession
    if request.param == "h2-native":
        if NativeSession is None:
            pytest.skip("fastserve._native.h2_client is not built")
        session = NativeSession
    make = client_h2.H2Transport.__init__
    monkeypatch.setattr(
        client_h2.H2Transport,
        "__init__",
        lambda self, endpoint, options: make(self, endpoint, options, session),
    )
    return "2"


@pytest.fixture
def http2(http: str) -> str:
    """The same for tests of HTTP/2 alone."""
    if http != "2":
        pytest.skip("HTTP/2 only")
    return http


@pytest.fixture
async def connect(http: str) -> AsyncIterator[Make]:
    """connect(server, **options) -> an AsyncClient, closed afterwards."""
    made: list[AsyncClient] = []

    def make(
        server: Server | int, host: str = "127.0.0.1", scheme: str = "http", **options: Any
    ) -> AsyncClient:
        port = server if isinstance(server, int) else server.port
        client = AsyncClient(f"{scheme}://{host}:{port}", Options(http=http), **options)
        made.append(client)
        return client

    yield make
    for client in made:
        await client.close()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    """serve(handler, tls=None, port=0, **limits) -> a started Server; it has no connection left afterwards."""
    servers: list[Server] = []

    async def start(handler: Handler, tls: Any = None, port: int = 0, **limits: Any) -> Server:
        server = Server(handler, limits=Limits(**limits), ssl_context=tls)
        servers.append(server)
        await server.start("127.0.0.1", port)
        return server

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
async def features(world: World, serve: Callable[..., Any]) -> Server:
    """A server of the world of tests/unit/serving/world.py."""
    server: Server = await serve(Router(FeatureReads(world.catalog, Reader(world.read_path)).routes))
    return server


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """(certificate, key) paths, self-signed for localhost."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is missing")
    folder: Path = tmp_path_factory.mktemp("tls")
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


@pytest.fixture
def tls(certificate: tuple[str, str]) -> Any:
    """A server-side TLS context with ALPN."""
    return make_ssl_context(*certificate)
