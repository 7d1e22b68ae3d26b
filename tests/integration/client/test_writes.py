"""What a client pushes to a real server it reads again, over every transport."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fastserve import FeatureStore, errors
from fastserve.client import AsyncClient
from tests.integration.serving.test_serve_process import serving
from tests.support import make_repo

FEATURES = """
from fastserve import Array, Entity, FeatureView, Field, PushSource
device = Entity("device", join_keys="code", dtype="bytes")
schema = [Field("flag", "bool"), Field("big", "int64"), Field("single", "float32"), Field("double", "float64"),
          Field("moment", "timestamp"), Field("text", "string"), Field("blob", "bytes"),
          Field("vector", Array("float32", 2)), Field("names", Array("string"))]
kinds = FeatureView("kinds", entities=[device], schema=schema, source=PushSource("kinds_push"))
"""
AT = datetime(2023, 11, 14, 22, tzinfo=UTC)
CODES = [b"\xff\x00|", b"b"]
VALUES: dict[str, list[Any]] = {
    "flag": [True, None],
    "big": [2**53 + 1, None],
    "single": [0.5, None],
    "double": [math.inf, None],
    "moment": [datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=UTC), None],
    "text": ["zażółć\n", None],
    "blob": [b"\x00\xff", None],
    "vector": [[1.5, -math.inf], None],
    "names": [["a", ""], None],
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = make_repo(tmp_path_factory.mktemp("writes") / "repo", FEATURES)
    with FeatureStore(folder) as store:
        store.apply()
    with serving(folder) as (port, _):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("way", ["push", "write"])
async def test_what_is_written_is_read(url: str, http: str, way: str) -> None:
    codes = [way.encode() + http.encode() + code for code in CODES]
    rows = {"code": codes, "event_timestamp": [AT, AT], **VALUES}
    async with AsyncClient(url, http=http) as client:
        for _ in range(2):  # twice is once
            if way == "push":
                await client.push("kinds_push", rows)
            else:
                await client.write_to_online_store("kinds", rows)
        refs = [f"kinds:{name}" for name in VALUES]
        for format in ("json", "arrow"):
            found = await client.get_online_features(refs, {"code": codes}, format=format)
            assert found.to_dict() == VALUES
            assert set(found.statuses["big"]) == {"PRESENT", "NULL_VALUE"}
            assert found.event_timestamps == {"kinds@v1": [AT, AT]}
        one = await client.get_feature_view_row("kinds", code=codes[0])
        assert (
            one.values == {name: values[0] for name, values in VALUES.items()} and one.event_timestamp == AT
        )


async def test_what_is_wrong_with_rows_is_said(url: str, http: str) -> None:
    async with AsyncClient(url, http=http) as client:
        with pytest.raises(errors.UnknownObjectError, match="did you mean 'kinds_push'"):
            await client.push("kinds_psh", {"code": [b"a"], "event_timestamp": [AT]})
        with pytest.raises(errors.UnknownObjectError):
            await client.write_to_online_store("nothing", {"code": [b"a"], "event_timestamp": [AT]})
        with pytest.raises(errors.InvalidDataError, match="big"):
            await client.push("kinds_push", {"code": [b"a"], "event_timestamp": [AT], "big": ["x"]})
