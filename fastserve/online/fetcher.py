"""The hot reads of Redis: the native Fetcher, or its readable twin where there is none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from fastserve.online.fetcher_py import Fetcher
else:
    try:
        from fastserve._native.resp import Fetcher
    except ImportError:
        from fastserve.online.fetcher_py import Fetcher

__all__ = ["Fetcher"]
