"""What a client is told by a real server, over every transport and on both loops."""

from __future__ import annotations

import asyncio
import inspect
import json
import ssl
import threading
from collections.abc import Callable
from typing import Any

import pytest

from fastserve import errors
from fastserve.client import AsyncClient, Client, Features, Retry
from fastserve.http.message import Request, Response
from fastserve.http.server import Server
from tests.unit.serving.world import FULL_ROW, KINDS

REFS = [f"kinds:{name}" for name in KINDS.feature_names]
Make = Callable[..., AsyncClient]
Serve = Callable[..., Any]
ONCE = Retry(attempts=1)


@pytest.mark.parametrize("format", ["json", "arrow"])
async def test_every_type_arrives_as_it_was_stored(features: Server, connect: Make, format: str) -> None:
    found = await connect(features).get_online_features(REFS, {"user_id": [1, 2, 3, 4]}, format=format)
    row = {name: values[0] for name, values in found.to_dict().items()}
    assert row["big"] == FULL_ROW["big"] and type(row["big"]) is int
    assert row["blob"] == FULL_ROW["blob"] and row["text"] == FULL_ROW["text"]
    assert row["vector"] == FULL_ROW["vector"] and row["names"] == FULL_ROW["names"]
    assert row["double"] != row["double"] and row["moment"].timestamp() == 1_700_000_000
    assert found.statuses["big"] == ["PRESENT", "NULL_VALUE", "OUTSIDE_MAX_AGE", "NOT_FOUND"]
    assert found.to_dict()["big"] == [FULL_ROW["big"], None, 7, 7]


async def test_a_tensor_arrives_as_the_other_forms_do(features: Server, connect: Make) -> None:
    client, ids = connect(features), {"user_id": [1, 2, 3, 4]}
    refs = ["kinds:single", "kinds:vector", "kinds:small", "global_stats:total"]
    found = await client.get_online_tensor(refs[:3], ids)
    other = (await client.get_online_features(refs[:3], ids)).to_dict()
    assert found.columns == ("single", "vector[0]", "vector[1]", "vector[2]", "small")
    assert found.to_list() == [
        [single, *(vector or [None] * 3), small]
        for single, vector, small in zip(other["single"], other["vector"], other["small"], strict=True)
    ]
    statuses = ["PRESENT", "PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"]
    assert found.row_statuses == {"kinds@v1": statuses} and found.unavailable == ""
    with pytest.raises(errors.RequestError, match="'total' is int64"):
        await client.get_online_tensor(refs, ids)
    with pytest.raises(errors.SchemaMismatchError):
        await client.get_online_tensor(refs[:1], ids, expect_fingerprint=found.fingerprint)


async def test_services_composite_keys_and_full_names(features: Server, connect: Make) -> None:
    entities = [{"user_id": 1, "home_city": "a|b", "home_country": "%"}]
    found = await connect(features).get_online_features(
        service="mixed", entities=entities, full_feature_names=True
    )
    assert found.to_dict()["home__people"] == [12] and found.to_dict()["global_stats__total"] == [99]
    assert list(found.event_timestamps) == ["kinds@v1", "places@v1", "global_stats@v1"]


async def test_one_row(features: Server, connect: Make) -> None:
    client = connect(features)
    row = await client.get_feature_view_row("kinds", user_id=1)
    assert row.values["blob"] == FULL_ROW["blob"] and row.values["big"] == FULL_ROW["big"]
    assert (row.view, row.version, row.freshness_ms, row.statuses["big"]) == ("kinds", 1, 1000, "PRESENT")
    place = await client.get_feature_view_row("places@v1", city="a|b", country="%")
    assert place.values == {"people": 12, "flag": False}
    none = await client.get_feature_view_row("kinds", user_id=77)
    assert none.event_timestamp is None and none.freshness_ms is None and none.values["big"] == 7


async def test_an_expected_fingerprint(features: Server, connect: Make) -> None:
    client = connect(features)
    found = await client.get_online_features(REFS, {"user_id": [1]})
    again = await client.get_online_features(REFS, {"user_id": [1]}, expect_fingerprint=found.fingerprint)
    assert again.fingerprint == found.fingerprint
    with pytest.raises(errors.SchemaMismatchError):
        await client.get_online_features(REFS[:1], {"user_id": [1]}, expect_fingerprint=found.fingerprint)


async def test_errors_keep_class_place_and_hint(features: Server, connect: Make) -> None:
    client = connect(features)
    with pytest.raises(errors.UnknownObjectError) as unknown:
        await client.get_online_features(["kinds:bgi"], {"user_id": [1]})
    assert "did you mean 'big'" in unknown.value.hint
    with pytest.raises(errors.InvalidEntityError) as invalid:
        await client.get_online_features(["kinds:big"], {"user_id": ["x"]})
    assert invalid.value.where == "$.entities.user_id[0]"
    with pytest.raises(errors.TooLargeError):
        await client.get_online_features(["kinds:big"], {"user_id": [1] * 10_001})
    with pytest.raises(errors.UnknownObjectError):
        await client.get_feature_view_row("nothing", id=1)
    assert (await client.health()).ok


async def test_big_questions_and_answers(features: Server, connect: Make) -> None:
    client = connect(features)
    ids = list(range(1, 10_001))
    for format in ("json", "arrow"):
        found = await client.get_online_features(REFS, {"user_id": ids}, format=format)
        assert len(found) == 10_000 and found.to_dict()["big"][0] == FULL_ROW["big"]
        assert found.statuses["small"].count("NOT_FOUND") == 9_997


async def test_a_hundred_at_once_over_one_connection(features: Server, connect: Make, http2: str) -> None:
    client = connect(features, max_connections=1)
    asked = [client.get_online_features(["kinds:small"], {"user_id": [i % 3, 77]}) for i in range(300)]
    found = await asyncio.gather(*asked)
    assert [f.to_dict()["small"][0] for f in found] == [[None, -5, 3][i % 3] for i in range(300)]
    assert features.stats.connections == 1, "more than the server takes at once wait for room"


async def test_connections_are_bounded_and_reused(features: Server, connect: Make) -> None:
    client = connect(features, max_connections=2)
    for _ in range(3):
        await asyncio.gather(
            *(client.get_online_features(["kinds:small"], {"user_id": [1]}) for _ in range(20))
        )
    assert features.stats.connections <= 2


async def test_a_second_connection_when_the_first_is_full(serve: Serve, connect: Make, http2: str) -> None:
    waiting: list[asyncio.Future[Response]] = []

    def handler(request: Request) -> asyncio.Future[Response]:
        waiting.append(asyncio.get_running_loop().create_future())
        if len(waiting) == 4:
            for future in waiting:
                future.set_result(Response(200, "application/json", b"{}"))
        return waiting[-1]

    server = await serve(handler, max_concurrent_streams=2)
    client = connect(server, max_connections=2)
    await client_is_known(client)
    assert len(waiting) == 4 and server.stats.connections == 2


async def client_is_known(client: AsyncClient) -> None:
    """Four at once, two at a time on a connection; REFUSED_STREAM is tried again."""
    await asyncio.wait_for(asyncio.gather(*(client.health() for _ in range(4))), 20)


@pytest.mark.parametrize("scheme_http", ["auto", "same"])
async def test_tls(
    features: Server,
    serve: Serve,
    connect: Make,
    tls: ssl.SSLContext,
    certificate: tuple[str, str],
    scheme_http: str,
) -> None:
    server = await serve(features.handler, tls)
    options = {"http": "auto"} if scheme_http == "auto" else {}
    client = connect(server, "localhost", "https", ca=certificate[0], **options)
    found = await asyncio.gather(
        *(client.get_online_features(["kinds:small"], {"user_id": [1]}) for _ in range(10))
    )
    assert {f.to_dict()["small"][0] for f in found} == {-5}
    stranger = connect(server, "localhost", "https", retry=ONCE)
    with pytest.raises(errors.UnreachableError, match="certificate"):
        await stranger.get_online_features(["kinds:small"], {"user_id": [1]})


async def test_auto_takes_http1_where_tls_offers_nothing_else(
    features: Server, serve: Serve, connect: Make, tls: ssl.SSLContext, certificate: tuple[str, str]
) -> None:
    tls.set_alpn_protocols(["http/1.1"])
    server = await serve(features.handler, tls)
    client = connect(server, "localhost", "https", ca=certificate[0], http="auto")
    answers = await asyncio.gather(*(client.health() for _ in range(5)))
    assert all(answer.ok for answer in answers)


async def test_a_client_certificate(
    features: Server, serve: Serve, connect: Make, tls: ssl.SSLContext, certificate: tuple[str, str]
) -> None:
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(certificate[0])
    server = await serve(features.handler, tls)
    known = connect(server, "localhost", "https", ca=certificate[0], cert=certificate[0], key=certificate[1])
    assert (await known.health()).ok
    stranger = connect(server, "localhost", "https", ca=certificate[0], retry=ONCE)
    with pytest.raises(errors.UnreachableError):
        await stranger.health()


async def test_the_token_goes_into_the_header_only(serve: Serve, connect: Make) -> None:
    seen: list[Request] = []

    def handler(request: Request) -> Response:
        seen.append(request)
        return Response(
            401, "application/json", b'{"error": {"code": "unauthorized", "message": "who is it?"}}'
        )

    client = connect(await serve(handler), token="s3cret")
    with pytest.raises(errors.RequestError, match="who is it") as caught:
        await client.push("clicks", {"id": [1]}, to="online", deadline_ms=2_000)
    assert "s3cret" not in str(caught.value) + repr(client)
    (request,) = seen
    assert (
        request.header(b"authorization") == b"Bearer s3cret" and "s3cret" not in request.path + request.query
    )
    assert request.header(b"content-type") == b"application/json"
    assert 1 <= int(request.header(b"fastserve-deadline-ms") or 0) <= 1_800
    assert json.loads(request.body) == {"push_source_name": "clicks", "df": {"id": [1]}, "to": "online"}


async def test_a_path_prefix_stands_before_every_path(serve: Serve, http: str) -> None:
    seen: list[str] = []

    def handler(request: Request) -> Response:
        seen.append(request.path)
        return Response(200, "application/json", b"{}")

    server = await serve(handler)
    async with AsyncClient(f"http://127.0.0.1:{server.port}/fs/", http=http) as client:
        await client.health()
        await client.write_to_online_store("stats", {"id": [1]})
    assert seen == ["/fs/health", "/fs/write-to-online-store"]


async def test_an_answer_above_the_limit(features: Server, connect: Make) -> None:
    client = connect(features, max_answer_bytes=2_000)
    with pytest.raises(errors.ServerError, match="larger than 2,000 bytes"):
        await client.get_online_features(REFS, {"user_id": list(range(1000))})
    assert (await client.health()).ok


async def test_a_closed_client_and_another_loop_are_said(features: Server, connect: Make) -> None:
    client = connect(features)
    assert (await client.health()).ok

    def elsewhere() -> None:
        with pytest.raises(errors.ConfigError, match="another event loop"):
            asyncio.run(client.health())

    await asyncio.to_thread(elsewhere)
    await client.close()
    await client.close()
    with pytest.raises(errors.ConfigError, match="closed"):
        await client.health()


async def test_the_blocking_client_from_many_threads(features: Server, http: str) -> None:
    def work() -> list[Features]:
        with Client(f"http://127.0.0.1:{features.port}", http=http) as client:
            found: list[Features] = []

            def ask(i: int) -> None:
                found.append(client.get_online_features(["kinds:small"], {"user_id": [1]}))

            threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert (
                client.health().ok and client.get_feature_view_row("kinds", user_id=1).values["small"] == -5
            )
            assert client.get_online_tensor(["kinds:small"], {"user_id": [1]}).to_list() == [[-5.0]]
            with pytest.raises(errors.UnknownObjectError):
                client.get_online_features(["kinds:none"], {"user_id": [1]})
            assert repr(client).startswith("<Client http://")
        client.close()
        with pytest.raises(errors.ConfigError, match="closed"):
            client.health()
        return found

    found = await asyncio.to_thread(work)
    assert [f.to_dict()["small"] for f in found] == [[-5]] * 16


def test_both_clients_have_the_same_methods() -> None:
    for name, method in vars(AsyncClient).items():
        if not name.startswith("_"):
            twin = inspect.signature(getattr(Client, name))
            assert inspect.signature(method) == twin, name
    assert {n for n in vars(Client) if n[0] != "_"} == {n for n in vars(AsyncClient) if n[0] != "_"}
