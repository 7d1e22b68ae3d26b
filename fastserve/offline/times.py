"""The times that a query or a transform is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from fastserve.definitions import BatchSource, PostgresInput, SQLSource, TransformSource
from fastserve.definitions.source import RUN_TIMES
from fastserve.offline.options import ReadOptions
from fastserve.offline.window import Window
from fastserve.timeutil import MAX_US, MIN_US, now_us

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_AS_OF: Final = re.compile(r"\$as_of\b|fastserve\.as_of\b")


def uses_as_of(source: BatchSource) -> bool:
    """Whether the answer may depend on the present."""
    if isinstance(source, TransformSource) and "as_of" in source.arguments:
        return True
    texts = [source.query] if isinstance(source, SQLSource) else []
    if isinstance(source, (SQLSource, TransformSource)):
        texts += [given.query for given in source.inputs.values() if isinstance(given, PostgresInput)]
    return any(_AS_OF.search(text) for text in texts)


def run_times(
    source: SQLSource | TransformSource, named: Sequence[str], window: Window, options: ReadOptions
) -> dict[str, datetime]:
    """The times of a run: ``start`` <= event time < ``end``, or created after ``created_after``.

    A bound that does not bind is the first or the last microsecond there is. A query that does not look at
    ``created_after`` must not miss late rows because of ``start``: it is told a start from which on they all are.
    """
    start = MIN_US if window.start_us is None else window.start_us
    late = window.created_after_us
    if window.start_us is None or late is None:
        late = MAX_US
    elif "created_after" not in named:
        # Without a created column a row is created at its event time: later than `late`, then.
        start = MIN_US if source.created_timestamp_column else min(start, late + 1)
    times = {
        "start": start,
        "end": MAX_US if window.end_us is None else window.end_us,
        "created_after": late,
        "as_of": now_us() if options.as_of_us is None else options.as_of_us,
    }
    return {name: moment(times[name]) for name in RUN_TIMES}


def moment(us: int) -> datetime:
    """Microseconds UTC as an aware time, within the years 1 to 9999."""
    return _EPOCH + timedelta(microseconds=min(max(us, MIN_US), MAX_US))
