"""Deadlines, retries, cancellation and connections that end, against scripted and real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hyperframe.frame import GoAwayFrame, SettingsFrame

from fastserve import errors
from fastserve.client import AsyncClient, Retry
from fastserve.client import h2 as client_h2
from fastserve.http.message import Request, Response
from fastserve.http.server import Server
from tests.servers import free_port

Make = Callable[..., AsyncClient]
Serve = Callable[..., Any]
QUICK = Retry(attempts=4, base_s=0.001, max_s=0.01)
OK = Response(200, "application/json", b"{}")
WAIT_S = 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS = 1  # a frame's type


def status(code: int, **headers: str) -> Response:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Response(code, "text/plain", b"not now", pairs)


class Script:
    """A handler that gives these answers in turn, the last one for ever."""

    def __init__(self, *answers: Response) -> None:
        self.answers = answers
        self.asked: list[Request] = []

    def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


@pytest.mark.parametrize("code", [429, 503])
async def test_busy_servers_are_asked_again(serve: Serve, connect: Make, code: int) -> None:
    script = Script(status(code), status(code, retry_after="0"), OK)
    client = connect(await serve(script), retry=QUICK)
    await client.push("clicks", {"id": [1]})
    assert len(script.asked) == 3 and len({request.body for request in script.asked}) == 1
    left = [int(request.header(b"fastserve-deadline-ms") or 0) for request in script.asked]
    assert left == sorted(left, reverse=True), "each attempt tells what is left of the whole deadline"


async def test_calls_that_wait_for_a_connection_have_their_turn(serve: Serve, connect: Make) -> None:
    """Though others ask without a pause."""
    client = connect(await serve(Script(OK)), max_connections=2)
    counts = [0] * 6

    async def ask(i: int) -> None:
        while min(counts) < 20:
            await client.push("clicks", {"id": [1]})
            counts[i] += 1
            assert sum(counts) < 3_000, counts

    await asyncio.gather(*map(ask, range(len(counts))))


@pytest.mark.parametrize("code", [429, 503])
async def test_attempts_are_bounded(serve: Serve, connect: Make, code: int) -> None:
    script = Script(status(code))
    client = connect(await serve(script), retry=QUICK)
    with pytest.raises(errors.FastserveError, match="not now") as caught:
        await client.push("clicks", {"id": [1]})
    assert type(caught.value) is {429: errors.OverloadedError, 503: errors.ServerError}[code]
    assert len(script.asked) == 4


@pytest.mark.parametrize("code", [400, 404, 408, 422, 500, 502, 504])
async def test_nothing_else_is_asked_again(serve: Serve, connect: Make, code: int) -> None:
    script = Script(status(code))
    client = connect(await serve(script), retry=QUICK)
    with pytest.raises(errors.FastserveError):
        await client.push("clicks", {"id": [1]})
    assert len(script.asked) == 1


async def test_a_retry_after_past_the_deadline_is_not_waited_for(serve: Serve, connect: Make) -> None:
    script = Script(status(429, retry_after="3600"))
    client = connect(await serve(script), retry=QUICK)
    with pytest.raises(errors.OverloadedError) as caught:
        await asyncio.wait_for(client.push("clicks", {"id": [1]}), WAIT_S)
    assert caught.value.retry_after_s == 3600 and len(script.asked) == 1


async def test_health_is_not_asked_again(serve: Serve, connect: Make) -> None:
    script = Script(status(503))
    script.answers = (Response(503, "application/json", b'{"revision": 1}'),)
    client = connect(await serve(script), retry=QUICK)
    assert not (await client.health()).ok and len(script.asked) == 1


async def test_no_server(connect: Make) -> None:
    client = connect(free_port(), retry=QUICK)
    with pytest.raises(errors.UnreachableError, match="cannot connect") as caught:
        await client.health()
    assert not caught.value.sent and isinstance(caught.value, ConnectionError)


async def test_a_server_that_comes_late(connect: Make, serve: Serve) -> None:
    port = free_port()
    client = connect(port, retry=Retry(attempts=10_000, base_s=0.01, max_s=0.01))
    call = asyncio.create_task(client.health())
    await asyncio.sleep(0)
    await serve(Script(OK), port=port)
    assert (await asyncio.wait_for(call, WAIT_S)).ok


# ---- deadlines and cancellation -----------------------------------------------------------------


class Never:
    """A handler that lets every request wait; `begun` and `given_up` count."""

    def __init__(self) -> None:
        self.futures: list[asyncio.Future[Response]] = []
        self.begun = asyncio.Event()
        self.given_up = asyncio.Event()

    def __call__(self, request: Request) -> Response | asyncio.Future[Response]:
        if request.path == "/health":
            return OK
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: self.given_up.set())
        self.futures.append(future)
        self.begun.set()
        return future


async def test_the_deadline_ends_a_call_at_both_ends(serve: Serve, connect: Make) -> None:
    for deadline_ms in (50, 1_000, 10_000):  # on a busy machine the first ends before the server hears of it
        never = Never()
        client = connect(await serve(never))
        with pytest.raises(errors.DeadlineError, match=f"within {deadline_ms} ms") as caught:
            await asyncio.wait_for(client.push("clicks", {"id": [1]}, deadline_ms=deadline_ms), WAIT_S)
        if never.futures:
            break
    assert isinstance(caught.value, TimeoutError)
    await asyncio.wait_for(never.given_up.wait(), WAIT_S)
    assert never.futures[0].cancelled() and len(never.futures) == 1, "a deadline is not tried again"
    assert (await client.health()).ok


async def test_the_clients_deadline_holds_for_calls_without_one(serve: Serve, connect: Make) -> None:
    client = connect(await serve(Never()), deadline_ms=50)
    with pytest.raises(errors.DeadlineError):
        await asyncio.wait_for(client.push("clicks", {"id": [1]}), WAIT_S)


async def test_cancelling_a_call_cancels_it_at_the_server(serve: Serve, connect: Make) -> None:
    never = Never()
    server = await serve(never)
    client = connect(server)
    call = asyncio.create_task(client.push("clicks", {"id": [1]}))
    await asyncio.wait_for(never.begun.wait(), WAIT_S)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(never.given_up.wait(), WAIT_S)
    assert never.futures[0].cancelled() and (await client.health()).ok


async def test_close_ends_calls_in_flight(serve: Serve, connect: Make) -> None:
    never = Never()
    client = connect(await serve(never), retry=Retry(attempts=1))
    call = asyncio.create_task(client.push("clicks", {"id": [1]}))
    await asyncio.wait_for(never.begun.wait(), WAIT_S)
    await client.close()
    with pytest.raises(errors.UnreachableError) as caught:
        await asyncio.wait_for(call, WAIT_S)
    assert caught.value.sent


async def test_a_call_that_waits_for_room_keeps_its_deadline(serve: Serve, connect: Make, http2: str) -> None:
    never = Never()
    client = connect(await serve(never, max_concurrent_streams=1), max_connections=1)
    first = asyncio.create_task(client.push("clicks", {"id": [1]}))
    await asyncio.wait_for(never.begun.wait(), WAIT_S)
    with pytest.raises(errors.DeadlineError):
        await asyncio.wait_for(client.push("clicks", {"id": [2]}, deadline_ms=50), WAIT_S)
    third = asyncio.create_task(client.push("clicks", {"id": [3]}))
    never.begun.clear()
    never.futures[0].set_result(OK)
    await asyncio.wait_for(first, WAIT_S)
    await asyncio.wait_for(never.begun.wait(), WAIT_S)
    never.futures[-1].set_result(OK)
    await asyncio.wait_for(third, WAIT_S)


# ---- connections that end -----------------------------------------------------------------------


async def test_a_server_restarts_and_no_call_fails(features: Server, serve: Serve, connect: Make) -> None:
    port = free_port()
    server: Server = await serve(features.handler, port=port)
    client = connect(port, retry=Retry(attempts=1_000, base_s=0.01, max_s=0.05, spare=1_000_000))
    stop = asyncio.Event()
    answered = asyncio.Semaphore(0)

    async def load() -> None:
        while not stop.is_set():
            found = await client.get_online_features(["kinds:small"], {"user_id": [1]})
            assert found.to_dict() == {"small": [-5]}
            answered.release()

    workers = [asyncio.create_task(load()) for _ in range(8)]
    for _ in range(3):
        for _ in range(50):
            await asyncio.wait_for(answered.acquire(), WAIT_S)
        await server.drain(5)
        server = await serve(features.handler, port=port)
    stop.set()
    await asyncio.wait_for(asyncio.gather(*workers), WAIT_S)


async def test_requests_in_flight_finish_while_the_server_drains(serve: Serve, connect: Make) -> None:
    never = Never()
    server = await serve(never)
    client = connect(server)
    call = asyncio.create_task(client.push("clicks", {"id": [1]}))
    await asyncio.wait_for(never.begun.wait(), WAIT_S)
    drain = asyncio.create_task(server.drain(10))
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(call), 0.05)
    never.futures[0].set_result(OK)
    await asyncio.wait_for(asyncio.gather(call, drain), WAIT_S)


@asynccontextmanager
async def relay(target: Server, first: Callable[..., Any]) -> AsyncIterator[int]:
    """A port whose first connection is treated by `first(reader, writer)`, and whose others reach `target`."""
    tasks: list[asyncio.Task[None]] = []
    writers: list[asyncio.StreamWriter] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()

    async def treat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_first: bool) -> None:
        if is_first:
            await first(reader, writer)
            writer.close()
            return
        back, forth = await asyncio.open_connection("127.0.0.1", target.port)
        writers.append(forth)
        await asyncio.gather(copy(reader, forth), copy(back, writer))

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(treat(reader, writer, not writers)))
        writers.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        for writer in writers:
            writer.close()
        await asyncio.gather(*tasks, *(w.wait_closed() for w in writers), return_exceptions=True)
        await server.wait_closed()


async def test_a_connection_lost_in_mid_call_is_tried_again(features: Server, connect: Make) -> None:
    async def lose(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(120)  # in HTTP/2 too that reaches into the request's head

    async with relay(features, lose) as port:
        client = connect(port, retry=QUICK)
        assert len(await client.get_online_features(["kinds:small"], {"user_id": [1]})) == 1
        await client.close()
    async with relay(features, lose) as port:
        once = connect(port, retry=Retry(attempts=1))
        with pytest.raises(errors.UnreachableError) as caught:
            await once.get_online_features(["kinds:small"], {"user_id": [1]})
        assert caught.value.sent
        await once.close()


async def test_a_connection_that_gives_no_sign_of_life_is_replaced(
    features: Server, connect: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_h2, "SILENT_S", -1.0)

    swallowed = False

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal swallowed
        while await reader.read(1 << 16):
            swallowed = True

    for deadline_ms in (50, 1_000, 10_000):  # on a busy machine the first ends before there is a connection
        async with relay(features, swallow) as port:
            client = connect(port, max_connections=1)
            with pytest.raises(errors.DeadlineError):
                await client.health(deadline_ms=deadline_ms)
            if swallowed:
                assert (await client.health()).ok
            await client.close()
        if swallowed:
            break
    assert swallowed


async def go_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads a request, and says that it looked at none (RFC 9113 6.8)."""
    writer.write(SettingsFrame(0).serialize())
    await reader.readexactly(len(PREFACE))
    kind = None
    while kind != HEADERS:
        head = await reader.readexactly(9)
        kind = head[3]
        await reader.readexactly(int.from_bytes(head[:3]))
    writer.write(GoAwayFrame(0, last_stream_id=0).serialize())
    await writer.drain()


async def test_a_request_that_a_leaving_server_did_not_look_at_is_no_failed_attempt(
    features: Server, connect: Make, http2: str
) -> None:
    async with relay(features, go_away) as port:
        client = connect(port, retry=Retry(attempts=1))
        found = await client.get_online_features(["kinds:small"], {"user_id": [1]})
        assert found.to_dict()
        await client.close()


async def test_servers_that_always_leave_are_given_up(connect: Make, http2: str) -> None:
    asked = 0

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await go_away(reader, writer)
        writer.close()

    async with await asyncio.start_server(leave, "127.0.0.1", 0) as server:
        client = connect(server.sockets[0].getsockname()[1], retry=Retry(attempts=1))
        with pytest.raises(errors.UnreachableError, match="takes no more requests") as caught:
            await client.health()
    assert not caught.value.sent and asked == 1 + client_h2.MOVES


@pytest.mark.parametrize("junk", [b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", b"\xff" * 64])
async def test_a_server_of_another_protocol(features: Server, connect: Make, http2: str, junk: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(24)
        writer.write(junk)
        await writer.drain()
        await reader.read()

    async with relay(features, answer) as port:
        client = connect(port, retry=QUICK)
        with pytest.raises(errors.ServerError, match="HTTP") as caught:
            await client.health()
        assert 'http="1.1"' in caught.value.hint
        await client.close()


async def test_a_client_that_is_refused_all_the_time_asks_less(serve: Serve, connect: Make) -> None:
    script = Script(status(429))
    client = connect(
        await serve(script), retry=Retry(attempts=4, base_s=0.001, max_s=0.001, share=0.25, spare=5)
    )
    for _ in range(20):
        with pytest.raises(errors.OverloadedError):
            await client.push("clicks", {"id": [1]})
    assert len(script.asked) == 20 + 5
    script.answers = (OK,)
    for _ in range(8):
        await client.push("clicks", {"id": [1]})
    script.answers = (status(429),)
    with pytest.raises(errors.OverloadedError):
        await client.push("clicks", {"id": [1]})
    assert len(script.asked) == 20 + 5 + 8 + 3, "eight answers, a quarter of them: two retries"
