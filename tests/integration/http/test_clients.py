"""curl, nghttp, h2load and http.client against one server."""

import asyncio
import http.client
import json
import re

import pytest

from fastserve.http.message import Response
from tests.integration.http.wire import H2Client, Raw, run

BIG = bytes(range(256)) * 12_000  # 3 MB


async def later(request):
    await asyncio.sleep(0)
    return Response(200, "text/plain", b"later:" + request.body)


def handler(request):
    if request.path == "/big":
        return Response(200, "application/octet-stream", BIG)
    if request.path == "/later":
        return later(request)
    if request.path == "/raise":
        raise KeyError("a fault of the handler")
    if request.path == "/about":
        about = [request.method, request.path, request.query, len(request.body)]
        return Response(200, "application/json", json.dumps(about).encode())
    return Response(200, "application/octet-stream", request.body, [(b"x-path", b"here")])


CURL = ["curl", "-sS", "--max-time", "20"]
VERSIONS = {"--http2-prior-knowledge": b"2", "--http1.1": b"1.1", "--http2": b"1.1"}


@pytest.mark.parametrize("version", VERSIONS)
async def test_curl(serve, impl, version, tmp_path):
    server = await serve(handler, impl)
    url = f"http://127.0.0.1:{server.port}"
    show = "\n%{http_code} %{http_version}"
    out, _ = await run(*CURL, version, "-w", show, f"{url}/about?a=b")
    assert out == b'["GET", "/about", "a=b", 0]\n200 ' + VERSIONS[version]
    upload = tmp_path / "upload"
    upload.write_bytes(BIG)
    for path in ("/", "/later"):
        out, _ = await run(*CURL, version, "--data-binary", f"@{upload}", url + path)
        assert out == (b"later:" if path == "/later" else b"") + BIG
    out, _ = await run(*CURL, version, "-H", "transfer-encoding: chunked", "-d", "abc", url)
    assert out == b"abc"
    out, _ = await run(*CURL, version, f"{url}/big")
    assert out == BIG
    out, _ = await run(*CURL, version, "-I", f"{url}/big")
    assert b"content-length: %d" % len(BIG) in out.lower()


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
async def test_curl_tls(serve, impl, tls, version):
    server = await serve(handler, impl, tls)
    url = f"https://127.0.0.1:{server.port}"
    out, _ = await run(*CURL, "-k", version, "-w", "\n%{http_version}", "-d", "abc", url)
    assert out == (b"abc\n2" if version == "--http2" else b"abc\n1.1")
    out, _ = await run(*CURL, "-k", version, f"{url}/big", f"{url}/big")
    assert out == BIG + BIG


@pytest.mark.parametrize("version", VERSIONS)
async def test_errors_are_json(serve, impl, version, tmp_path, caplog):
    server = await serve(handler, impl, max_body_bytes=1000)
    url = f"http://127.0.0.1:{server.port}"
    show = "\n%{http_code}"
    out, _ = await run(*CURL, version, "-w", show, f"{url}/raise")
    body, status = out.rsplit(b"\n", 1)
    error = json.loads(body)["error"]
    assert status == b"500" and error["code"] == "internal" and error["message"] == "internal error"
    assert set(error) == {"code", "message", "where", "hint"}
    assert "a fault of the handler" in caplog.text and "Traceback" in caplog.text
    out, _ = await run(*CURL, version, "-w", show, "-d", "x" * 1001, url)
    body, status = out.rsplit(b"\n", 1)
    assert status == b"413" and json.loads(body)["error"]["code"] == "too_large"


async def test_nghttp(serve, impl):
    server = await serve(handler, impl)
    url = f"http://127.0.0.1:{server.port}"
    out, _ = await run("nghttp", f"{url}/big", f"{url}/about")
    assert len(out) == len(BIG) + len(b'["GET", "/about", "", 0]')
    out, _ = await run("nghttp", "-nv", url)
    assert b":status: 200" in out and b"ENHANCE_YOUR_CALM" not in out


@pytest.mark.parametrize(
    "options",
    [
        ["-n", "2000", "-c", "4", "-m", "10"],
        ["-n", "300", "-c", "2", "-m", "100", "-w", "16", "-W", "16"],
        ["-n", "500", "-c", "4", "-m", "10", "--h1"],
    ],
    ids=["h2", "small windows", "h1"],
)
@pytest.mark.parametrize("path", ["/about", "/later", "/big"])
async def test_h2load(serve, impl, options, path):
    if path == "/big":
        options = ["-n", "24", *options[2:4], "-m", "3", *options[6:]]
    server = await serve(handler, impl)
    out, _ = await run("h2load", *options, f"http://127.0.0.1:{server.port}{path}")
    n = options[1].encode()
    assert re.search(rb"status codes: %b 2xx, 0 3xx, 0 4xx, 0 5xx" % n, out), out
    assert b"0 failed, 0 errored, 0 timeout" in out
    assert server.stats.requests == int(n)
    assert server.stats.protocol_errors == server.stats.rejected == server.stats.cancelled == 0


async def test_http_client(serve):
    server = await serve(handler)

    def talk():
        conn = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        answers = []
        for path, body in [("/", b"one"), ("/later", b"two"), ("/big", b""), ("/", iter([b"3", b"4"]))]:
            conn.request(
                "POST",
                path,
                body,
                encode_chunked=not isinstance(body, bytes),
                headers=({} if isinstance(body, bytes) else {"transfer-encoding": "chunked"}),
            )
            response = conn.getresponse()
            answers.append((response.status, response.getheader("x-path"), response.read()))
        conn.close()
        return answers

    answers = await asyncio.get_running_loop().run_in_executor(None, talk)
    assert answers == [
        (200, "here", b"one"),
        (200, None, b"later:two"),
        (200, None, BIG),
        (200, "here", b"34"),
    ]
    assert server.stats.connections == 1


async def test_one_port_serves_every_protocol_at_once(serve, impl):
    server = await serve(handler, impl)
    async with await H2Client.connect(server) as h2, await Raw.connect(server) as h1:
        await h1.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nh1")
        assert await h2.get(1, body=b"h2") == (200, b"h2")
        assert (await h1.response())[2] == b"h1"
    assert server.stats.connections == 2 and server.stats.requests == 2
    assert server.stats.bytes_in > 0 and server.stats.bytes_out > 0


async def test_a_preface_in_pieces(serve, impl):
    server = await serve(handler, impl)
    async with await H2Client.connect(server) as client:
        sent = client.conn.data_to_send()
        for i in range(len(sent)):
            await client.send(sent[i : i + 1])
        assert await client.get(1, body=b"x") == (200, b"x")
