"""Rows read lately: the native RowCache, or its readable twin."""

from __future__ import annotations

from fastserve.cache.l1_py import RowCache

__all__ = ["RowCache"]
