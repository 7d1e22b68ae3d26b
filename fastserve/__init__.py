"""fastserve, a feature store: what a model was trained on and what it is served are the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastserve.definitions import (
    AggregatedFeatureView,
    Aggregation,
    Entity,
    EventSource,
    FeatureService,
    FeatureView,
    Field,
    FileInput,
    FileSource,
    PostgresInput,
    PushSource,
    RequestSource,
    SQLSource,
    batch_feature_view,
    on_demand_feature_view,
    sql_view,
)
from fastserve.errors import FastserveError
from fastserve.types import (
    Array,
    Bool,
    Bytes,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    Timestamp,
)
from fastserve.version import VERSION

if TYPE_CHECKING:
    from fastserve.store import FeatureStore

__version__ = VERSION
__all__ = [
    "AggregatedFeatureView",
    "Aggregation",
    "Array",
    "Bool",
    "Bytes",
    "Entity",
    "EventSource",
    "FastserveError",
    "FeatureService",
    "FeatureStore",
    "FeatureView",
    "Field",
    "FileInput",
    "FileSource",
    "Float32",
    "Float64",
    "Int32",
    "Int64",
    "PostgresInput",
    "PushSource",
    "RequestSource",
    "SQLSource",
    "String",
    "Timestamp",
    "__version__",
    "batch_feature_view",
    "on_demand_feature_view",
    "sql_view",
]


def __getattr__(name: str) -> Any:
    """Load the facade on first use: definitions alone must import in milliseconds."""
    if name == "FeatureStore":
        from fastserve.store import FeatureStore  # noqa: PLC0415

        return FeatureStore
    raise AttributeError(f"module 'fastserve' has no attribute {name!r}")
