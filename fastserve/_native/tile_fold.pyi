from fastserve.aggregations.program import Program
from fastserve.aggregations.tile_rows_py import TileCodec
from fastserve.batch import ReadBatch
from fastserve.codec.layout import Layout

class Folder:
    program: Program
    layout: Layout
    codec: TileCodec
    def __init__(self, program: Program, layout: Layout) -> None: ...
    def fold_into(
        self, batch: ReadBatch, start: int, stop: int, out: ReadBatch, at: int, *, now_us: int
    ) -> None: ...
