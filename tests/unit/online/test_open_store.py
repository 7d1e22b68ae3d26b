"""URLs and options; what needs no server. The contract is in tests/integration/online."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastserve.errors import ConfigError
from fastserve.online import open_store
from fastserve.online.redis import RedisStore

BAD = [
    ("", "no URL"),
    ("online", "no URL"),
    ("./path/online.lmdb", "no URL"),
    ("mysql://host", "mysql"),
    ("redis:host", "no URL"),
    ("memory://a?b=1", "no options"),
    ("lmdb://", "path is missing"),
    ("lmdb://x?map_size=1TB", "not a size"),
    ("lmdb://x?map_size=0", "not a size"),
    ("lmdb://x?map_size=-1", "not a size"),
    ("lmdb://x?map_size=", "not a size"),
    ("lmdb://x?sync=maybe", "sync=maybe"),
    ("lmdb://x?mapsize=1GiB", "mapsize"),
    ("redis://host:port", "malformed"),
    ("redis://host:99999", "malformed"),
    ("redis://host/seven", "seven"),
    ("redis://host/0?timeout=1", "timeout"),
    ("redis://host?socket_timeout=soon", "socket_timeout"),
    ("redis://host?socket_timeout", "malformed"),
    ("redis://host?ssl_ca_certs=/x", "rediss"),
    ("rediss://host?ssl_ca_certs=/does/not/exist", "unusable"),
    ("rediss://host?ssl_cert_reqs=maybe", "unusable"),
    ("unix://", "path is missing"),
]


@pytest.mark.parametrize(("url", "message"), BAD)
def test_bad_urls_say_what_is_wrong(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_store(url)
    assert caught.value.where


def test_an_unknown_scheme_offers_the_known() -> None:
    with pytest.raises(ConfigError) as caught:
        open_store("mysql://user:secret@host")
    assert all(
        f"{scheme}://" in caught.value.hint for scheme in ("lmdb", "redis", "rediss", "unix", "memory")
    )
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pass@word@host:1/2", "redis://***@host:1/2"),
        ("rediss://user:pw@host?ssl_cert_reqs=none", "rediss://***@host?ssl_cert_reqs=none"),
        ("unix://:pw@/run/redis.sock?db=3", "unix://***@/run/redis.sock?db=3"),
        ("redis://host", "redis://host"),
    ],
)
async def test_a_password_is_never_shown(url: str, shown: str) -> None:
    store = open_store(url)
    assert store.url == shown
    await store.close()
    with pytest.raises(ConfigError) as caught:
        open_store(url + ("&" if "?" in url else "?") + "nonsense=1")
    assert "pw" not in str(caught.value) and "pass" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "label", "db", "timeout"),
    [
        ("redis://", "localhost:6379", 0, 2.0),
        ("redis://h:7/3?socket_timeout=0.5", "h:7", 3, 0.5),
        ("redis://h?db=4", "h:6379", 4, 2.0),
        ("unix:///run/r.sock?db=5", "/run/r.sock", 5, 2.0),
    ],
)
async def test_where_a_redis_url_leads(url: str, label: str, db: int, timeout: float) -> None:
    store = open_store(url)
    assert isinstance(store, RedisStore)
    endpoint = store._pump._endpoint
    assert (endpoint.label, endpoint.db, endpoint.timeout) == (label, db, timeout)
    await store.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis://", "redis://H%2e:7/3?socket_timeout=0.5", "redis://h?db=4", "redis://us%40er:p%3Aw@h/00",
        "redis://:pass@word@host:1/2/", "unix:///run/r%20.sock?db=5", "unix://:pw@/r.sock",
        "rediss://h?ssl_cert_reqs=none&socket_connect_timeout=1&ssl_check_hostname=no",
    ],
)  # fmt: skip
async def test_both_kinds_of_connection_lead_to_the_same_server(url: str) -> None:
    """Ours, and redis-py's, which reads the URL by itself."""
    store = open_store(url)
    assert isinstance(store, RedisStore)
    endpoint, theirs = store._pump._endpoint, store._client.connection_pool.connection_kwargs
    assert endpoint.path == theirs.get("path", "")
    if not endpoint.path:
        assert (endpoint.host, endpoint.port) == (theirs.get("host", "localhost"), theirs.get("port", 6379))
    assert (endpoint.username, endpoint.password) == (theirs.get("username", ""), theirs.get("password", ""))
    assert endpoint.db == theirs.get("db", 0)
    assert endpoint.timeout == theirs["socket_timeout"]
    assert endpoint.connect_timeout == theirs["socket_connect_timeout"]
    assert (endpoint.tls is not None) == url.startswith("rediss")
    await store.close()


async def test_memory_is_shared_by_name_and_outlives_its_stores() -> None:
    row = bytes(24)
    first, second, other = (
        open_store("memory://shared"),
        open_store("memory://shared"),
        open_store("memory://"),
    )
    await first.put_many([b"7:1"], [row])
    await first.close()
    assert second.get_many([b"7:1"]) == [row]
    assert open_store("memory://shared").get_many([b"7:1"]) == [row]
    assert other.get_many([b"7:1"]) == open_store("memory://").get_many([b"7:1"]) == [None]


async def test_lmdb_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative, absolute and by way of a link: one file, opened once."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "sub")
    stores = [open_store(url) for url in ("lmdb://sub/online", f"lmdb://{tmp_path}/sub/online",
                                          "lmdb://link/online")]  # fmt: skip
    await stores[0].put_many([b"7:1"], [bytes(24)])
    for store in stores:
        assert store.get_many([b"7:1"]) == [bytes(24)]
        await store.close()
    assert (tmp_path / "sub" / "online" / "data.mdb").exists()
