"""What users declare: plain frozen objects without I/O. The bottom of the domain."""

from fastserve.definitions.entity import Entity
from fastserve.definitions.inputs import FileInput, Input, PostgresInput
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
from fastserve.definitions.view import FeatureView, FeatureViewProjection, Field
from fastserve.definitions.written import batch_feature_view, sql_view

Definition = Entity | FeatureView | FeatureService | BatchSource | PushSource

__all__ = [
    "BatchSource",
    "Definition",
    "Entity",
    "FeatureService",
    "FeatureView",
    "FeatureViewProjection",
    "Field",
    "FileInput",
    "FileSource",
    "Input",
    "PostgresInput",
    "PushSource",
    "SQLSource",
    "Source",
    "TransformSource",
    "batch_feature_view",
    "batch_source",
    "merge_refs",
    "parse_ref",
    "sql_view",
]
