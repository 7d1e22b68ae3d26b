"""Where each field of a row lives. Worked out once per layout, never per row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from fastserve.errors import CodecError
from fastserve.types import DType

FORMAT_VERSION: Final = 1
HEADER_BYTES: Final = 24
MAX_LAYOUT_ID: Final = 0xFFFF


@dataclass(frozen=True)
class Layout:
    """The field list a row was written with; docs/row-format.md is the format of record.

    Args:
        layout_id: the number in the row's header, 0..65,535; unique within a view version.
        names: field names, in row order.
        dtypes: their types, in the same order.

    Raises:
        CodecError: for an id that does not fit, a repeated name or sequences of unequal length.
    """

    layout_id: int
    names: tuple[str, ...]
    dtypes: tuple[DType, ...]

    def __post_init__(self) -> None:
        where = f"layout {self.layout_id}"
        if not 0 <= self.layout_id <= MAX_LAYOUT_ID:
            raise CodecError(f"a layout id is 0..{MAX_LAYOUT_ID:,}", where=where)
        if len(self.names) != len(self.dtypes):
            raise CodecError(f"{len(self.names)} names but {len(self.dtypes)} types were given", where=where)
        if len(set(self.names)) != len(self.names):
            raise CodecError("a field name occurs twice", where=where)

    @cached_property
    def index(self) -> dict[str, int]:
        """Field name -> its position, which is also its bit in the presence bitmap."""
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def fixed_start(self) -> int:
        """Row offset of the fixed section: header, then one presence bit per field."""
        return HEADER_BYTES + (len(self.names) + 7) // 8

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Per field: the row offset of its value, or -1 when the value is in the heap."""
        found = []
        offset = self.fixed_start
        for dtype in self.dtypes:
            found.append(offset if dtype.width else -1)
            offset += dtype.width
        return tuple(found)

    @cached_property
    def heap_slots(self) -> tuple[int, ...]:
        """Per field: which of the heap fields it is, counted from 0, or -1 when it is not one."""
        found = []
        count = 0
        for dtype in self.dtypes:
            found.append(-1 if dtype.width else count)
            count += not dtype.width
        return tuple(found)

    @cached_property
    def n_heap(self) -> int:
        """How many fields live in the heap."""
        return sum(not dtype.width for dtype in self.dtypes)

    @cached_property
    def ends_start(self) -> int:
        """Row offset of the table of heap ends, one u32 per heap field."""
        return self.fixed_start + sum(dtype.width for dtype in self.dtypes)

    @cached_property
    def heap_start(self) -> int:
        """Row offset of the heap: the smallest length a row of this layout can have."""
        return self.ends_start + 4 * self.n_heap
