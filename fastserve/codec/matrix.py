"""A plan's answer as one matrix: the native decoder, or its readable twin where there is none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastserve.codec.matrix_py import MatrixShape, matrix_shape

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from fastserve.codec.matrix_py import MatrixDecoder
else:
    try:
        from fastserve._native.matrix import MatrixDecoder
    except ImportError:
        from fastserve.codec.matrix_py import MatrixDecoder

__all__ = ["MatrixDecoder", "MatrixShape", "matrix_shape"]
