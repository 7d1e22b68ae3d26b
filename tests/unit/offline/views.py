"""Registered views without a registry: the frozen objects it would hand out."""

from __future__ import annotations

from collections.abc import Mapping

from fastserve.codec.layout import Layout
from fastserve.definitions import FeatureView
from fastserve.registry import RegisteredView
from fastserve.types import parse_dtype


def registered(
    view: FeatureView, keys: Mapping[str, str], older: tuple[tuple[str, ...], ...] = ()
) -> RegisteredView:
    """The view with one layout per `older` list of feature names, then its own; layout ids count from 1."""
    dtypes = {f.name: parse_dtype(f.dtype) for f in view.schema}
    lists = [*older, view.feature_names]
    layouts = tuple(Layout(i, names, tuple(dtypes[n] for n in names)) for i, names in enumerate(lists, 1))
    return RegisteredView(view, 7, dict(sorted(keys.items())), layouts)
