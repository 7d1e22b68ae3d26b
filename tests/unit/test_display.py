"""What notebooks show."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastserve import Entity, FeatureService, FeatureStore, FeatureView, Field
from fastserve.display import html_table
from tests.support import make_repo

USER = Entity("user", join_keys="user_id", dtype="int64", description="<people>")
VIEW = FeatureView("stats", entities=[USER], schema=[Field("a", "int64", default=3)], ttl="90m")
SERVICE = FeatureService("svc", [VIEW.with_name("other").with_join_key_map({"user_id": "friend_id"})])


def test_everything_is_escaped() -> None:
    shown = html_table("<t>", ["a&b"], [["<x>", None]], note="n<")
    assert "<x>" not in shown and "&lt;x&gt;" in shown and "a&amp;b" in shown and "n&lt;" in shown


@pytest.mark.parametrize(
    ("obj", "says"),
    [
        (USER, ["Entity user", "user_id", "int64", "&lt;people&gt;"]),
        (VIEW, ["FeatureView stats@v1", "holds for 1h30m", "int64", "3"]),
        (SERVICE, ["FeatureService svc", "stats@v1", "other", "user_id = friend_id"]),
    ],
)
def test_definitions_show_what_they_are(obj: object, says: list[str]) -> None:
    shown = obj._repr_html_()  # type: ignore[attr-defined]
    for text in says:
        assert text in shown


def test_plans_and_results_show(tmp_path: Path) -> None:
    with FeatureStore(make_repo(tmp_path / "repo", "", online_store="memory://display")) as store:
        plan = store.plan([USER, VIEW, SERVICE])
        assert "3 to create" in plan._repr_html_() and "feature service svc" in plan._repr_html_()
        store.apply([USER, VIEW, SERVICE])
        answer = store.get_online_features(["stats:a"], {"user_id": [7]}, now="2024-01-01")
        assert repr(answer) == "OnlineFeatures(1 entities; a)"
        shown = answer._repr_html_()
        assert "3 (NOT_FOUND)" in shown and "as of 2024-01-01T00:00:00Z" in shown
