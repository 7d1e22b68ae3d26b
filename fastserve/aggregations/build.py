"""Events -> tile rows: the native TileBuilder, or its readable twin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from fastserve.aggregations.build_py import TileBuilder
else:
    try:
        from fastserve._native.tile_build import TileBuilder
    except ImportError:
        from fastserve.aggregations.build_py import TileBuilder

__all__ = ["TileBuilder"]
