from collections.abc import Sequence

from fastserve.batch import ReadBatch
from fastserve.codec.rows import RowDecoder

class JsonDecoder:
    def __init__(
        self,
        decoders: Sequence[RowDecoder],
        columns: Sequence[tuple[int, int]],
        names: bytes,
        dtypes: bytes,
        views: Sequence[bytes],
        tail: tuple[bytes, bytes],
    ) -> None: ...
    def decode(
        self,
        batch: ReadBatch,
        n: int,
        now_us: int,
        ttls_us: Sequence[int | None],
        extra: bytes = b"",
    ) -> bytes | None: ...
