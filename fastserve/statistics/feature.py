"""Statistics of one feature: how its values are measured, merged and shown.

    type                       moments of             sample of            shown beside counts
    int32, int64               the numbers            the numbers          mean, std, quantiles, top values
    float32, float64           the numbers            the numbers          mean, std, quantiles
    bool                       0 and 1                the values           mean, top values
    timestamp                  microseconds           microseconds         quantiles
    string                     lengths, characters    the first TEXT       top values
    bytes, lists               lengths                lengths              quantiles of lengths

Of a feature that is tagged `pii` only rows and nulls are counted, and lengths: no value of it leaves the stores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastserve.statistics.moments import Moments
from fastserve.statistics.sample import Sample
from fastserve.timeutil import format_timestamp
from fastserve.types import DType, parse_dtype

TEXT: Final = 128
"""Characters of a text that are sampled."""

TOP: Final = 10
QUANTILES: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
PII: Final = "pii"
_NO: Final = ("", "0", "false", "no", "none")


@dataclass(frozen=True, slots=True, eq=False)
class FeatureStatistics:
    """What is known of a feature's values in some rows.

    Attributes:
        dtype: the feature's type.
        moments: of what the module's table says.
        sample: likewise; None for a feature tagged `pii`.
    """

    dtype: str
    moments: Moments
    sample: Sample | None

    def merged(self, other: FeatureStatistics) -> FeatureStatistics:
        """Of the rows of both. Where either hides its values, so does the result."""
        sample = None
        if self.sample is not None and other.sample is not None:
            sample = self.sample.merged(other.sample)
        return FeatureStatistics(self.dtype, self.moments.merged(other.moments), sample)

    def quantiles(self) -> dict[str, int | float]:
        """`p01` … `p99` of numbers, times (microseconds) and lengths: values that were there; {} for others."""
        if self.sample is None or (parse_dtype(self.dtype).item in ("string", "bool") and not _is_list(self)):
            return {}
        values = self.sample.values.drop_null()
        if pa.types.is_floating(values.type):
            values = values.filter(pc.is_finite(values))
        if not len(values):
            return {}
        ordered = np.sort(values.to_numpy(zero_copy_only=False))
        ranks = {share: min(math.ceil(share * len(ordered)) - 1, len(ordered) - 1) for share in QUANTILES}
        return {f"p{round(share * 100):02}": ordered[rank].item() for share, rank in ranks.items()}

    def top_values(self) -> list[tuple[Any, float]]:
        """The most frequent values and their shares of all rows that have one; of text, integers and bool."""
        if not self._has_top or self.sample is None:
            return []
        values = self.sample.values.drop_null()
        if not len(values):
            return []
        counted = values.value_counts().to_pylist()
        counted.sort(key=lambda one: (-one["counts"], str(one["values"])))
        return [(one["values"], one["counts"] / len(values)) for one in counted[:TOP]]

    def distinct(self) -> int | None:
        """About how many different values there are; exact while the sample holds every row."""
        if not self._has_top or self.sample is None:
            return None
        values = self.sample.values.drop_null()
        n_all = self.moments.n
        if not len(values) or not n_all:
            return 0
        counts = values.value_counts().field("counts").to_numpy(zero_copy_only=False)
        seen, once, n = len(counts), int((counts == 1).sum()), len(values)
        # Haas and Stokes' first jackknife: values seen once stand for those that were not seen.
        left_out = 1 - (1 - min(n / n_all, 1.0)) * once / n
        return min(round(seen / left_out), n_all) if left_out > 0 else n_all

    @property
    def _has_top(self) -> bool:
        return self.dtype in ("string", "bool", "int32", "int64")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, as docs/statistics.md says; what the type or `pii` rules out is left out."""
        moments = self.moments
        shown: dict[str, Any] = {
            "dtype": self.dtype,
            "rows": moments.rows,
            "nulls": moments.nulls,
            "null_share": moments.nulls / moments.rows if moments.rows else None,
        }
        if self.dtype in ("float32", "float64") and self.sample is not None:
            shown |= {"nans": moments.nans, "infinities": moments.infinities}
        if self.sample is None:
            shown["hidden"] = PII
        if measures_length(parse_dtype(self.dtype)):
            shown["length"] = self._numbers()
        elif self.sample is not None:
            shown |= self._numbers()
        if self._has_top and self.sample is not None:
            shown["distinct"] = self.distinct()
            shown["top"] = [{"value": value, "share": share} for value, share in self.top_values()]
        return shown

    def _numbers(self) -> dict[str, Any]:
        moments = self.moments
        if self.dtype == "timestamp":
            low, high = _time(moments.low), _time(moments.high)
            return {
                "min": low,
                "max": high,
                "quantiles": {name: _time(us) for name, us in self.quantiles().items()},
            }
        found: dict[str, Any] = {"min": moments.low, "max": moments.high}
        if moments.n:
            found |= {"mean": _or_none(moments.mean), "std": _or_none(moments.std)}
        else:
            found |= {"mean": None, "std": None}
        if quantiles := self.quantiles():
            found["quantiles"] = quantiles
        return found


def measures_length(dtype: DType) -> bool:
    """Whether moments are of lengths rather than of values."""
    return dtype.is_list or dtype.item in ("string", "bytes")


def is_hidden(*tags: Mapping[str, str]) -> bool:
    """Whether a feature is tagged `pii`, by itself or by its view: with any value that does not deny it."""
    return any(one.get(PII, "").strip().lower() not in _NO for one in tags)


def numbers_of(dtype: DType, column: pa.Array) -> pa.Array:
    """What is measured of a column without nulls: the module's table, second column."""
    if dtype.is_list:
        return pc.list_value_length(column)
    if dtype.item == "string":
        return pc.utf8_length(column)
    if dtype.item == "bytes":
        return pc.binary_length(column)
    if dtype.item == "bool":
        return column.cast(pa.int8())
    return column.cast(pa.int64()) if dtype.item == "timestamp" else column


def sampled_of(dtype: DType, column: pa.Array) -> pa.Array:
    """What is kept of sampled rows, nulls among them: the module's table, third column."""
    if dtype.is_list or dtype.item == "bytes":
        return numbers_of(dtype, column)
    if dtype.item == "string":
        return pc.utf8_slice_codeunits(column, 0, TEXT)
    return column.cast(pa.int64()) if dtype.item == "timestamp" else column


def _is_list(one: FeatureStatistics) -> bool:
    return parse_dtype(one.dtype).is_list


def _time(us: Any) -> str | None:
    return None if us is None else format_timestamp(int(us))


def _or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
