"""The columns of a view's rows between source and stores, in this order:

    join keys        sorted by name: int64, string, bool or binary; never null, but of events (events.py)
    event_timestamp  timestamp[us, UTC]; never null
    created_timestamp  timestamp[us, UTC]; never null: a row without one was known at its event time
    features         in schema order, types.arrow_type; null allowed
    _layout          int32, the layout the row was written with: tells a null from "older than the field"

Delta tables have one more, `event_date` (date32, UTC), which they are partitioned by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from fastserve.errors import UnknownObjectError
from fastserve.timeutil import parse_timestamp
from fastserve.types import DType, arrow_type, parse_dtype

if TYPE_CHECKING:
    from fastserve.registry import RegisteredView

EVENT_TS: Final = "event_timestamp"
CREATED_TS: Final = "created_timestamp"
LAYOUT: Final = "_layout"
EVENT_DATE: Final = "event_date"
TIMESTAMP: Final = pa.timestamp("us", "UTC")


def canonical_schema(rv: RegisteredView, columns: Sequence[str] | None = None) -> pa.Schema:
    """The schema of the module's docstring, with all features or those named, in the order named.

    Raises:
        UnknownObjectError: the view has no such feature.
    """
    return pa.schema(
        [
            *(pa.field(name, arrow_type(dtype)) for name, dtype in key_types(rv).items()),
            pa.field(EVENT_TS, TIMESTAMP),
            pa.field(CREATED_TS, TIMESTAMP),
            *(pa.field(name, arrow_type(dtype)) for name, dtype in feature_types(rv, columns).items()),
            pa.field(LAYOUT, pa.int32()),
        ]
    )


def key_types(rv: RegisteredView) -> dict[str, DType]:
    """Join key -> its type, in canonical order."""
    return {name: parse_dtype(dtype) for name, dtype in rv.join_keys.items()}


def feature_types(rv: RegisteredView, columns: Sequence[str] | None = None) -> dict[str, DType]:
    """Feature -> its type, for all features in schema order or for those named.

    Raises:
        UnknownObjectError: the view has no such feature.
    """
    known = {field.name: parse_dtype(field.dtype) for field in rv.view.schema}
    if columns is None:
        return known
    for name in columns:
        if name not in known:
            raise UnknownObjectError.of(f"feature of view {rv.view.name!r}", name, known)
    return {name: known[name] for name in columns}


def layouts_without(rv: RegisteredView, feature: str) -> list[int]:
    """Ids of the layouts from before the field: there its null means the default, not null."""
    return [layout.layout_id for layout in rv.layouts if feature not in layout.names]


def default_array(dtype: DType, default: Any) -> pa.Array:
    """A declared default as an Arrow array of one; null when there is none."""
    if default is not None and dtype.item == "timestamp":
        default = [parse_timestamp(v) for v in default] if dtype.is_list else parse_timestamp(default)
    return pa.array([default], arrow_type(dtype))
