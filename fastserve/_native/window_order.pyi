import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]

class Ordering:
    n: int
    n_codes: int
    n_parts: int
    starts: Ints
    placed: Ints

    def __init__(self, n: int, n_codes: int) -> None: ...
    def count(self, codes: Codes) -> Ints: ...
    def scatter(self, codes: Codes, times: Ints, first: int, to: Ints) -> None: ...
    def settle(self, part: int, first: int, stop: int) -> None: ...
