"""The point-in-time kernel: which row each label has, and the rows' values; native, or its readable twin.

    find_rows   labels (key, time) and pieces of rows (key, event time, created time)  ->  places
    gather      places and chunks of a column                                          ->  the labels' values

A place is ``piece << 32 | row in the piece``, or -1: places order as positions in the source do. `find_rows` reads
keys and times alone, once, and keeps nothing of them, so that there may be any number of rows; how it goes about it is
in _ext/asof.pyx (natively) and asof_py.py (numpy). `gather` touches only the rows that won; its chunks are what the
pieces became.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from materializer.pit.asof_py import find_rows
    from materializer.pit.gather_py import gather
else:
    try:
        from materializer.pit.asof_native import find_rows
        from materializer.pit.gather_native import gather
    except ImportError:
        from materializer.pit.asof_py import find_rows
        from materializer.pit.gather_py import gather

__all__ = ["find_rows", "gather"]
