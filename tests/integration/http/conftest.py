"""A real server on a real port: both event loops, both HTTP/2 sessions."""

import asyncio
import shutil
import subprocess

import pytest
import uvloop

from fastserve.http.h2_py import Session as PySession
from fastserve.http.limits import Limits
from fastserve.http.server import Server, make_ssl_context
from tests.integration.http.supervised import Supervised

try:
    from fastserve._native.h2 import Session as NativeSession
except ImportError:
    NativeSession = None


def pytest_asyncio_loop_factories(config, item):
    loops = {"asyncio": asyncio.new_event_loop}
    if not item.path.name.startswith("test_workers"):  # there the servers are processes of their own
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture(params=["py", "native"])
def impl(request):
    """The HTTP/2 session class."""
    if request.param == "py":
        return PySession
    if NativeSession is None:
        pytest.skip("fastserve._native.h2 is not built (libnghttp2 missing, or a pure install)")
    return NativeSession


@pytest.fixture
async def serve():
    """serve(handler, session=..., tls=..., gate=..., **limits) -> a started Server, closed afterwards."""
    servers = []

    async def start(handler, session=None, tls=None, gate=None, **limits):
        kwargs = {} if session is None else {"session_class": session}
        server = Server(handler, limits=Limits(**limits), gate=gate, ssl_context=tls, **kwargs)
        servers.append(server)
        await server.start("127.0.0.1", 0)
        return server

    yield start
    for server in servers:
        await server.close()
        assert server.stats.open_connections == 0


@pytest.fixture
async def supervise():
    """supervise(scenario, workers, port, ...) -> a Supervised, killed afterwards if need be."""
    started = []

    async def start(*words):
        started.append(await Supervised.start(*words))
        return started[-1]

    yield start
    for supervised in started:
        if supervised.process.returncode is None:
            supervised.process.kill()
            await supervised.process.communicate()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """(certificate, key) paths, self-signed for localhost."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is missing")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", cert]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@pytest.fixture
def tls(certificate):
    """A server-side TLS context with ALPN."""
    return make_ssl_context(*certificate)
