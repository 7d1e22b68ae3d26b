"""Searching what is registered: every word must be found; a name counts more than a description."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastserve.definitions import Definition, Entity, FeatureService, FeatureView
from fastserve.definitions.serde import kind_of
from fastserve.registry import Snapshot


def search(snapshot: Snapshot, query: str, limit: int) -> list[dict[str, Any]]:
    """The best hits: kind, name, version, description, owner, what matched, and the score."""
    words = query.lower().split()
    found = []
    for obj in snapshot.definitions():
        scores = [_best(obj, one) for one in words]
        if scores and all(score for score, _ in scores):
            matched = sorted({where for _, where in scores})
            found.append((sum(score for score, _ in scores), matched, obj))
    found.sort(key=lambda hit: (-hit[0], kind_of(hit[2]), hit[2].name, -getattr(hit[2], "version", 0)))
    return [_shown(score, matched, obj) for score, matched, obj in found[:limit]]


def _best(obj: Definition, word: str) -> tuple[int, str]:
    return max(
        ((_score(text.lower(), word) * weight, where) for weight, where, text in _texts(obj)),
        default=(0, ""),
    )


def _score(text: str, word: str) -> int:
    if text == word:
        return 4
    return 2 if text.startswith(word) else 1 if word in text else 0


def _texts(obj: Definition) -> Iterator[tuple[int, str, str]]:
    """(weight, what it is, text) of all that can be found of an object."""
    yield 20, "name", obj.name
    yield from ((8, "tag", text) for item in obj.tags.items() for text in (*item, ":".join(item)))
    yield 6, "owner", obj.owner
    yield 3, "description", obj.description
    if isinstance(obj, FeatureView):
        for field in obj.schema:
            yield 12, "feature", field.name
            yield 2, "feature description", field.description
        yield from ((5, "entity", name) for name in obj.entities)
    elif isinstance(obj, FeatureService):
        for part in obj.features:
            yield 10, "view", part.view
            yield from ((10, "feature", name) for name in part.features)
    elif isinstance(obj, Entity):
        yield from ((12, "join key", name) for name in obj.join_keys)


def _shown(score: int, matched: list[str], obj: Definition) -> dict[str, Any]:
    return {
        "kind": kind_of(obj),
        "name": obj.name,
        "version": obj.version if isinstance(obj, FeatureView) else None,
        "description": obj.description,
        "owner": obj.owner,
        "tags": dict(obj.tags),
        "matched": matched,
        "score": score,
    }
