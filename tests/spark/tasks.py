"""Tasks for the tests of engines: functions that a worker's process can import."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastserve.errors import InvalidDataError
from materializer.engine import inside


def squared(n: int) -> int:
    return n * n


def fails(n: int) -> None:
    raise InvalidDataError(f"task {n} is bad", where="column 'a'", hint="mend it")


def divides(n: int) -> float:
    return 1 / n


class _Odd(Exception):
    """An error that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("odd one")
        self.hook = lambda: None


def fails_oddly(n: int) -> None:
    raise _Odd


def kept_by(folder: Path, key: str) -> Path:
    """Makes a file for what it keeps, and renames it when that is left."""

    @contextmanager
    def make() -> Iterator[Path]:
        made = folder / f"{key}-{len(list(folder.iterdir()))}"
        made.touch()
        yield made
        made.rename(f"{made}-left")

    return inside.keep(key, make)


def waits_for_stop(begun: Path) -> None:
    """Says that it has begun, and who does it; ends only when it is asked to stop, or killed."""
    begun.write_text(str(os.getpid()))
    while True:
        inside.stop().check()
        time.sleep(0.005)


def killed_once(folder: Path, n: int) -> int:
    """The process that first does task 2 dies."""
    if n == 2 and _first(folder / "killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def killed_always(n: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return n


def held_once(folder: Path, n: int) -> int:
    """Task 2, when it is done first, says which executor does it, and waits to be killed with it."""
    if n == 2 and _first(folder / "held"):
        part = folder / "part"
        part.write_text(str(_parent(os.getppid())))  # this process, pyspark's daemon, the executor
        part.rename(folder / "executor")
        while True:
            time.sleep(1)
    return n


def _first(path: Path) -> bool:
    """Whether nobody has made this file before."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
