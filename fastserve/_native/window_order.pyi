import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

def order_by(codes: Ints, times: Ints, n_codes: int) -> tuple[Ints, Ints, Ints]: ...
