"""A log of served answers, sampled: what `fastserve verify --log` rebuilds from history.

    event loop    every 1/rate-th answer, at random gaps: decoded, and put into a queue that is bounded
    a thread      answers of one shape together ──► a Parquet file each 10 s, or 50,000 rows, whole or not at all
                  the oldest files go where all are more than is kept

The loop never waits: what does not fit into the queue is dropped and counted. A worker that is killed loses what was
not written yet. Files are for their owner alone (0600, a new directory 0700): they hold keys and values.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import random
import re
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow as pa

from fastserve.errors import ConfigError, FastserveError
from fastserve.offline.answers import SUFFIX, Answers, write_answers
from fastserve.serving.answers import answers_of
from fastserve.serving.read_path import FeatureBatch, Finish, Found, decode_columns

log = logging.getLogger(__name__)

T = TypeVar("T")

RATE: Final = 0.001
KEEP_MB: Final = 256
QUEUED: Final = 256  # answers
FILE_ROWS: Final = 50_000
EVERY_S: Final = 10.0
LEFT_OVER_S: Final = 3_600.0  # a file that was begun so long ago is of a worker that was killed
QUIET_S: Final = 60.0
OURS: Final = re.compile(rf"[0-9]{{8}}T[0-9]{{6}}\.[0-9]{{6}}-[0-9]+-[0-9]+{re.escape(SUFFIX)}")
PART: Final = re.compile(rf"\.{OURS.pattern}\.part")

Noted = tuple[FeatureBatch, Mapping[str, Sequence[Any]]]


@dataclass(frozen=True, slots=True)
class AnswerLogSettings:
    """`[answer_log]` of fastserve.toml; options of `fastserve serve` go before it.

    Attributes:
        folder: where files go.
        rate: the share of answers that are logged, up to 1.
        keep_mb: what all files together may take.
    """

    folder: Path
    rate: float = RATE
    keep_mb: int = KEEP_MB

    @classmethod
    def of(
        cls, table: Mapping[str, Any], repo: Path, folder: str = "", rate: float | None = None
    ) -> AnswerLogSettings | None:
        """The settings; None where nothing is to be logged.

        Args:
            table: of fastserve.toml; its `dir` is relative to the repo.
            folder, rate: of the command line.

        Raises:
            ConfigError: an unknown setting, or a value that none can have.
        """
        where = "fastserve.toml [answer_log]"
        for name in table:
            if name not in ("dir", "rate", "keep_mb"):
                raise ConfigError(f"unknown setting {name!r}", where=where, hint="one of dir, rate, keep_mb")
        named = table.get("dir", "")
        if not isinstance(named, str):
            raise ConfigError(f"dir is a text, not {named!r}", where=where)
        share = table.get("rate", RATE) if rate is None else rate
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise ConfigError(f"rate is more than 0 and at most 1, not {share!r}", where=where)
        keep = table.get("keep_mb", KEEP_MB)
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise ConfigError(f"keep_mb is a whole number from 1, not {keep!r}", where=where)
        if not folder and not named:
            if table or rate is not None:
                raise ConfigError(
                    "no directory is named for the log of answers",
                    where=where,
                    hint="dir, or --log-answers DIR",
                )
            return None
        return cls(Path(folder).resolve() if folder else repo / named, float(share), keep)


class AnswerLog:
    """See the module's docstring. For one worker; `due` and `noting` are for its event loop.

    Args:
        settings: where, and how much.
        registry_id, project: whose answers they are.

    Raises:
        ConfigError: the directory cannot be made or written to.
    """

    def __init__(self, settings: AnswerLogSettings, *, registry_id: str, project: str) -> None:
        self._folder = settings.folder
        self._keep_bytes = settings.keep_mb << 20
        self._of = {"registry_id": registry_id, "project": project}
        self._skip_log = math.log1p(-settings.rate) if settings.rate < 1 else 0.0
        self._skips = self._gap()
        self._queue: queue.Queue[Noted | None] = queue.Queue(QUEUED)
        self._thread: threading.Thread | None = None
        self._waiting: dict[str, list[Answers]] = {}
        self._waiting_rows = 0
        self._since = 0.0
        self._files = 0
        self._told_s = -QUIET_S
        self._counts = dict.fromkeys(("answers", "rows", "dropped", "stale", "failed", "files", "bytes"), 0)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the log of answers cannot be kept there: {error.strerror}", where=str(self._folder)
            ) from None
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise ConfigError("the log of answers cannot be written there", where=str(self._folder))

    # ---- on the event loop -------------------------------------------------------------------------

    def due(self) -> bool:
        """Whether this answer is one to be logged."""
        self._skips -= 1
        if self._skips >= 0:
            return False
        self._skips = self._gap()
        return True

    def _gap(self) -> int:
        """How many answers to pass over: random, so that nothing regular is always or never among those logged."""
        return int(math.log(1.0 - random.random()) / self._skip_log) if self._skip_log else 0

    def noting(self, finish: Finish[T], entities: Mapping[str, Sequence[Any]]) -> Finish[T]:
        """`finish`, whose answer is logged.

        Args:
            entities: the request's columns.
        """

        def noted(found: Found) -> T:
            made = finish(found)
            self._note(found, entities)
            return made

        return noted

    def _note(self, found: Found, entities: Mapping[str, Sequence[Any]]) -> None:
        if found.stale:  # flagged in the answer; history says nothing of it
            self._counts["stale"] += 1
            return
        try:
            self._queue.put_nowait((decode_columns(found), entities))
        except queue.Full:
            self._counts["dropped"] += 1
            return
        except FastserveError as error:
            self._failed(error)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="answer log", daemon=True)
            self._thread.start()

    def counters(self) -> Mapping[str, float]:
        """For /metrics."""
        return dict(self._counts)

    def close(self) -> None:
        """Write what is waiting. Blocking, for what a file takes."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    # ---- in the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            wait_s = max(self._since + EVERY_S - time.monotonic(), 0) if self._waiting else None
            try:
                noted = self._queue.get(timeout=wait_s)
            except queue.Empty:
                self._flush()
                continue
            if noted is None:
                self._flush()
                return
            self._take(*noted)
            if self._waiting_rows >= FILE_ROWS or time.monotonic() >= self._since + EVERY_S:
                self._flush()

    def _take(self, batch: FeatureBatch, entities: Mapping[str, Sequence[Any]]) -> None:
        try:
            made = answers_of(batch, entities, **self._of)
        except (FastserveError, pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            self._failed(error)
            return
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.setdefault(made.asked.to_json(), []).append(made)
        self._waiting_rows += len(made)
        self._counts["answers"] += 1
        self._counts["rows"] += len(made)

    def _flush(self) -> None:
        waiting, self._waiting, self._waiting_rows = self._waiting, {}, 0
        try:
            for same in waiting.values():
                table = pa.concat_tables([some.table for some in same])
                self._counts["bytes"] += write_answers(Answers(same[0].asked, table), self._next_file())
                self._counts["files"] += 1
            self._remove_oldest()
        except (OSError, pa.ArrowException) as error:
            self._failed(error)

    def _next_file(self) -> Path:
        """Names sort by time."""
        self._files += 1
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        return self._folder / f"{now}-{os.getpid()}-{self._files}{SUFFIX}"

    def _remove_oldest(self) -> None:
        """Of the files of logs, no others. Other workers do so too."""
        files = []
        for path in sorted(self._folder.iterdir()):
            with suppress(FileNotFoundError):
                about = path.stat()
                if OURS.fullmatch(path.name):
                    files.append((path, about.st_size))
                elif PART.fullmatch(path.name) and time.time() - about.st_mtime > LEFT_OVER_S:
                    path.unlink()
        over = sum(size for _, size in files) - self._keep_bytes
        for path, size in files:
            if over <= 0:
                return
            path.unlink(missing_ok=True)
            over -= size

    def _failed(self, error: Exception) -> None:
        self._counts["failed"] += 1
        if time.monotonic() - self._told_s >= QUIET_S:
            self._told_s = time.monotonic()
            log.warning("answers are not logged: %s", error)
