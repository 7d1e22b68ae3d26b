"""A directory that the driver and all workers see: files are written once, under new names, and read in parts."""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import pyarrow as pa
import pyarrow.fs

from fastserve.errors import OfflineStoreError
from fastserve.timeutil import DAY_US, now_us

PREFIX: Final = ".fastserve-work-"
_BUFFER_BYTES: Final = 1 << 20
_LEFT_US: Final = 7 * DAY_US


@dataclass(frozen=True, slots=True)
class WorkDir:
    """The directory, as tasks know it.

    Attributes:
        url: what it lies in: an absolute path, or any URL that Arrow opens.
        folder: its name there.
    """

    url: str
    folder: str

    def create(self, name: str) -> pa.NativeFile:
        """A new file to write to, buffered.

        Raises:
            OfflineStoreError: it cannot be written.
        """
        with self.tended(name):
            filesystem, path = self.opened()
            return pa.BufferedOutputStream(filesystem.open_output_stream(f"{path}/{name}"), _BUFFER_BYTES)

    def read(self, name: str, spans: Sequence[tuple[int, int]]) -> list[pa.Buffer]:
        """Parts of a file.

        Args:
            spans: offset and bytes of each.

        Raises:
            OfflineStoreError: it cannot be read, or is shorter.
        """
        found: list[pa.Buffer] = []
        with self.tended(name):
            filesystem, path = self.opened()
            with filesystem.open_input_file(f"{path}/{name}") as file:
                for offset, size in spans:
                    file.seek(offset)
                    found.append(file.read_buffer(size))
                    if found[-1].size != size:
                        raise OSError("it is shorter than it was written")
        return found

    def delete(self, name: str) -> None:
        """Remove a file; it does not matter if that fails: the whole directory goes at the end."""
        with suppress(OSError, pa.ArrowException):
            filesystem, path = self.opened()
            filesystem.delete_file(f"{path}/{name}")

    def opened(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """The file system and the directory's path in it."""
        filesystem, root = _opened(self.url)
        return filesystem, f"{root.rstrip('/')}/{self.folder}"

    @contextmanager
    def tended(self, name: str = "") -> Iterator[None]:
        """Turn what Arrow and the file system raise into OfflineStoreError naming the file."""
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise OfflineStoreError(
                f"what tasks hand on cannot be written or read: {error}",
                where=f"work directory {self.url}, {self.folder}/{name}",
                hint="the driver and every worker must reach it, and there must be room: name one on shared storage by"
                " --work URL (work=)",
            ) from error


class OwnedDir:
    """A WorkDir of one job, made on the driver; it goes when it is closed or dropped, or the process ends.

    What a killed driver left goes when another is made in the same place, a week later.

    Args:
        url: a path or URL of storage that all workers see; made if it is not there.

    Attributes:
        dir: what tasks are given.

    Raises:
        OfflineStoreError: it cannot be made.
    """

    def __init__(self, url: str) -> None:
        self.dir = WorkDir(url, f"{PREFIX}{uuid.uuid4().hex}")
        with self.dir.tended():
            filesystem, path = self.dir.opened()
            filesystem.create_dir(path, recursive=True)
            _sweep(filesystem, path.rpartition("/")[0])
        self._finalizer = weakref.finalize(self, _remove, self.dir)

    def close(self) -> None:
        """Remove the directory with all that is in it."""
        self._finalizer()


def new_name(kind: str) -> str:
    """A file's name that nobody else takes, also not the same task run twice."""
    return f"{kind}-{uuid.uuid4().hex}.arrow"


def _sweep(filesystem: pyarrow.fs.FileSystem, root: str) -> None:
    oldest = now_us() - _LEFT_US
    for info in filesystem.get_file_info(pyarrow.fs.FileSelector(root)):
        old = info.mtime_ns is not None and info.mtime_ns < oldest * 1_000
        if old and info.base_name.startswith(PREFIX):
            with suppress(OSError):  # somebody else does it
                filesystem.delete_dir(info.path)


def _remove(work: WorkDir) -> None:
    with suppress(OSError, pa.ArrowException):  # what made the job fail may keep us from removing too
        filesystem, path = work.opened()
        filesystem.delete_dir(path)


@lru_cache(maxsize=8)
def _opened(url: str) -> tuple[pyarrow.fs.FileSystem, str]:
    if "://" not in url:
        return pyarrow.fs.LocalFileSystem(), url
    filesystem, root = pyarrow.fs.FileSystem.from_uri(url)
    return filesystem, root
