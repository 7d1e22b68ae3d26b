"""The keys of one read and the rows found for them: the native ReadBatch, or its readable twin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from fastserve.batch.batch_py import ReadBatch
else:
    try:
        from fastserve._native.batch import ReadBatch
    except ImportError:
        from fastserve.batch.batch_py import ReadBatch

__all__ = ["ReadBatch"]
