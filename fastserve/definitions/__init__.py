"""What users declare: plain frozen objects without I/O. The bottom of the domain."""

from fastserve.definitions.entity import Entity
from fastserve.definitions.service import FeatureService, merge_refs, parse_ref
from fastserve.definitions.source import FileSource, PushSource, Source, batch_source
from fastserve.definitions.view import FeatureView, FeatureViewProjection, Field

Definition = Entity | FeatureView | FeatureService | FileSource | PushSource

__all__ = [
    "Definition",
    "Entity",
    "FeatureService",
    "FeatureView",
    "FeatureViewProjection",
    "Field",
    "FileSource",
    "PushSource",
    "Source",
    "batch_source",
    "merge_refs",
    "parse_ref",
]
