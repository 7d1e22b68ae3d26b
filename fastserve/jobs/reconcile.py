"""What may be asked of a job of kind `reconcile`; materializer/reconcile says what the words mean."""

from __future__ import annotations

from typing import Final

KIND: Final = "reconcile"
SAMPLE: Final = 10_000
MAX_SAMPLE: Final = 1_000_000
DIFFERENCES: Final = ("missing", "late", "newer", "extra", "ttl", "value", "filled", "corrupt")
