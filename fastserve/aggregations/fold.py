"""Tile rows -> rows of values: the native Folder, or its readable twin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from fastserve.aggregations.fold_py import Folder
else:
    try:
        from fastserve._native.tile_fold import Folder
    except ImportError:
        from fastserve.aggregations.fold_py import Folder

__all__ = ["Folder"]
