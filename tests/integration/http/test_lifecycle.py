"""Cancelling, draining, listening."""

import asyncio
import itertools
import socket
import ssl

import pytest
from hyperframe.frame import GoAwayFrame, PingFrame

from fastserve.errors import ConfigError
from fastserve.http import h1
from fastserve.http import server as http_server
from fastserve.http.h2 import H2Connection
from fastserve.http.message import Response
from fastserve.http.server import Server, make_ssl_context
from tests.integration.http.test_abuse import eventually
from tests.integration.http.wire import H2Client, Raw, frames_of, within

GET = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"


class Slow:
    """Answers with futures or coroutines that the test completes."""

    def __init__(self, kind):
        self.kind = kind
        self.futures = []
        self.cancelled = 0

    def __call__(self, request):
        future = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        return future if self.kind == "future" else self.wait(future)

    async def wait(self, future):
        try:
            return await future
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def called(self, n):
        await eventually(lambda: len(self.futures) >= n)

    def finish(self, i, body=b"done"):
        self.futures[i].set_result(Response(200, "a/b", body))


@pytest.fixture(params=["future", "coroutine"])
def slow(request):
    return Slow(request.param)


async def test_reset_cancels(serve, impl, slow):
    server = await serve(slow, impl)
    async with await H2Client.connect(server) as client:
        await client.request(1)
        await client.request(3)
        await slow.called(2)
        client.conn.reset_stream(1, 8)
        await client.flush()
        await eventually(slow.futures[0].cancelled)
        assert not slow.futures[1].done()
        slow.finish(1)
        await client.until(lambda: 3 in client.ended)
        assert client.bodies[3] == b"done" and 1 not in client.status
    assert server.stats.cancelled == 1
    assert slow.cancelled == (slow.kind == "coroutine")


@pytest.mark.parametrize("protocol", ["h1", "h2"])
async def test_disconnect_cancels(serve, impl, slow, protocol):
    server = await serve(slow, impl)
    if protocol == "h2":
        client = await H2Client.connect(server)
        for stream_id in (1, 3):
            await client.request(stream_id)
    else:
        client = await Raw.connect(server)
        await client.send(GET)
    await slow.called(2 if protocol == "h2" else 1)
    await client.close()
    await eventually(lambda: all(future.cancelled() for future in slow.futures))
    assert server.stats.cancelled == len(slow.futures)
    await eventually(lambda: server.stats.open_connections == 0)


async def test_answers_out_of_order(serve, impl, slow):
    server = await serve(slow, impl)
    async with await H2Client.connect(server) as client:
        for stream_id in (1, 3, 5):
            await client.request(stream_id)
        await slow.called(3)
        for i in (2, 0, 1):
            slow.finish(i, b"%d" % i)
            stream_id = 2 * i + 1
            await client.until(lambda stream_id=stream_id: stream_id in client.ended)
            assert client.bodies[stream_id] == b"%d" % i


@pytest.mark.parametrize("failure", [ValueError("bad"), asyncio.CancelledError()])
async def test_failing_awaitable_is_500(serve, impl, slow, failure, caplog):
    server = await serve(slow, impl)
    async with await H2Client.connect(server) as client:
        await client.request(1)
        await slow.called(1)
        if isinstance(failure, asyncio.CancelledError):
            slow.futures[0].cancel()
        else:
            slow.futures[0].set_exception(failure)
        await client.until(lambda: 1 in client.ended)
        assert client.status[1] == 500
        await client.request(3)
        await slow.called(2)
        slow.finish(1)
        await client.until(lambda: 3 in client.ended)
        assert client.bodies[3] == b"done"
    assert "the handler failed" in caplog.text


async def test_done_future_is_answered_at_once(serve, impl):
    def handler(request):
        future = asyncio.get_running_loop().create_future()
        future.set_result(Response(200, "a/b", b"ready"))
        return future

    server = await serve(handler, impl)
    async with await H2Client.connect(server) as client:
        assert await client.get(1) == (200, b"ready")


# ---- drain ----


async def goaway(client):
    """The next GOAWAY, past the `h2` client, which takes the first one for the end."""
    data = b""
    while True:
        data += await within(client.reader.read(1 << 16))
        for frame in frames_of(data):
            if isinstance(frame, GoAwayFrame):
                return frame.error_code, frame.last_stream_id


async def test_drain_finishes_h2(serve, impl, slow):
    server = await serve(slow, impl)
    port = server.port
    async with await H2Client.connect(server) as client, await H2Client.connect(server) as idle:
        await client.request(1)
        await idle.flush()
        await slow.called(1)
        await eventually(lambda: all(type(c) is H2Connection for c in connections(server)))
        drain = asyncio.ensure_future(server.drain(1000))
        assert await goaway(idle) == await goaway(client) == (0, 2**31 - 1)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        ping_ack = PingFrame(0, bytes(8), flags=["ACK"]).serialize()
        await idle.send(ping_ack)
        assert await goaway(idle) == (0, 0)
        assert await idle.rest() == b""
        await client.send(ping_ack)
        assert await goaway(client) == (0, 1)
        assert not drain.done()
        slow.finish(0)
        assert b"done" in await client.rest()
        await idle.close()
        await client.close()
        await within(drain)
    assert server.stats.cancelled == 0


def connections(server):
    return server._context.connections


async def test_drain_does_not_wait_for_a_ping_ack(serve, impl):
    server = await serve(lambda r: Response(200, "a/b", b"x"), impl)
    async with await H2Client.connect(server) as client:
        assert (await client.get(1))[0] == 200
        drain = asyncio.ensure_future(server.drain(0.4))
        assert await goaway(client) == (0, 2**31 - 1)
        assert await goaway(client) == (0, 1)
        assert await client.rest() == b""
        await client.close()
        await within(drain)


async def test_drain_finishes_h1(serve, slow):
    server = await serve(slow)
    async with await Raw.connect(server) as busy, await Raw.connect(server) as idle:
        await idle.send(GET)
        await slow.called(1)
        slow.finish(0)
        await idle.response()
        await busy.send(GET)
        await slow.called(2)
        drain = asyncio.ensure_future(server.drain(20))
        assert await idle.rest() == b""
        assert not drain.done()
        slow.finish(1)
        status, headers, body = await busy.response()
        assert (status, headers[b"connection"], body) == (200, b"close", b"done")
        assert await busy.rest() == b""
        await busy.close()
        await within(drain)
    assert server.stats.cancelled == 0


async def test_drain_answers_what_was_on_its_way_over_h1(serve):
    """A busy client's next request crosses the drain on the wire; so does a new connection's first."""
    server = await serve(lambda r: Response(200, "a/b", b"x"))
    async with await Raw.connect(server) as busy, await Raw.connect(server) as new:
        await busy.send(GET)
        await busy.response()
        await eventually(lambda: len(connections(server)) == 2)
        drain = asyncio.ensure_future(server.drain(20))
        await asyncio.sleep(0)  # until the listener is closed and the connections were told
        for client in (busy, new):
            await client.send(GET)
            status, headers, body = await client.response()
            assert (status, headers[b"connection"], body) == (200, b"close", b"x")
            assert await client.rest() == b""
            await client.close()
        await within(drain)


async def test_drain_cuts_stragglers(serve, impl, slow):
    server = await serve(slow, impl)
    async with await H2Client.connect(server) as h2, await Raw.connect(server) as h1:
        await h2.request(1)
        await h1.send(GET)
        await slow.called(2)
        await within(server.drain(0.2))
        await eventually(lambda: all(future.cancelled() for future in slow.futures))
        assert await h1.rest() == b""
        await h2.rest()
    assert server.stats.open_connections == 0 and server.stats.cancelled == 2


async def test_drain_of_an_idle_server_waits_for_the_notice_only(serve):
    server = await serve(lambda r: Response(200, "a/b", b""))
    async with await Raw.connect(server):
        await within(server.drain(1000))


# ---- drain of a server that is replaced ----


async def test_a_replaced_server_waits_for_an_idle_clients_last_request(serve, impl, monkeypatch):
    for module in (h1, http_server):
        monkeypatch.setattr(module, "NOTICE_S", -1.0)  # impatience would end all of them at once
    server = await serve(lambda r: Response(200, "a/b", b"x"), impl)
    async with (
        await Raw.connect(server) as idle,
        await Raw.connect(server) as new,
        await H2Client.connect(server) as h2,
    ):
        await idle.send(GET)
        await idle.response()
        assert (await h2.get(1))[0] == 200
        await eventually(lambda: len(connections(server)) == 3)
        drain = asyncio.ensure_future(server.drain(1000, asyncio.Event()))
        assert await goaway(h2) == (0, 2**31 - 1)
        for client in (idle, new):
            await client.send(GET)
            status, headers, body = await client.response()
            assert (status, headers[b"connection"], body) == (200, b"close", b"x")
            assert await client.rest() == b""
            await client.close()
        await h2.send(PingFrame(0, bytes(8), flags=["ACK"]).serialize())
        assert await goaway(h2) == (0, 1)
        await h2.close()
        await within(drain)


async def test_patience_ends_in_a_hurry(serve):
    server = await serve(lambda r: Response(200, "a/b", b"x"))
    hurry = asyncio.Event()
    async with await Raw.connect(server) as idle:
        await idle.send(GET)
        await idle.response()
        drain = asyncio.ensure_future(server.drain(1000, hurry))
        await asyncio.sleep(0)
        hurry.set()
        assert await idle.rest() == b""
    await within(drain)


async def test_requests_in_one_packet_are_all_answered_by_a_draining_server(serve):
    server = await serve(lambda r: Response(200, "a/b", b"x"))
    async with await Raw.connect(server) as client:
        await client.send(GET)
        await client.response()
        drain = asyncio.ensure_future(server.drain(1000, asyncio.Event()))
        await asyncio.sleep(0)
        await client.send(GET + GET + GET[:10])
        for _ in range(2):
            assert b"connection" not in (await client.response())[1]
        await client.send(GET[10:])
        assert (await client.response())[1][b"connection"] == b"close"
        assert await client.rest() == b""
    await within(drain)


async def test_a_drain_waits_for_a_handshake_under_way(serve, tls):
    """TLS tells the server of a connection only when its handshake is done."""
    server = await serve(lambda r: Response(200, "a/b", b"x"), tls=tls)
    async with await Raw.connect(server) as client:
        await eventually(lambda: server.stats.open_connections == 1)
        drain = asyncio.ensure_future(server.drain(1000))
        await asyncio.sleep(0)
        client_tls = ssl.create_default_context()
        client_tls.check_hostname, client_tls.verify_mode = False, ssl.CERT_NONE
        await within(client.writer.start_tls(client_tls))
        assert not drain.done()
        await client.send(GET)
        assert (await client.response())[1][b"connection"] == b"close"
        await client.close()
    await within(drain)


async def test_a_handshake_that_fails_is_not_waited_for(serve, tls):
    """Or no longer than a handshake may take: nobody is told of its end."""
    server = await serve(lambda r: Response(200, "a/b", b"x"), tls=tls, header_timeout_s=1)
    async with await Raw.connect(server) as client:
        await eventually(lambda: server.stats.open_connections == 1)
        drain = asyncio.ensure_future(server.drain(1000))
        await client.send(b"no TLS at all\r\n\r\n" * 10)
        await client.rest()
    await within(drain)


# ---- listening ----


async def test_another_socket_for_a_while(serve, impl):
    server = await serve(lambda r: Response(200, "a/b", b"x"), impl)
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    stop = await server.listen(sock.dup())
    assert len(server.sockets) == 2
    raw = await Raw.of(port)
    stop()
    await raw.send(GET)
    assert (await raw.response())[2] == b"x", "what was accepted stays"
    await raw.close()
    await eventually(lambda: len(server.sockets) == 1)
    waiting = await Raw.of(port)  # the socket still listens: it waits in its queue
    again = await server.listen(sock)
    await waiting.send(GET)
    assert (await waiting.response())[2] == b"x"
    await waiting.close()
    again()


async def test_busy_port_is_a_config_error(serve):
    server = await serve(lambda r: Response(200, "a/b", b""))
    other = Server(lambda r: Response(200, "a/b", b""))
    with pytest.raises(ConfigError) as caught:
        await other.start("127.0.0.1", server.port)
    assert caught.value.where == f"127.0.0.1:{server.port}"
    assert "taken" in caught.value.message and "another port" in caught.value.hint


async def test_unknown_address_is_a_config_error():
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1:0"):
        await Server(lambda r: Response(200, "a/b", b"")).start("192.0.2.1", 0)


async def test_given_socket(impl):
    sock = socket.create_server(("127.0.0.1", 0))
    server = Server(lambda r: Response(200, "a/b", b"x"), session_class=impl)
    await server.start(sock=sock)
    assert server.port == sock.getsockname()[1] and len(server.sockets) == 1
    async with await H2Client.connect(server) as client:
        assert await client.get(1) == (200, b"x")
    await server.close()


async def test_reuse_port_shares_a_port():
    one, two = (Server(lambda r: Response(200, "a/b", b"x")) for _ in range(2))
    await one.start("127.0.0.1", 0, reuse_port=True)
    await two.start("127.0.0.1", one.port, reuse_port=True)
    assert one.port == two.port
    await one.close()
    await two.close()


def test_bad_certificate_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot load the TLS certificate"):
        make_ssl_context(str(tmp_path / "none.pem"), str(tmp_path / "none.key"))


async def test_no_tickets_of_tls_are_made(serve, tls):
    """They are a third of a handshake, and another worker cannot read them."""
    server = await serve(lambda r: Response(200, "a/b", b"x"), tls=tls)
    client_tls = ssl.create_default_context()
    client_tls.check_hostname, client_tls.verify_mode = False, ssl.CERT_NONE
    async with await Raw.connect(server) as client:
        await within(client.writer.start_tls(client_tls))
        await client.send(GET)
        assert (await client.response())[2] == b"x"  # tickets would have come before it
        assert not client.writer.get_extra_info("ssl_object").session.has_ticket


async def test_tls_disconnect_and_drain(serve, impl, slow, tls):
    server = await serve(slow, impl, tls)
    client_tls = ssl.create_default_context()
    client_tls.check_hostname = False
    client_tls.verify_mode = ssl.CERT_NONE
    client_tls.set_alpn_protocols(["h2"])
    gone = await H2Client.connect(server, ssl=client_tls)
    await gone.request(1)
    await slow.called(1)
    await gone.close()
    await eventually(slow.futures[0].cancelled)
    async with await H2Client.connect(server, ssl=client_tls) as client:
        await client.request(1)
        await slow.called(2)
        drain = asyncio.ensure_future(server.drain(1))
        slow.finish(1)
        assert b"done" in await client.rest()
        await within(drain)


async def test_a_sweep_of_many_connections_lets_others_have_their_turn(serve):
    """Thousands of idle connections are looked at some at a time, the loop's other work in between."""
    server = await serve(lambda r: Response(200, "a/b", b""), idle_timeout_s=60)
    seen, turns = [], []

    class Idle:
        def check(self, now):
            seen.append(self)

    idle = {Idle() for _ in range(1000)}
    server._context.connections |= idle
    try:
        async with asyncio.timeout(20):
            while len(seen) < 1000:
                turns.append(len(seen))
                await asyncio.sleep(0)
            turns.append(len(seen))
    finally:
        server._context.connections -= idle
    assert max(b - a for a, b in itertools.pairwise(turns)) <= 64
    assert set(seen) == idle
