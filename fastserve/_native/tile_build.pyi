from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.aggregations.program import Program
from fastserve.aggregations.tile_rows_py import TileCodec
from fastserve.batch import ReadBatch

class TileBuilder:
    program: Program
    codec: TileCodec
    def __init__(self, program: Program, layout_id: int) -> None: ...
    def build_into(
        self,
        out: ReadBatch,
        codes: npt.NDArray[np.int64],
        event_us: npt.NDArray[np.int64],
        columns: Sequence[pa.Array],
        *,
        end_us: int,
        created_us: int,
        base: ReadBatch | None = None,
    ) -> None: ...
