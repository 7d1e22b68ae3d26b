"""Answers of JSON, value by value: what the renderers, which write whole blocks, have to equal to the byte."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import orjson

from fastserve.types import DType

DUMP = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z


def rfc3339(moment: datetime, digits: str) -> str:
    """A time with 0, 3 or 6 digits of a second ("feast"), or 0 or 6 ("native")."""
    whole, us = moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0"), moment.microsecond
    if not us:
        return f"{whole}Z"
    return f"{whole}.{us // 1000:03}Z" if digits == "feast" and us % 1000 == 0 else f"{whole}.{us:06}Z"


def feast_value(value: Any, kind: DType, *, item: bool = False) -> Any:
    """In the form of Feast's server."""
    if isinstance(value, list):
        return [feast_value(one, kind, item=True) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return named(value) if item or not math.isnan(value) else None
    if isinstance(value, datetime):  # in whole numbers: a float would round
        return (value - datetime(1970, 1, 1, tzinfo=value.tzinfo)) // timedelta(seconds=1)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def native_value(value: Any, kind: DType) -> Any:
    """In the form of types.SCALARS."""
    if isinstance(value, list):
        return [native_value(one, kind) for one in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return named(value)
        return np.float32(value) if kind.item == "float32" else value
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def named(value: float) -> str:
    """A float that JSON has no form of."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def feast_answer(
    keys: dict[str, list[Any]],
    columns: dict[str, tuple[DType, Sequence[Any]]],
    statuses: dict[str, list[str]],
    times: Sequence[datetime],
) -> bytes:
    """`POST /get-online-features` of one view."""
    results: list[dict[str, Any]] = []
    for values in keys.values():
        epochs = ["1970-01-01T00:00:00Z"] * len(values)
        results.append({"values": values, "statuses": ["PRESENT"] * len(values), "event_timestamps": epochs})
    stamps = [rfc3339(moment, "feast") for moment in times]
    for name, (kind, given) in columns.items():
        shown = [feast_value(value, kind) for value in given]
        results.append({"values": shown, "statuses": statuses[name], "event_timestamps": stamps})
    answer = {"results": results, "metadata": {"feature_names": [*keys, *columns]}}
    return orjson.dumps(answer, option=DUMP)


def native_values(columns: dict[str, tuple[DType, Sequence[Any]]]) -> bytes:
    """The member `values` of `POST /online-features/batch`."""
    return orjson.dumps(
        [[native_value(value, kind) for value in given] for kind, given in columns.values()], option=DUMP
    )
