from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Bests = npt.NDArray[np.uint64]

class TimeOrder:
    n: int
    n_codes: int
    n_placed: int
    def __init__(
        self,
        codes: Codes,
        n_codes: int,
        times: Ints,
        bests: Bests,
        *,
        cutoff: int | None = None,
        known: bool = False,
    ) -> None: ...

class Sweep:
    def __init__(self, of: TimeOrder, first: int, stop: int | None = None) -> None: ...
    def rows(self, codes: Codes, event_ts: Ints, created_ts: Ints, place: int) -> int: ...
    def finish(self) -> None: ...
    def inherit(self, before: Sequence[Sweep]) -> None: ...

def winners(
    bests: Bests, times: Ints, out: Ints, start: int, stop: int, *, ttl_us: int | None = None
) -> None: ...
