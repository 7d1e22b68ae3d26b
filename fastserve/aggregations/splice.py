"""Two tile rows of an entity into one: the native TileSplicer, or its readable twin; and its ReadBatch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from fastserve.aggregations.splice_py import TileSplicer
    from fastserve.batch.batch_py import ReadBatch
else:
    try:
        from fastserve._native.batch import ReadBatch
        from fastserve._native.tile_splice import TileSplicer
    except ImportError:
        from fastserve.aggregations.splice_py import TileSplicer
        from fastserve.batch.batch_py import ReadBatch

__all__ = ["ReadBatch", "TileSplicer"]
