"""What a read gives: `Features` of many entities, `FeatureRow` of one. Immutable; turned into other forms on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fastserve.client import columns

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """The features of one entity of one view.

    Attributes:
        view, version: what was read.
        values: feature -> exact Python value, None for null.
        statuses: feature -> PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE or UNAVAILABLE.
        event_timestamp: from when the values hold, UTC; None without a row.
        freshness_ms: their age at the server's clock; None without a row.
        revision, fingerprint: of the registry, and of the schema served.
    """

    view: str
    version: int
    values: dict[str, Any]
    statuses: dict[str, str]
    event_timestamp: datetime | None
    freshness_ms: int | None
    revision: int
    fingerprint: str


@dataclass(frozen=True)
class Features:
    """Features of many entities, in the order asked for.

    Attributes:
        names: of the features.
        dtypes: their declared types, like ``int64`` or ``list<float32>[3]``; '' from a server that does not tell.
        n: number of entities, i.e. rows.
        statuses: feature -> one of PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE, UNAVAILABLE per row.
        event_timestamps: ``view@v1`` -> from when its values hold, per row; None where there is no row. A view read
            by two sets of keys is there twice, the second as ``view@v1#2``.
        revision: of the registry the answer was made with.
        fingerprint: of the schema: it changes when a name, a type, a view version or the order does.
        unavailable: why the store did not answer, '' when it did. Only JSON answers say it.
    """

    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    n: int
    statuses: dict[str, list[str]]
    event_timestamps: dict[str, list[datetime | None]]
    revision: int
    fingerprint: str
    unavailable: str
    _values: Sequence[Any]  # per feature: a list of Python values, or an Arrow array

    def __len__(self) -> int:
        return self.n

    def __repr__(self) -> str:
        shown = ", ".join(self.names[:6]) + (", …" if len(self.names) > 6 else "")
        return f"<Features {self.n} x {len(self.names)}: {shown}>"

    @cached_property
    def _python(self) -> dict[str, list[Any]]:
        return {
            name: values if isinstance(values, list) else columns.arrow_to_python(values, dtype)
            for name, dtype, values in zip(self.names, self.dtypes, self._values, strict=True)
        }

    def to_dict(self) -> dict[str, list[Any]]:
        """Feature -> exact Python values, None for null: ints are ints, NaN is a value, times are UTC datetimes."""
        return {name: list(values) for name, values in self._python.items()}

    def to_numpy(self) -> dict[str, np.ma.MaskedArray[Any, Any]]:
        """Feature -> masked array of n values (fixed lists of numbers: n x length), null masked, in its own dtype.

        An int64 column stays int64 whether or not something is missing; `.filled(x)` gives a plain array.
        """
        return {
            name: columns.to_masked(values, dtype)
            if isinstance(values, list)
            else columns.arrow_to_masked(values, dtype)
            for name, dtype, values in zip(self.names, self.dtypes, self._values, strict=True)
        }

    def to_arrow(self) -> pa.Table:
        """A table of n rows, a column per feature in its declared Arrow type."""
        import pyarrow as pa  # noqa: PLC0415  (needed by those who ask for it)

        arrays = [
            columns.to_arrow(values, dtype) if isinstance(values, list) else values
            for dtype, values in zip(self.dtypes, self._values, strict=True)
        ]
        return pa.table(arrays, names=list(self.names))

    def to_pandas(self) -> pd.DataFrame:
        """A frame of n rows with Arrow-backed columns, so that ints stay ints and null is not NaN."""
        import pandas as pd  # noqa: PLC0415

        return self.to_arrow().to_pandas(types_mapper=pd.ArrowDtype)

    def to_polars(self) -> pl.DataFrame:
        """A frame of n rows."""
        import polars as pl  # noqa: PLC0415

        frame = pl.from_arrow(self.to_arrow())
        return frame if isinstance(frame, pl.DataFrame) else frame.to_frame()
