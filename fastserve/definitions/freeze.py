"""Constructors of frozen definitions: they accept what is handy to write and keep what is canonical."""

from __future__ import annotations

import copyreg
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

_T = TypeVar("_T")


def _thaw(values: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(values)


# Definitions cross process borders (spawned workers, engine tasks); read-only mappings must come along.
copyreg.pickle(MappingProxyType, lambda mapping: (_thaw, (dict(mapping),)))


def freeze(obj: object, **values: object) -> None:
    """Set the attributes of a frozen dataclass from its own __init__."""
    for name, value in values.items():
        object.__setattr__(obj, name, value)


def names_of(value: Sequence[str] | str | None) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def frozen_value(value: object) -> object:
    """A default as it is kept: lists as tuples."""
    return tuple(value) if isinstance(value, list) else value


def frozen_tags(tags: Mapping[str, _T] | None) -> Mapping[str, _T]:
    """A read-only copy, in sorted order."""
    return MappingProxyType(dict(sorted((tags or {}).items())))
