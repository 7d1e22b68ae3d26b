from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.codec.decoded import DecodedRows, DecodePlan
from fastserve.codec.layout import Layout

class RowEncoder:
    layout: Layout
    def __init__(self, layout: Layout) -> None: ...
    def encode(
        self,
        keys: Sequence[bytes],
        columns: Sequence[pa.Array],
        event_ts: npt.NDArray[np.int64],
        created_ts: npt.NDArray[np.int64],
    ) -> list[bytes]: ...

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

def crc32c(data: bytes, crc: int = 0) -> int: ...
def crc32c_portable(data: bytes, crc: int = 0) -> int: ...
def read_header(row: bytes) -> tuple[int, int, int]: ...
