from typing import Any

import numpy as np
import numpy.typing as npt

class KeyTable:
    text: bool
    n_codes: int
    def __init__(self, text: bool) -> None: ...
    def add(self, array: Any) -> npt.NDArray[np.int32]: ...
    def find(self, array: Any) -> npt.NDArray[np.int32]: ...
