"""The keys of one read and the rows found for them: the native ReadBatch and KeySet, or their readable twins."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from fastserve.batch.batch_py import ReadBatch
    from fastserve.batch.key_set_py import KeySet
else:
    try:
        from fastserve._native.batch import ReadBatch
        from fastserve._native.key_set import KeySet
    except ImportError:
        from fastserve.batch.batch_py import ReadBatch
        from fastserve.batch.key_set_py import KeySet

__all__ = ["KeySet", "ReadBatch"]
