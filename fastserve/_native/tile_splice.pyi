import numpy as np
import numpy.typing as npt

from fastserve.aggregations.program import Program
from fastserve.aggregations.tile_rows_py import TileCodec
from fastserve.batch import ReadBatch

class TileSplicer:
    program: Program
    codec: TileCodec
    def __init__(self, program: Program, layout_id: int) -> None: ...
    def splice_into(
        self,
        out: ReadBatch,
        history: ReadBatch,
        held: ReadBatch,
        *,
        settled_us: npt.NDArray[np.int64],
        created_us: int,
    ) -> None: ...
