"""Time-outs and bounds on the wire, on both event loops; test_abuse_kinds.py has the kinds of abuse."""

import asyncio
import ssl

import pytest
from hpack import Encoder
from hyperframe.frame import GoAwayFrame, HeadersFrame, SettingsFrame, WindowUpdateFrame

from bench.attack_kinds import REQUEST
from fastserve.http.message import Response
from tests.integration.http.wire import PREFACE, WAIT_S, H2Client, Raw, frames_of, within

GET = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
HUGE = bytes(50_000_000)
MIB = 1024 * 1024


def handler(request):
    if request.path == "/wait":
        return asyncio.get_running_loop().create_future()
    if request.path == "/huge":
        return Response(200, "a/b", HUGE)
    return Response(200, "a/b", b"fine")


def buffered(server):
    """Bytes in all transports' write buffers."""
    connections = server._context.connections
    return sum(c.transport.get_write_buffer_size() for c in connections)


async def eventually(condition):
    """Until it holds; the sweeper runs in between."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


async def test_slow_reader_of_huge_answers_is_bounded_and_cut_off(serve, impl):
    server = await serve(handler, impl, write_timeout_s=0.3, write_high_water_bytes=MIB)
    async with await Raw.connect(server, limit=1) as abuser, await H2Client.connect(server) as honest:
        encoder = Encoder()
        data = PREFACE + SettingsFrame(0, {4: 2**31 - 1}).serialize()
        data += WindowUpdateFrame(0, window_increment=2**31 - 1 - 65535).serialize()
        fields = [(":method", "GET"), (":scheme", "http"), (":path", "/huge"), (":authority", "h")]
        for stream_id in (1, 3, 5):
            flags = ["END_HEADERS", "END_STREAM"]
            data += HeadersFrame(stream_id, encoder.encode(fields), flags=flags).serialize()
        await abuser.send(data)
        abuser.writer.transport.pause_reading()
        stream_id = 1
        await eventually(lambda: buffered(server) > 0)
        while server.stats.open_connections == 2:
            assert await honest.get(stream_id) == (200, b"fine")
            stream_id += 2
            assert buffered(server) < 2 * MIB
        assert server.stats.rejected == 1
        assert await honest.get(stream_id) == (200, b"fine")


async def test_slow_reader_h1_is_bounded_and_cut_off(serve):
    server = await serve(handler, write_timeout_s=0.3, write_high_water_bytes=MIB)
    async with await Raw.connect(server, limit=1) as abuser, await Raw.connect(server) as honest:
        await abuser.send(b"GET /huge HTTP/1.1\r\nhost: h\r\n\r\n" * 5)
        abuser.writer.transport.pause_reading()
        await eventually(lambda: buffered(server) > 0)
        while server.stats.open_connections == 2:
            await honest.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            assert (await honest.response())[2] == b"fine"
            assert buffered(server) < 2 * MIB
        assert server.stats.rejected == 1


async def test_closed_window_is_cut_off(serve, impl):
    """The client reads, but never opens the window."""
    server = await serve(handler, impl, write_timeout_s=0.3)
    async with await Raw.connect(server) as abuser:
        flags = ["END_HEADERS", "END_STREAM"]
        fields = [(":method", "GET"), (":scheme", "http"), (":path", "/huge"), (":authority", "h")]
        await abuser.send(
            PREFACE
            + SettingsFrame(0, {}).serialize()
            + HeadersFrame(1, Encoder().encode(fields), flags=flags).serialize()
        )
        assert 65535 <= len(await abuser.rest()) < 70_000
    assert server.stats.rejected == 1


async def test_a_steady_slow_reader_is_served(serve, impl):
    """Slower than the server, but never still: write_timeout_s is no bound on the whole answer."""
    body = bytes(3_000_000)
    server = await serve(lambda r: Response(200, "a/b", body), impl, write_timeout_s=0.2)
    async with await H2Client.connect(server) as client:
        await client.request(1)
        await client.until(lambda: 1 in client.ended)
        assert client.bodies[1] == body


SLOW = {
    "nothing": b"",
    "part of the preface": PREFACE[:10],
    "h1 head": b"GET / HTTP/1.1\r\nhost",
    "h1 body": b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nabc",
    "h1 idle": b"GET / HTTP/1.1\r\nhost: h\r\n\r\n",
    "h2 preface": PREFACE,
    "h2 head": PREFACE
    + SettingsFrame(0, {}).serialize()
    + HeadersFrame(1, Encoder().encode(REQUEST)).serialize(),
    "h2 part of a frame": PREFACE
    + SettingsFrame(0, {}).serialize()
    + HeadersFrame(1, Encoder().encode(REQUEST), flags=["END_HEADERS"]).serialize()[:-3],
}


@pytest.mark.parametrize("name", SLOW)
async def test_slow_clients_are_cut_off(serve, impl, name):
    times = {"header_timeout_s": 0.1, "body_timeout_s": 0.1, "idle_timeout_s": 0.2}
    server = await serve(handler, impl, linger_timeout_s=0.1, **times)
    async with await Raw.connect(server) as client:
        await client.send(SLOW[name])
        got = await client.rest()
    if name in ("h1 head", "h1 body"):
        assert got.startswith(b"HTTP/1.1 408 ") and b'"timeout"' in got
    elif name == "h1 idle":
        assert got.startswith(b"HTTP/1.1 200 ") and got.endswith(b"fine")
    elif name.startswith("h2"):
        (goaway,) = (f for f in frames_of(got) if isinstance(f, GoAwayFrame))
        assert goaway.error_code == (0 if name == "h2 preface" else 11)
    else:
        assert got == b""
    await eventually(lambda: server.stats.open_connections == 0)


async def test_slow_h2_body_is_408_and_the_connection_lives(serve, impl):
    server = await serve(handler, impl, body_timeout_s=0.1)
    async with await H2Client.connect(server) as client:
        await client.request(1, body=b"part", end=False)
        await client.until(lambda: 1 in client.ended)
        assert client.status[1] == 408
        assert await client.get(3) == (200, b"fine")


async def test_idle_h2_gets_a_goaway(serve, impl):
    server = await serve(handler, impl, idle_timeout_s=0.1)
    async with await H2Client.connect(server) as client:
        assert await client.get(1) == (200, b"fine")
        await client.until(lambda: False)
        assert client.goaways == [(0, 1)]


async def test_waiting_for_the_handler_is_not_idle(serve, impl):
    waiting = []

    def slow(request):
        waiting.append(asyncio.get_running_loop().create_future())
        return waiting[-1]

    times = {"header_timeout_s": 0.25, "body_timeout_s": 0.25, "idle_timeout_s": 0.25}
    server = await serve(slow, impl, write_timeout_s=0.25, **times)
    async with await H2Client.connect(server) as h2, await Raw.connect(server) as h1:
        await h2.request(1)
        await h1.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        await eventually(lambda: len(waiting) == 2)
        start = asyncio.get_running_loop().time()
        await eventually(lambda: asyncio.get_running_loop().time() - start > 0.5)
        for future in waiting:
            future.set_result(Response(200, "a/b", b"slow"))
        await h2.until(lambda: 1 in h2.ended)
        assert h2.bodies[1] == b"slow"
        assert (await h1.response())[2] == b"slow"


async def test_too_many_connections(serve, impl):
    server = await serve(handler, impl, max_connections=2)
    async with await H2Client.connect(server) as one, await H2Client.connect(server) as two:
        assert await one.get(1) == (200, b"fine")
        assert await two.get(1) == (200, b"fine")
        async with await Raw.connect(server) as three:
            assert await three.rest() == b""
        assert await one.get(3) == (200, b"fine")
        assert server.stats.rejected == 1
    await eventually(lambda: server.stats.open_connections == 0)
    async with await H2Client.connect(server) as four:
        assert await four.get(1) == (200, b"fine")


async def test_handshakes_under_way_are_connections(serve, tls):
    server = await serve(handler, tls=tls, max_connections=2)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with await Raw.connect(server) as one, await Raw.connect(server) as two:
        await eventually(lambda: server.stats.open_connections == 2)
        async with await Raw.connect(server) as three:
            assert await three.rest() == b""
        assert server.stats.rejected == 1
        await within(one.writer.start_tls(context))
        await one.send(GET)
        assert (await one.response())[2] == b"fine"
        await two.close()
        await eventually(lambda: server.stats.open_connections == 1)
        async with await Raw.connect(server) as four:
            await within(four.writer.start_tls(context))
            await four.send(GET)
            assert (await four.response())[2] == b"fine"
    await eventually(lambda: server.stats.open_connections == 0)


async def test_a_handshake_has_the_time_of_a_head(serve, tls):
    server = await serve(handler, tls=tls, header_timeout_s=0.2)
    async with await Raw.connect(server) as client:
        await client.send(b"\x16\x03\x01")
        assert await client.rest() == b""
    await eventually(lambda: server.stats.open_connections == 0)
    assert server.stats.as_dict()["ended_slow_head"] == 1


async def test_input_after_the_end_is_bounded(serve):
    """After a final answer input is swallowed, but not for ever."""
    server = await serve(handler, linger_timeout_s=60, max_body_bytes=1000)
    async with await Raw.connect(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 300000000\r\n\r\n")
        assert b" 413 " in await client.rest()
        with pytest.raises(ConnectionError):
            for _ in range(4000):  # 250 MiB
                await client.send(bytes(65536))
    await eventually(lambda: server.stats.open_connections == 0)
    assert server.stats.bytes_in > 60 * MIB  # a large body that was on its way does not lose its answer


@pytest.mark.parametrize("kind", ["http/1.1", "http/2"])
async def test_input_of_a_client_that_does_harm_is_hardly_read(serve, impl, kind):
    """Once it is cut off: reading on would cost more than what it was cut off for."""
    server = await serve(handler, impl, linger_timeout_s=60)
    start = (
        b"BAD\r\n\r\n"
        if kind == "http/1.1"
        else PREFACE + bytes([0, 0, 8, 6, 0, 0, 0, 0, 0, *bytes(8)]) * 600
    )
    async with await Raw.connect(server) as client:
        with pytest.raises(ConnectionError):
            await client.send(start)
            for _ in range(4000):
                await client.send(bytes(65536))
    await eventually(lambda: server.stats.open_connections == 0)
    assert server.stats.bytes_in < MIB
