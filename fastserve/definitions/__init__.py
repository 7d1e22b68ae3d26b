"""What users declare: plain frozen objects without I/O. The bottom of the domain."""

from fastserve.definitions.aggregated_view import AggregatedFeatureView
from fastserve.definitions.aggregation import Aggregation
from fastserve.definitions.entity import Entity
from fastserve.definitions.event_source import EventSource
from fastserve.definitions.field import Field
from fastserve.definitions.inputs import FileInput, Input, PostgresInput
from fastserve.definitions.on_demand import OnDemandFeatureView, RequestSource
from fastserve.definitions.service import FeatureService, merge_refs, parse_ref
from fastserve.definitions.source import (
    BatchSource,
    FileSource,
    PushSource,
    Source,
    SQLSource,
    TransformSource,
    batch_source,
)
from fastserve.definitions.view import FeatureView, FeatureViewProjection
from fastserve.definitions.written import batch_feature_view, on_demand_feature_view, sql_view

Definition = Entity | FeatureView | FeatureService | BatchSource | PushSource | EventSource

__all__ = [
    "AggregatedFeatureView",
    "Aggregation",
    "BatchSource",
    "Definition",
    "Entity",
    "EventSource",
    "FeatureService",
    "FeatureView",
    "FeatureViewProjection",
    "Field",
    "FileInput",
    "FileSource",
    "Input",
    "OnDemandFeatureView",
    "PostgresInput",
    "PushSource",
    "RequestSource",
    "SQLSource",
    "Source",
    "TransformSource",
    "batch_feature_view",
    "batch_source",
    "merge_refs",
    "on_demand_feature_view",
    "parse_ref",
    "sql_view",
]
