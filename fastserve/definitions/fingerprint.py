"""The schema fingerprint: what a model may rely on, as 16 hex digits.

Training sets record it, serving answers carry it; both take it from here, so that they can be compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from fastserve.definitions.view import FeatureView, FeatureViewProjection


@dataclass(frozen=True, slots=True)
class OutputField:
    """One feature of an answer: its output name and declared type, and what it is in the registry."""

    name: str
    dtype: str
    view: str
    version: int
    feature: str


def output_fields(
    parts: Iterable[tuple[FeatureViewProjection, FeatureView]], *, full_feature_names: bool
) -> list[OutputField]:
    """The features of an answer, in order. Features that a view does not have are left out.

    Args:
        parts: projections, each with the view it means.
        full_feature_names: name features ``<alias or view>__<feature>``.
    """
    return [
        OutputField(
            f"{part.output_name}__{feature}" if full_feature_names else feature,
            field.dtype,
            view.name,
            view.version,
            feature,
        )
        for part, view in parts
        for feature in part.features
        if (field := view.field(feature)) is not None
    ]


def schema_fingerprint(fields: Iterable[OutputField]) -> str:
    """Changes when an output name, a type, a view version, a feature or the order changes."""
    text = "\n".join(f"{f.name}:{f.dtype}:{f.view}@v{f.version}:{f.feature}" for f in fields)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
