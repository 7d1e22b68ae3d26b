from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastserve.aggregations.program import Program

Ints = npt.NDArray[np.int64]

def fold_windows(
    program: Program,
    outputs: Sequence[int],
    events: tuple[Ints, Ints, Ints, Sequence[Any]],
    labels: tuple[Ints, Ints],
) -> list[Any]: ...
