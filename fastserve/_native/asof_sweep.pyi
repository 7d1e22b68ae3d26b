from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]

class Sweep:
    n_labels: int
    n_codes: int
    n_placed: int
    def __init__(
        self,
        codes: Codes,
        n_codes: int,
        times: Ints,
        first: int,
        stop: int | None = None,
        *,
        cutoff: int | None = None,
        known: bool = False,
    ) -> None: ...
    def rows(self, codes: Codes, event_ts: Ints, created_ts: Ints, place: int) -> int: ...
    def finish(self) -> None: ...
    def inherit(self, before: Sequence[Sweep]) -> None: ...
    def winners(self, out: Ints, *, ttl_us: int | None = None) -> None: ...
    def hand_over(self, bests: npt.NDArray[np.uint64]) -> None: ...
