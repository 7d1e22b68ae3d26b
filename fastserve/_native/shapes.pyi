from collections.abc import Sequence
from typing import Generic, TypeVar

from fastserve.batch import ReadBatch

T = TypeVar("T")

class ShapeTable(Generic[T]):
    def __init__(self) -> None: ...
    def __len__(self) -> int: ...
    def skeleton(self, body: bytes) -> bytes | None: ...
    def add(
        self,
        skeleton: bytes,
        key_types: Sequence[str],
        reads: Sequence[tuple[bytes, Sequence[int]]],
        known: T,
    ) -> None: ...
    def forget(self, skeleton: bytes) -> None: ...
    def match(self, body: bytes) -> tuple[T, ReadBatch, int] | None: ...
