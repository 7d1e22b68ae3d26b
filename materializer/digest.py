"""A digest of rows that does not depend on how they come in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from fastserve.registry import RegisteredView

PART_ROWS: Final = 16_384
"""Part of the digest: others give others."""


def salt_of(registered: RegisteredView) -> str:
    """What else decides the rows that are written, beside those of the source."""
    return f"layout {registered.layout.layout_id}, ttl {registered.view.ttl_us}"


def rows_digest(batches: Iterable[pa.RecordBatch], salt: str) -> str:
    """Hex digest of rows in their order. Equal rows give equal digests, unless they hide values under nulls.

    Args:
        salt: whatever else decides what becomes of the rows.
    """
    digest = hashlib.blake2b(salt.encode(), digest_size=16)
    for part in _parts(batches):
        fresh = part.take(pa.array(np.arange(part.num_rows)))  # no offsets, nothing of its neighbours
        digest.update(fresh.serialize())
    return digest.hexdigest()


def _parts(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows, PART_ROWS at a time."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        at = 0
        while at < batch.num_rows:
            piece = batch.slice(at, PART_ROWS - count)
            held.append(piece)
            count += piece.num_rows
            at += piece.num_rows
            if count == PART_ROWS:
                yield pa.concat_batches(held)
                held, count = [], 0
    if held:
        yield pa.concat_batches(held)
