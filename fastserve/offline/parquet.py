"""How the Parquet files of offline tables are written, by Arrow and by delta-rs alike."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from deltalake import ColumnProperties, WriterProperties


def with_dictionary(schema: pa.Schema) -> list[str]:
    """The columns that files of a table have a dictionary of: not those of floats, alone or in lists.

    Most floats differ, so a dictionary of them is built only to be given up, which takes five times as long as writing
    them; and some writers' take a NaN, or a zero, for another.
    """
    kinds = ((field.name, field.type) for field in schema)
    return [name for name, kind in kinds if not (pa.types.is_floating(kind) or pa.types.is_nested(kind))]


def writer_properties(schema: pa.Schema, **more: Any) -> WriterProperties:
    """How delta-rs writes files of a table; `more` is its own."""
    return WriterProperties(
        compression="ZSTD",
        default_column_properties=ColumnProperties(dictionary_enabled=False),
        column_properties={
            name: ColumnProperties(dictionary_enabled=True) for name in with_dictionary(schema)
        },
        **more,
    )
