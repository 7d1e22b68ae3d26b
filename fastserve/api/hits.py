"""All of a hit in one call: the native HitPath, or its readable twin where there is none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastserve.api.hits_py import CHEAP_US, FIRST_GUESS_US, GAIN, LOOK_US, SLICE_US, Missed

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from fastserve.api.hits_py import HitPath, Kind, Lane, Load
else:
    try:
        from fastserve._native.hits import HitPath, Kind, Lane, Load
    except ImportError:
        from fastserve.api.hits_py import HitPath, Kind, Lane, Load

__all__ = [
    "CHEAP_US",
    "FIRST_GUESS_US",
    "GAIN",
    "LOOK_US",
    "SLICE_US",
    "HitPath",
    "Kind",
    "Lane",
    "Load",
    "Missed",
]
