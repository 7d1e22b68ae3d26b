"""Ranges of events -> values of windows: native, or the readable twin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from materializer.windows.ranges_py import fold_windows, order_by
else:
    try:
        from fastserve._native.window_ranges import fold_windows
        from materializer.windows.order_native import order_by
    except ImportError:
        from materializer.windows.ranges_py import fold_windows, order_by

__all__ = ["fold_windows", "order_by"]
