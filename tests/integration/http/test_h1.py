"""HTTP/1.1 on the wire: framing, order, limits, refusals."""

import asyncio
import json

import pytest

from fastserve.http.gate import Gate
from fastserve.http.message import Response
from tests.integration.http.wire import Raw, within

GET = b"GET /%b HTTP/1.1\r\nhost: h\r\n\r\n"
BIG = bytes(range(256)) * 20_000  # 5 MB


def handler(request):
    if request.path == "/big":
        return Response(200, "a/b", BIG)
    about = {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": [[name.decode(), value.decode("latin-1")] for name, value in request.headers],
        "body": request.body.decode("latin-1"),
    }
    return Response(200, "application/json", json.dumps(about).encode())


async def ask(server, data):
    """(status, headers, body) of the first answer to `data`, and all that follows until the end."""
    async with await Raw.connect(server) as client:
        await client.send(data)
        client.writer.write_eof()
        answer = await client.response()
        return answer, await client.rest()


def error_code(answer):
    return json.loads(answer[2])["error"]["code"]


async def test_request_fields(serve):
    server = await serve(handler)
    data = b"POST /a%20b?q=1&r=? HTTP/1.1\r\nHost: h\r\nX-One:  1 \r\ncontent-length: 4\r\n\r\nbody"
    (status, headers, body), rest = await ask(server, data)
    assert status == 200 and rest == b""
    assert headers[b"date"].endswith(b"GMT") and b"connection" not in headers
    assert json.loads(body) == {
        "method": "POST",
        "path": "/a%20b",
        "query": "q=1&r=?",
        "headers": [["host", "h"], ["x-one", "1"], ["content-length", "4"]],
        "body": "body",
    }


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"http://host/p?q", ("/p", "q")),
        (b"http://host", ("/", "")),
        (b"http://host?q", ("/", "q")),
        (b"/p?u=http://x/y", ("/p", "u=http://x/y")),
        (b"/%ff?", ("/%ff", "")),
    ],
)
async def test_targets(serve, target, expected):
    server = await serve(handler)
    (status, _, body), _ = await ask(server, b"GET %b HTTP/1.1\r\nhost: h\r\n\r\n" % target)
    assert status == 200
    assert (json.loads(body)["path"], json.loads(body)["query"]) == expected


async def test_chunked_body_with_trailers(serve):
    server = await serve(handler)
    head = b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    data = head + b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nx-trailer: t\r\n\r\n" + GET % b"next"
    (_, _, body), rest = await ask(server, data)
    assert json.loads(body)["body"] == "abcde"
    assert ["x-trailer", "t"] not in json.loads(body)["headers"]
    assert b'"/next"' in rest


async def test_pipelined_answers_keep_their_order(serve):
    waiting = []

    def slow(request):
        if request.path.startswith("/slow"):
            waiting.append(asyncio.get_running_loop().create_future())
            seen.set()
            return waiting[-1]
        return Response(200, "a/b", request.path.encode())

    seen = asyncio.Event()
    server = await serve(slow)
    async with await Raw.connect(server) as client:
        await client.send(GET % b"1" + GET % b"slow" + GET % b"2" + GET % b"3")
        assert (await client.response())[2] == b"/1"
        await within(seen.wait())
        assert server.stats.requests == 2  # what is behind an open answer waits
        waiting[0].set_result(Response(200, "a/b", b"/slow"))
        assert [(await client.response())[2] for _ in range(3)] == [b"/slow", b"/2", b"/3"]


async def test_deep_pipeline_of_large_answers(serve):
    server = await serve(handler, write_high_water_bytes=65536)
    async with await Raw.connect(server) as client:
        await client.send((GET % b"big") * 20 + GET % b"end")
        for _ in range(20):
            assert (await client.response())[2] == BIG
        assert json.loads((await client.response())[2])["path"] == "/end"


@pytest.mark.parametrize(
    ("request_line", "connection", "kept"),
    [
        (b"GET / HTTP/1.1", b"", True),
        (b"GET / HTTP/1.1", b"connection: close\r\n", False),
        (b"GET / HTTP/1.0", b"", False),
        (b"GET / HTTP/1.0", b"connection: keep-alive\r\n", True),
    ],
)
async def test_keep_alive(serve, request_line, connection, kept):
    server = await serve(handler)
    request = request_line + b"\r\nhost: h\r\n" + connection + b"\r\n"
    async with await Raw.connect(server) as client:
        await client.send(request)
        _, headers, _ = await client.response()
        assert (headers.get(b"connection") == b"close") == (not kept)
        if kept:
            await client.send(request)
            assert (await client.response())[0] == 200
        else:
            assert await client.rest() == b""


async def test_head_and_expect(serve):
    server = await serve(handler)
    async with await Raw.connect(server) as client:
        await client.send(b"HEAD /big HTTP/1.1\r\nhost: h\r\n\r\n")
        head = await within(client.reader.readuntil(b"\r\n\r\n"))
        assert b"content-length: %d\r\n" % len(BIG) in head
        await client.send(b"POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert await within(client.reader.readuntil(b"\r\n\r\n")) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"ok")
        assert json.loads((await client.response())[2])["body"] == "ok"


@pytest.mark.parametrize("framing", ["length", "chunked", "none"])
async def test_upgrade_is_ignored(serve, framing):
    server = await serve(handler)
    body = {
        "length": b"content-length: 3\r\n\r\nabc",
        "chunked": b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "none": b"content-length: 0\r\n\r\n",
    }[framing]
    upgrade = b"POST /up HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: h2c\r\n" + body
    async with await Raw.connect(server) as client:
        for data in (upgrade * 3 + GET % b"after", upgrade + GET % b"after"):
            for i in range(0, len(data), 50):
                await client.send(data[i : i + 50])
            for _ in range(data.count(b"/up")):
                about = json.loads((await client.response())[2])
                assert about["path"] == "/up" and about["method"] == "POST"
                assert about["body"] == ("" if framing == "none" else "abc")
            assert json.loads((await client.response())[2])["path"] == "/after"


HOST = b"POST / HTTP/1.1\r\nhost: h\r\n"
BAD = {
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "no version": (b"GET /\r\n\r\n", 400),
    "bad method": (b"G@T / HTTP/1.1\r\nhost: h\r\n\r\n", 400),
    "http/2.0 request line": (b"GET / HTTP/2.0\r\nhost: h\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
    "space before colon": (b"GET / HTTP/1.1\r\nhost : h\r\n\r\n", 400),
    "folded header": (b"GET / HTTP/1.1\r\nhost: h\r\nx: a\r\n b\r\n\r\n", 400),
    "bare LF": (b"GET / HTTP/1.1\nhost: h\n\n", 400),
    "bare CR in value": (b"GET / HTTP/1.1\r\nhost: h\r\nx: a\rb\r\n\r\n", 400),
    "nul in value": (b"GET / HTTP/1.1\r\nhost: h\r\nx: a\x00b\r\n\r\n", 400),
    "length and chunked": (
        HOST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunked and length": (
        HOST + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
        400,
    ),
    "two lengths": (HOST + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabc", 400),
    "length list": (HOST + b"content-length: 3, 3\r\n\r\nabc", 400),
    "negative length": (HOST + b"content-length: -3\r\n\r\nabc", 400),
    "plus length": (HOST + b"content-length: +3\r\n\r\nabc", 400),
    "empty length": (HOST + b"content-length:\r\n\r\nabc", 400),
    "huge length": (HOST + b"content-length: 99999999999999999999999\r\n\r\nabc", 400),
    "chunked twice": (HOST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    "chunked in 1.0": (b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "bad chunk size": (HOST + b"transfer-encoding: chunked\r\n\r\nxyz\r\n", 400),
    "gzip coding": (HOST + b"transfer-encoding: gzip\r\n\r\n", 501),
    "gzip, chunked": (HOST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "xchunked": (HOST + b"transfer-encoding: xchunked\r\n\r\n", 501),
    "connect": (b"CONNECT h:1 HTTP/1.1\r\nhost: h\r\n\r\n", 501),
    "no length": (HOST + b"\r\n", 411),
    "other expectation": (HOST + b"expect: x\r\ncontent-length: 1\r\n\r\n", 417),
    "body": (HOST + b"content-length: 10001\r\n\r\n", 413),
    "chunked body": (
        HOST + b"transfer-encoding: chunked\r\n\r\n" + b"1000\r\n" + bytes(4096) + b"\r\n"
        b"2000\r\n" + bytes(8192),
        413,
    ),
    "target": (b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\nhost: h\r\n\r\n", 414),
    "endless target": (b"GET /" + b"x" * 20000, 414),
    "header": (b"GET / HTTP/1.1\r\nhost: h\r\nx: " + b"v" * 4000 + b"\r\n\r\n", 431),
    "many headers": (b"GET / HTTP/1.1\r\nhost: h\r\n" + b"x:y\r\n" * 1000 + b"\r\n", 431),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("prefix", [b"", GET % b"first"])
async def test_refused(serve, name, prefix):
    data, expected = BAD[name]
    server = await serve(handler, max_body_bytes=10_000, max_header_bytes=3000, max_target_bytes=1000)
    # what follows a refused request must never be taken for a request
    async with await Raw.connect(server) as client:
        await client.send(prefix + data + b"\r\n\r\n" + GET % b"smuggled")
        if prefix:
            assert (await client.response())[0] == 200
        status, headers, body = await client.response()
        assert status == expected, body
        assert headers[b"connection"] == b"close"
        assert set(json.loads(body)["error"]) == {"code", "message", "where", "hint"}
        assert await client.rest() == b""
    assert server.stats.requests == bool(prefix)
    assert server.stats.rejected + server.stats.protocol_errors == 1


@pytest.mark.parametrize(
    ("start", "more", "expected"),
    [
        (b"GET / HTTP/1.1\r\nhost: h\r\nx: ", b"v" * 4096, b" 431 "),
        (HOST + b"transfer-encoding: chunked\r\n\r\n1;", b"e" * 4096, b" 400 "),
        (HOST + b"transfer-encoding: chunked\r\n\r\n0\r\nx: ", b"t" * 4096, b" 400 "),
        (HOST + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n" * 700, b" 400 "),
    ],
    ids=["header", "chunk extension", "trailer", "trailers"],
)
async def test_endless(serve, start, more, expected):
    server = await serve(handler, max_header_bytes=3000)
    async with await Raw.connect(server) as client:
        await client.send(start)
        sent = 0
        answer = asyncio.ensure_future(client.rest())
        while not answer.done() and sent < 3_000_000:
            try:
                await client.send(more)
            except ConnectionError:
                break
            sent += len(more)
            await asyncio.sleep(0)
        assert expected in await within(answer)


async def test_unsendable_responses_become_500(serve, caplog):
    bad = [
        Response(200, "a/b", b"", [(b"x", b"a\r\nset-cookie: b")]),
        Response(200, "a/b\n", b""),
        Response(99, "a/b", b""),
        Response(200, "a/b", 5),
    ]
    server = await serve(lambda request: bad[int(request.path[1:])])
    async with await Raw.connect(server) as client:
        for i in range(len(bad)):
            await client.send(GET % b"%d" % i)
            answer = await client.response()
            assert answer[0] == 500 and error_code(answer) == "internal"
    assert server.stats.handler_errors == len(bad)


async def test_not_a_response_becomes_500(serve, caplog):
    async def wrong(request):
        return b"bytes"

    server = await serve(lambda request: wrong(request) if request.path == "/a" else b"bytes")
    for path in (b"a", b"b"):
        answer, _ = await ask_open(server, GET % path)
        assert answer[0] == 500


async def ask_open(server, data):
    async with await Raw.connect(server) as client:
        await client.send(data)
        return await client.response(), b""


async def test_a_shut_gate_refuses_its_paths(serve):
    gate = Gate(["/gated"])
    server = await serve(handler, gate=gate)
    gate.shut = True
    async with await Raw.connect(server) as client:
        await client.send(GET % b"gated" + GET % b"other")
        refused, other = await client.response(), await client.response()
        assert (
            refused[0] == 429 and refused[1][b"retry-after"] == b"1" and error_code(refused) == "overloaded"
        )
        assert other[0] == 200
        gate.shut = False
        await client.send(GET % b"gated")
        assert (await client.response())[0] == 200
    assert gate.refused == 1 and server.stats.requests == 2
