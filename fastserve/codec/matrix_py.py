"""A plan's answer as one matrix of numbers: the readable twin of _ext/matrix.pyx.

    matrix    n x C     float32 or float64, little-endian, row-major; 0 where there is no value
    valid     n x ⌈C/8⌉ bytes; bit c % 8 of byte c // 8 of row i: value (i, c) is there; lowest bit first
    statuses  reads x n bytes: what codec/status.py says of the row that read r found for entity i

The three lie one after the other. The status of a value is its row's; but of a row that is PRESENT a value that is not
there is NULL_VALUE. A default is a value, whatever the row's status.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from fastserve.batch.batch_py import ReadBatch
from fastserve.codec.decoded import DecodedColumn, FieldPlan
from fastserve.codec.rows import RowDecoder
from fastserve.errors import RequestError

_SINGLE: Final = ("float32", "bool")
_DOUBLE: Final = ("float32", "bool", "int32", "float64")


@dataclass(frozen=True, slots=True)
class MatrixShape:
    """The columns of a matrix.

    Attributes:
        dtype: "<f4" where that holds every column's values exactly, else "<f8".
        names: of its columns; an embedding of three is e[0], e[1], e[2].
        fields: for each feature in the order asked: (read, its number there, its first column, how many columns).
    """

    dtype: str
    names: tuple[str, ...]
    fields: tuple[tuple[int, int, int, int], ...]

    @property
    def item_bytes(self) -> int:
        """4 or 8."""
        return int(self.dtype[2])

    @property
    def mask_bytes(self) -> int:
        """Of the bitmap of one row."""
        return (len(self.names) + 7) // 8


def matrix_shape(
    decoders: Sequence[RowDecoder], columns: Sequence[tuple[int, int]], names: Sequence[str]
) -> MatrixShape:
    """The shape of these features, each (read, field number).

    Raises:
        RequestError: a feature's values do not fit a float64 exactly, or are no numbers, or of no fixed number.
    """
    fields = [decoders[read].plan.fields[field] for read, field in columns]
    for name, field in zip(names, fields, strict=True):
        if field.dtype.item not in _DOUBLE or (field.dtype.is_list and not field.dtype.length):
            raise RequestError(
                f"{name!r} is {field.dtype}, which a matrix of floats cannot hold",
                where="accept",
                hint="ask for JSON or Arrow, or leave the feature out",
            )
    dtype = "<f4" if all(field.dtype.item in _SINGLE for field in fields) else "<f8"
    labels: list[str] = []
    placed = []
    for name, field, (read, number) in zip(names, fields, columns, strict=True):
        own = _labels(name, field)
        placed.append((read, number, len(labels), len(own)))
        labels += own
    return MatrixShape(dtype, tuple(labels), tuple(placed))


def _labels(name: str, field: FieldPlan) -> list[str]:
    length = field.dtype.length
    return [name] if length is None else [f"{name}[{i}]" for i in range(length)]


class MatrixDecoder:
    """Makes the matrix of the reads of one plan.

    Args:
        decoders: one per read.
        shape: from `matrix_shape`, of the same decoders.
    """

    def __init__(self, decoders: Sequence[RowDecoder], shape: MatrixShape) -> None:
        self._decoders = decoders
        self.shape = shape

    def decode(self, batch: ReadBatch, n: int, now_us: int, ttls_us: Sequence[int | None]) -> bytes:
        """Matrix, bitmap and statuses of n entities.

        Args:
            batch: n keys and rows for each read, one read after the other.
            ttls_us: one for each read.

        Raises:
            CodecError: a row is corrupt.
        """
        shape = self.shape
        matrix = np.zeros((n, len(shape.names)), shape.dtype)
        valid = np.zeros((n, len(shape.names)), np.bool_)
        reads = [
            decoder.decode_batch(batch, r * n, (r + 1) * n, now_us=now_us, ttl_us=ttls_us[r])
            for r, decoder in enumerate(self._decoders)
        ]
        for read, number, start, count in shape.fields:
            column: DecodedColumn = reads[read].columns[number]
            assert column.values is not None
            values = column.values.reshape(n, count)
            valid[:, start : start + count] = column.valid[:, None]
            matrix[:, start : start + count] = np.where(column.valid[:, None], values, 0)
        masks = np.packbits(valid, axis=1, bitorder="little")
        return b"".join([matrix.tobytes(), masks.tobytes(), *(rows.row_status.tobytes() for rows in reads)])
