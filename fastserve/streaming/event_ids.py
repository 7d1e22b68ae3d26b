"""Words of event ids, and which of them came already: native, or the readable twin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from fastserve.streaming.event_ids_py import IdTable, id_hashes
else:
    try:
        from fastserve._native.event_ids import IdTable, id_hashes
    except ImportError:
        from fastserve.streaming.event_ids_py import IdTable, id_hashes

__all__ = ["IdTable", "id_hashes"]
