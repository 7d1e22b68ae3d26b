from collections.abc import Sequence

from fastserve.batch import ReadBatch
from fastserve.codec.matrix_py import MatrixShape
from fastserve.codec.rows import RowDecoder

class MatrixDecoder:
    shape: MatrixShape
    def __init__(self, decoders: Sequence[RowDecoder], shape: MatrixShape) -> None: ...
    def decode(self, batch: ReadBatch, n: int, now_us: int, ttls_us: Sequence[int | None]) -> bytes: ...
