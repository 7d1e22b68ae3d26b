"""Aggregated views of a training set: in memory, or a shard of entities at a time where memory is limited.

Events are dealt out by the hash of their keys then, as tasks of an engine do it (shards/join.py), into files in TMPDIR.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from fastserve.errors import RequestError
from fastserve.offline.events import event_rows
from fastserve.offline.pieces import Piece
from materializer.budget import Need
from materializer.engine.processes import Inline
from materializer.joining import Count, Join, Ranged, RowReader, Rule
from materializer.pit.chunks import Labels, ahead
from materializer.pit.stow import Answers, Spool
from materializer.progress import Watch, unwatched
from materializer.shards.join import Shards, join_sharded
from materializer.shards.plan import Limits
from materializer.windows.join import join_windows


def check_cutoff(joins: Iterable[Join], rule: Rule) -> None:
    """Raise RequestError for windows of which each label has a cutoff of its own."""
    named = [join.rv.view.name for join in joins if join.is_windowed]
    if named and isinstance(rule.cutoff, np.ndarray):
        raise RequestError(
            f"a cutoff for each label is not for aggregated views, and {named[0]!r} is one",
            where="cutoff",
            hint="give one time as cutoff: events known by then count",
        )


def fold_all(
    joins: Sequence[Join],
    rule: Rule,
    history: RowReader,
    memory: tuple[int | None, Need],
    spool: Spool,
    watch: Watch = unwatched,
    threads: int = 1,
) -> Sequence[Ranged]:
    """The answers of each join.

    Args:
        memory: bytes that the process may hold, None for no limit; and what is to be made in them.
        spool: of the other answers; these are held.
        threads: that fold.

    Raises:
        OfflineStoreError: the disk is full.
    """
    limit, need = memory
    if limit is not None and joins:
        shards = Shards(Inline(), tempfile.gettempdir())
        return join_sharded(joins, rule, history, shards, Limits.of(limit, need), watch)
    labels: dict[tuple[Any, ...], Labels] = {}
    made: list[Ranged] = []
    for join in joins:
        if join.same_keys not in labels:
            keys = [join.keys[name] for name in join.rv.join_keys]
            labels[join.same_keys] = Labels(keys, rule.times, list(join.rv.join_keys.values()))
        made.append(_fold(join, labels[join.same_keys], rule, history, spool, (watch, threads)))
    return made


def _fold(
    join: Join, labels: Labels, rule: Rule, history: RowReader, spool: Spool, how: tuple[Watch, int]
) -> Answers:
    rows, features, n = event_rows(join.rv), list(join.features), len(rule.times)
    pieces = history.pieces(rows.rv, rows.columns, rule.times)
    watch, threads = how
    count = Count(watch, join.rv.view.name, sum(piece.n_rows for piece in pieces))
    assert not isinstance(rule.cutoff, np.ndarray)  # check_cutoff
    batches = ahead(_batches(pieces, rows.columns, count))  # decoded while those before are looked at
    values = join_windows(labels, batches, rows, features, cutoff=rule.cutoff, threads=threads)
    count.reach(count.total)
    answers = Answers(join.rv, features, n, spool)
    batch = pa.RecordBatch.from_arrays(list(values.values()), names=features)
    answers.hold(0, np.arange(n), {0: batch}, 1)
    return answers


def _batches(pieces: Sequence[Piece], columns: Sequence[str], count: Count) -> Iterator[pa.RecordBatch]:
    for piece in pieces:
        for batch in piece.rows(columns):
            count.add(batch.num_rows)
            yield batch
