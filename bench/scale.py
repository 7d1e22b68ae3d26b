"""Full size, or tiny: with BENCH_SMOKE=1 a bench only shows that it still runs and that its answers are right.

`make bench-smoke` sets it. Loads end after some requests, every system gets one round, and nothing is written.
"""

from __future__ import annotations

import os
from typing import Final, TypeVar

T = TypeVar("T")

SMOKE: Final = os.environ.get("BENCH_SMOKE") == "1"


def scaled(full: T, smoke: T) -> T:
    """The one or the other."""
    return smoke if SMOKE else full


ROUNDS: Final = scaled(5, 1)
