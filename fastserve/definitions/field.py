"""Columns: the features of a view, the columns of events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from fastserve.definitions.freeze import freeze, frozen_tags, frozen_value
from fastserve.types import DType

RESERVED: Final = ("event_timestamp", "created_timestamp", "event_date")
"""Columns of every row; none other is called so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One feature column.

    Args:
        name: the feature's name.
        dtype: a type of fastserve.types, or its name (``"float64"``, ``"list<float32>[128]"``).
        default: the value served, and trained on, where no row applies or the row is older than the field.
            An explicit null stays null.
    """

    name: str
    dtype: str
    default: object = field(default=None, hash=False)
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __init__(
        self,
        name: str,
        dtype: DType | str,
        *,
        default: object = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        freeze(
            self,
            name=name,
            dtype=str(dtype),
            default=frozen_value(default),
            description=description,
            tags=frozen_tags(tags),
        )
