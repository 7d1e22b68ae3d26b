"""Definitions that the registry tests apply."""

from __future__ import annotations

from typing import Any

from fastserve import Entity, FeatureService, FeatureView, Field, FileSource

USER = Entity("user", "user_id", "int64")
CLICKS = Field("clicks", "int64")
SPEND = Field("spend", "float64", default=0.0)


def view(name: str = "stats", fields: tuple[Field, ...] = (CLICKS, SPEND), **options: Any) -> FeatureView:
    options = {"entities": [USER], "ttl": "2h", "source": FileSource("stats.parquet")} | options
    return FeatureView(name, schema=fields, **options)


def service(*views: FeatureView, name: str = "ranking") -> FeatureService:
    return FeatureService(name, views)
