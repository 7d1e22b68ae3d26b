"""Tasks whose processes are weighed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from bench.peak import resident
from materializer.engine.processes import Processes


class Measured(Processes):
    """One process, which notes in a folder what it held at most, for each kind of task."""

    def __init__(self, folder: Path) -> None:
        super().__init__(1)
        self._folder = folder

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(measured, self._folder, fn, *args, **kwargs)

    def peaks(self) -> dict[str, int]:
        """Kind of task -> bytes."""
        return {path.name: int(path.read_text()) for path in self._folder.iterdir()}


def measured(folder: Path, fn: Callable[..., Any], *args: Any) -> Any:
    made = fn(*args)
    (folder / fn.__name__).write_text(str(resident("VmHWM")))
    return made
