"""Snapshots made by hand: what the registry would hold after applying some definitions, without a database."""

from __future__ import annotations

from collections.abc import Sequence

from fastserve import Entity, EventSource, FeatureService, FeatureView, PushSource
from fastserve.codec.layout import Layout
from fastserve.definitions import Definition
from fastserve.definitions.validate import join_keys_of
from fastserve.registry import RegisteredView, Snapshot
from fastserve.registry.snapshot import fields_of


def snapshot_of(objects: Sequence[Definition] = (), revision: int = 1) -> Snapshot:
    entities = {o.name: o for o in objects if isinstance(o, Entity)}
    views = {}
    for number, view in enumerate((o for o in objects if isinstance(o, FeatureView)), start=1):
        layout = Layout(1, *fields_of(view))
        keys = join_keys_of(view, entities)
        views[view.name, view.version] = RegisteredView(view, number, keys, (layout,))
    return Snapshot(
        registry_id="r",
        project="demo",
        revision=revision,
        entities=entities,
        views=views,
        services={o.name: o for o in objects if isinstance(o, FeatureService)},
        push_sources={o.name: o for o in objects if isinstance(o, PushSource)},
        event_sources={o.name: o for o in objects if isinstance(o, EventSource)},
    )
