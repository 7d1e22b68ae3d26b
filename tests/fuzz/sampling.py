"""Checks that cost more than the thing checked are made for some inputs; always the same ones."""

import os
from zlib import crc32

EVERY_TIME = not os.environ.get("FASTSERVE_FUZZ_TARGET")  # a replayed corpus, not a fuzz run


def sampled(data: bytes, one_of: int) -> bool:
    """Whether this input is one of them."""
    return EVERY_TIME or crc32(data) % one_of == 0
