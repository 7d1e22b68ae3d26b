"""Searching: every word must be found, and a name counts more than what is said about it."""

from __future__ import annotations

from pathlib import Path

from fastserve import Entity, FeatureService, FeatureView, Field
from fastserve.control.search import search
from fastserve.registry import Snapshot, open_registry


def snapshot(folder: Path) -> Snapshot:
    user = Entity("user", description="clicks on things", owner="ana")
    clicks = FeatureView("clicks", entities=[user], schema=[Field("n", "int64")], tags={"team": "ads"})
    spend = FeatureView("spend", entities=[user], schema=[Field("clicks_7d", "int64")])
    service = FeatureService("ranking", [clicks])
    with open_registry(f"sqlite:///{folder}/r.db", "p") as registry:
        return registry.apply([user, clicks, spend, service]).snapshot


def test_ranking(tmp_path: Path) -> None:
    found = snapshot(tmp_path)
    names = [hit["name"] for hit in search(found, "CLICKS", 10)]
    assert names == ["clicks", "ranking", "spend", "user"]
    assert [hit["name"] for hit in search(found, "clicks", 1)] == ["clicks"]
    assert [hit["name"] for hit in search(found, "clicks ads", 10)] == ["clicks"]
    assert search(found, "clicks nowhere", 10) == [] and search(found, " ", 10) == []
    assert search(found, "ana", 10)[0]["matched"] == ["owner"]
