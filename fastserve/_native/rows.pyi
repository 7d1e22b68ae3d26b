from collections.abc import Mapping, Sequence

from fastserve.batch import ReadBatch
from fastserve.codec.decoded import DecodedRows, DecodePlan
from fastserve.codec.layout import Layout

class RowDecoder:
    plan: DecodePlan
    def __init__(
        self, layouts: Mapping[int, Layout], names: Sequence[str], defaults: Mapping[str, object]
    ) -> None: ...
    def unavailable(self, n: int) -> DecodedRows: ...
    def decode(
        self,
        keys: Sequence[bytes],
        rows: Sequence[bytes | None],
        *,
        now_us: int,
        ttl_us: int | None,
    ) -> DecodedRows: ...
    def decode_batch(
        self, batch: ReadBatch, start: int, stop: int, *, now_us: int, ttl_us: int | None
    ) -> DecodedRows: ...

def crc32c(data: bytes, crc: int = 0) -> int: ...
def crc32c_portable(data: bytes, crc: int = 0) -> int: ...
def read_header(row: bytes) -> tuple[int, int, int]: ...
