from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.batch import ReadBatch
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
    def encode_into(
        self,
        batch: ReadBatch,
        columns: Sequence[pa.Array],
        event_ts: npt.NDArray[np.int64],
        created_ts: npt.NDArray[np.int64],
    ) -> None: ...
