"""Events -> tile rows: the native TileBuilder, or its readable twin; and the ReadBatch that goes with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from fastserve.aggregations.build_py import TileBuilder
    from fastserve.batch.batch_py import ReadBatch
else:
    try:
        from fastserve._native.batch import ReadBatch
        from fastserve._native.tile_build import TileBuilder
    except ImportError:
        from fastserve.aggregations.build_py import TileBuilder
        from fastserve.batch.batch_py import ReadBatch

__all__ = ["ReadBatch", "TileBuilder"]
