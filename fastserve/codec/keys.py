"""Online keys: the native encoder, or its readable twin where there is none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from fastserve.codec.keys_py import KeyEncoder
else:
    try:
        from fastserve._native.keys import KeyEncoder
    except ImportError:
        from fastserve.codec.keys_py import KeyEncoder

__all__ = ["KeyEncoder"]
