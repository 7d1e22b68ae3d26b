import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]

class LabelTimes:
    n: int
    n_codes: int
    n_placed: int
    def __init__(
        self,
        codes: Codes,
        n_codes: int,
        times: Ints,
        *,
        ttl_us: int | None = None,
        cutoff: int | None = None,
        known: bool = False,
    ) -> None: ...
    def parts(self, count: int) -> list[Part]: ...

class Rows:
    def __init__(self, of: LabelTimes) -> None: ...
    def fill(self, codes: Codes, event_ts: Ints, created_ts: Ints, place: int) -> None: ...

class Part:
    def __init__(self, of: LabelTimes, number: int, first: int, stop: int) -> None: ...
    def __len__(self) -> int: ...
    def sort(self) -> None: ...
    def scan(self, rows: Rows) -> None: ...
    def winners(self, out: Ints) -> None: ...
