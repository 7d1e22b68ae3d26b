"""Rows read lately: the native RowCache, or its readable twin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from fastserve.cache.l1_py import RowCache
else:
    try:
        from fastserve._native.l1 import RowCache
    except ImportError:
        from fastserve.cache.l1_py import RowCache

__all__ = ["RowCache"]
