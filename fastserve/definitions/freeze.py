"""Constructors of frozen definitions: they accept what is handy to write and keep what is canonical."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType


def freeze(obj: object, **values: object) -> None:
    """Set the attributes of a frozen dataclass from its own __init__."""
    for name, value in values.items():
        object.__setattr__(obj, name, value)


def names_of(value: Sequence[str] | str | None) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def frozen_tags(tags: Mapping[str, str] | None) -> Mapping[str, str]:
    """A read-only copy, in sorted order."""
    return MappingProxyType(dict(sorted((tags or {}).items())))
