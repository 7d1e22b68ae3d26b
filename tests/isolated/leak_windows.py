"""Events and labels into order, and windows of every kind of state at labels, also what is refused."""

import numpy as np
import pyarrow as pa

from fastserve._native.window_ranges import fold_windows
from materializer.windows.order_native import order_by
from tests.isolated.meter import run
from tests.unit.aggregations.programs import Asked, program_of

NATIVES = ("window_order", "window_ranges")
ASKED = [Asked("var", 0, 90, 10), Asked("min", 0, 90, 10), Asked("last_n", 1, 90, 10)]
PROGRAM = program_of(["float64", "string"], ASKED)
OUTPUTS = list(range(len(ASKED)))
CODES, TIMES = np.array([0, 1, 0, 0, 1] * 3), np.arange(15)[::-1] * 7
COLUMNS = [
    pa.array([1.5, 1e300, -1e-300, None, float("inf")] * 3),
    pa.array(["x" * 99, None, "", "é", "a"] * 3),
]
LABELS = (np.array([0, 2, 3]), np.array([20, 90, 55]))


def once(i: int) -> None:
    starts, order, times = order_by([CODES], [TIMES], 2)
    events = (starts, order + (i % 4 == 3), times, COLUMNS)
    try:
        made = fold_windows(PROGRAM, OUTPUTS, events, LABELS)
    except ValueError:
        assert i % 4 == 3
        return
    assert len(made) == len(OUTPUTS) and len(made[0]) == 3


if __name__ == "__main__":
    run(once)
