"""A task that waits for its executor to be killed, around those of a training set."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.spark.tasks import _first, _parent


def held(folder: Path, name: str, fn: Callable[..., Any], *args: Any) -> Any:
    """`fn`; but the first task of that name says which executor does it, once it is done, and waits to be killed."""
    made = fn(*args)
    if fn.__name__ == name and _first(folder / name):
        part = folder / f"{name}-part"
        part.write_text(str(_parent(os.getppid())))  # this process, pyspark's daemon, the executor
        part.rename(folder / f"{name}-executor")
        while True:
            time.sleep(1)
    return made
