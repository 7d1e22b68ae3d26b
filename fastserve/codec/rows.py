"""Online rows: the native encoder and decoder, or their readable twins where there are none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from fastserve.codec.rows_py import RowDecoder, RowEncoder, crc32c, read_header
else:
    try:
        from fastserve._native.row_encoder import RowEncoder
        from fastserve._native.rows import RowDecoder, crc32c, read_header
    except ImportError:
        from fastserve.codec.rows_py import RowDecoder, RowEncoder, crc32c, read_header

__all__ = ["RowDecoder", "RowEncoder", "crc32c", "read_header"]
