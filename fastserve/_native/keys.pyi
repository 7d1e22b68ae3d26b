from collections.abc import Sequence

from fastserve.batch import ReadBatch

class KeyEncoder:
    view_id: int
    key_types: tuple[str, ...]
    prefix: bytes
    def __init__(self, view_id: int, key_types: Sequence[str]) -> None: ...
    def encode(
        self, columns: Sequence[object], n: int, names: Sequence[str] | None = None
    ) -> list[bytes]: ...
    def encode_into(
        self, batch: ReadBatch, columns: Sequence[object], n: int, names: Sequence[str] | None = None
    ) -> None: ...
    def decode(self, key: bytes) -> tuple[object, ...]: ...
