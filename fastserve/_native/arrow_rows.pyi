from collections.abc import Sequence

from fastserve.batch import ReadBatch
from fastserve.codec.rows import RowDecoder

class ArrowFiller:
    stream: bytes
    def __init__(
        self,
        decoders: Sequence[RowDecoder],
        n: int,
        stream: bytes,
        columns: Sequence[tuple[int, int, int, int, int, int]],
        times: Sequence[tuple[int, int, int]],
    ) -> None: ...
    def fill(self, batch: ReadBatch, now_us: int, ttls_us: Sequence[int | None]) -> bytes: ...
