"""Entities as small numbers: the point-in-time join's own codes of labels' keys, or their readable twin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from materializer.pit.chunks import Labels

if TYPE_CHECKING or os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
    from materializer.windows.keys_py import Keys
else:
    try:
        from materializer.pit.keys_native import Keys
    except ImportError:
        from materializer.windows.keys_py import Keys


def coded(labels: Labels) -> Keys:
    """The labels' keys as codes; made once for all joins of these labels."""
    if labels.coded is None:
        labels.coded = Keys(labels)
    return labels.coded  # type: ignore[no-any-return]
