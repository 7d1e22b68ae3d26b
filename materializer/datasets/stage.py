"""A directory that appears whole or not at all: filled beside its place, then renamed into it."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from fastserve.errors import RequestError

PREFIX: Final = ".fastserve-part-"


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """An empty directory in `parent`, removed at the end unless it was moved away.

    It is locked while its process lives: what killed processes left behind is known by that, and removed here.

    Raises:
        RequestError: the directory cannot be written to.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _locked(parent, fcntl.LOCK_EX):  # between making and locking, nobody sweeps
            _sweep(parent)
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise RequestError(f"cannot be written to: {error.strerror}", where=str(parent)) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)


def _sweep(parent: Path) -> None:
    for left in parent.glob(f"{PREFIX}*"):
        with suppress(OSError), _locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(left, ignore_errors=True)


def publish(folder: Path, target: Path) -> bool:
    """Move the directory to its place, durably; False when something is there already."""
    for path in (*folder.iterdir(), folder):
        _sync(path)
    folder.chmod(0o755)
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise RequestError(f"cannot be written: {error.strerror}", where=str(target)) from None
    _sync(target.parent)
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
