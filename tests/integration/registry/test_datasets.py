"""Training data sets in the registry: recorded once, found again, moved; services pinned to them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fastserve import FeatureService
from fastserve.definitions.fingerprint import output_fields, schema_fingerprint
from fastserve.errors import DefinitionError, UnknownObjectError
from fastserve.registry import Registry, TrainingDataset, UsedView, open_registry
from tests.integration.registry.objects import USER, view

REFS = ["stats:clicks"]


def dataset(registry: Registry, name: str = "train", created_us: int = 1) -> TrainingDataset:
    snapshot = registry.snapshot()
    parts = [(part, rv.view) for part, rv in snapshot.resolve(FeatureService("s", REFS).features)]
    fingerprint = schema_fingerprint(output_fields(parts, full_feature_names=False))
    manifest = {
        "schema_fingerprint": fingerprint,
        "full_feature_names": False,
        "features": [{"view": "stats", "version": 1, "asked_version": None}],
    }
    used = UsedView(snapshot.view("stats").view_id, "stats", 1, "ab", {"kind": "offline_table", "version": 3})
    return TrainingDataset(
        f"{name}-1", name, "s", fingerprint, "here", 5, created_us, "ana", manifest, (used,)
    )


def test_what_was_recorded_is_found(registry: Registry, url: str) -> None:
    registry.apply([USER, view()])
    first, second = dataset(registry), dataset(registry, "other", 2)
    for one in (first, second):
        registry.record_training_dataset(one)
    with open_registry(url, "demo") as again:
        assert again.training_datasets() == [second, first]
        assert again.training_dataset("train-1") == again.training_dataset("train") == first
        assert again.training_datasets(view="stats", service="s") == [second, first]
        assert again.training_datasets(view="x") == again.training_datasets(service="x") == []
        with pytest.raises(UnknownObjectError, match="did you mean 'train'"):
            again.training_dataset("trian")
    with open_registry(url, "elsewhere") as other:
        assert other.training_datasets() == []


def test_recorded_again_it_moves(registry: Registry) -> None:
    registry.apply([USER, view()])
    one = dataset(registry)
    registry.record_training_dataset(one)
    registry.record_training_dataset(replace(one, uri="there"))
    assert registry.training_datasets() == [replace(one, uri="there")]


def test_a_pin_holds_a_service_to_a_version(registry: Registry) -> None:
    registry.apply([USER, view()])
    registry.record_training_dataset(dataset(registry))
    snapshot = registry.apply([FeatureService("s", REFS, pinned_to="train-1"), view(version=2)]).snapshot
    assert [part.version for part in snapshot.service_parts("s")] == [1]
    assert registry.snapshot().pins == snapshot.pins and snapshot.pins["s"].dataset_id == "train-1"
    with pytest.raises(DefinitionError, match="would answer schema"):
        registry.apply([FeatureService("s", ["stats:spend"], pinned_to="train-1")])
    assert registry.revision() == snapshot.revision
