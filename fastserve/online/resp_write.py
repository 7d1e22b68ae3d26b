"""The bytes of Redis writes: the native encoder and reader, or their readable twins where there are none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from fastserve.online.resp_write_py import (
        Replies,
        encode_command,
        encode_fresh,
        encode_publish,
        encode_script,
        rows_end,
    )
else:
    try:
        from fastserve._native.resp_write import (
            Replies,
            encode_command,
            encode_fresh,
            encode_publish,
            encode_script,
            rows_end,
        )
    except ImportError:
        from fastserve.online.resp_write_py import (
            Replies,
            encode_command,
            encode_fresh,
            encode_publish,
            encode_script,
            rows_end,
        )

__all__ = ["Replies", "encode_command", "encode_fresh", "encode_publish", "encode_script", "rows_end"]
