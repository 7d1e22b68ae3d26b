from collections.abc import Sequence

class KeyEncoder:
    view_id: int
    key_types: tuple[str, ...]
    prefix: bytes
    def __init__(self, view_id: int, key_types: Sequence[str]) -> None: ...
    def encode(
        self, columns: Sequence[object], n: int, names: Sequence[str] | None = None
    ) -> list[bytes]: ...
    def decode(self, key: bytes) -> tuple[object, ...]: ...
