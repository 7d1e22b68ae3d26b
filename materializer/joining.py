"""Features joined to labels in memory that does not grow with the rows: views one after another, some labels at a time.

For each view the keys and times of its rows are read once, then the features of the rows that some label has. What was
found is kept as it is; where that would be too much, it is stowed away as the values of its labels. At last the values
are put together in the labels' order, a range at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from fastserve.definitions import AggregatedFeatureView
from fastserve.offline.events import what_is_read
from fastserve.offline.pieces import Piece
from fastserve.offline.schema import feature_types
from fastserve.types import arrow_type
from materializer.budget import Budget
from materializer.pit.asof import find_rows
from materializer.pit.chunks import NONE, Ints, Labels
from materializer.pit.join import row_chunks
from materializer.pit.stow import RANGE_ROWS, Answers, Spool
from materializer.pit.winners import read_winners
from materializer.progress import Watch, unwatched

if TYPE_CHECKING:
    from fastserve.registry import RegisteredView


class RowReader(Protocol):
    """Where the rows of views come from."""

    def pieces(self, rv: RegisteredView, columns: Sequence[str], times: Ints) -> Sequence[Piece]:
        """As `History.pieces`."""


class Ranged(Protocol):
    """The values of one view for n labels, some labels at a time; stow.py and shards/answers.py have them."""

    rv: RegisteredView

    def of_range(self, start: int, stop: int, threads: int | None = None) -> dict[str, pa.ChunkedArray]:
        """Feature -> the values of labels start … stop - 1."""


@dataclass(slots=True)
class Count:
    """Rows of a view that have been read, for those who watch."""

    watch: Watch
    view: str
    total: int
    done: int = 0

    def add(self, rows: int) -> None:
        self.reach(self.done + rows)

    def reach(self, done: int) -> None:
        self.done = done
        self.watch(self.view, done, self.total)


@dataclass(slots=True)
class Join:
    """What is joined in one go: one view on one mapping of join keys, however often it is asked for."""

    rv: RegisteredView
    keys: dict[str, pa.Array]
    same_keys: tuple[Any, ...]
    features: dict[str, None] = field(default_factory=dict)

    @property
    def is_windowed(self) -> bool:
        """Whether its values are folded from events, rather than those of one row."""
        return isinstance(self.rv.view, AggregatedFeatureView)

    def reads(self) -> tuple[RegisteredView, list[str]]:
        """Whose rows are read for it, and which columns of them."""
        return what_is_read(self.rv, list(self.features))


@dataclass(frozen=True, slots=True)
class Rule:
    """What decides which row a label has, beside its view.

    Attributes:
        times: of the labels, microseconds UTC, [n].
        cutoff: see `asof_indices`.
    """

    times: Ints
    cutoff: int | Ints | None

    def of(self, first: int, stop: int) -> Rule:
        """For some of the labels."""
        times, cutoff = self.times[first:stop], self.cutoff
        if isinstance(cutoff, np.ndarray):
            return Rule(times, times if cutoff is self.times else cutoff[first:stop])
        return Rule(times, cutoff)


class Joined(Mapping[str, pa.ChunkedArray]):
    """The features of n labels by output name: all at once, kept from then on, or a range of labels at a time."""

    def __init__(self, n: int, names: Mapping[str, tuple[Ranged, str]], spool: Spool, threads: int) -> None:
        self.n = n
        self._names = dict(names)
        self._spool = spool
        self._threads = threads
        self._whole: dict[str, pa.ChunkedArray] | None = None

    @property
    def spooled_bytes(self) -> int:
        """Bytes that went to disk."""
        return self._spool.nbytes

    def fields(self) -> dict[str, pa.DataType]:
        """Output name -> type."""
        return {
            name: arrow_type(feature_types(of.rv, [feature])[feature])
            for name, (of, feature) in self._names.items()
        }

    def ranges(self) -> Iterator[dict[str, pa.ChunkedArray]]:
        """Output name -> values, RANGE_ROWS labels at a time."""
        for start in range(0, self.n, RANGE_ROWS):
            yield self._of(start, min(start + RANGE_ROWS, self.n))

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        if name not in self._names:
            raise KeyError(name)
        if self._whole is None:
            self._whole = self._load()
        return self._whole[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _load(self) -> dict[str, pa.ChunkedArray]:
        if not self._spool.nbytes:
            return self._of(0, self.n)
        chunks: dict[str, list[pa.Array]] = {name: [] for name in self._names}
        for made in self.ranges():
            for name, values in made.items():
                chunks[name] += values.chunks
        return {name: pa.chunked_array(chunks[name], kind) for name, kind in self.fields().items()}

    def _of(self, start: int, stop: int) -> dict[str, pa.ChunkedArray]:
        answers = {id(of): of for of, _ in self._names.values()}
        made = {key: of.of_range(start, stop, self._threads) for key, of in answers.items()}
        return {name: made[id(of)][feature] for name, (of, feature) in self._names.items()}


def join_all(
    joins: Sequence[Join],
    rule: Rule,
    history: RowReader,
    budget: Budget,
    spool: Spool,
    watch: Watch = unwatched,
) -> list[Answers]:
    """The answers of each join."""
    n = len(rule.times)
    answers = [Answers(join.rv, list(join.features), n, spool) for join in joins]
    # Listed once, so that all labels see the same rows, whoever writes meanwhile.
    pieces = [history.pieces(join.rv, list(join.features), rule.times) for join in joins]
    parts = -(-n // budget.labels)
    counts = [
        Count(watch, join.rv.view.name, 2 * parts * sum(piece.n_rows for piece in read))
        for join, read in zip(joins, pieces, strict=True)
    ]
    origins = [_origin(join, read) for join, read in zip(joins, pieces, strict=True)]
    for first in range(0, n, budget.labels):
        stop = min(first + budget.labels, n)
        shared = _Shared(origins)
        labels: dict[
            tuple[Any, ...], Labels
        ] = {}  # one for all views with the same keys: they are looked at once
        for join, origin, made, read, count in zip(joins, origins, answers, pieces, counts, strict=True):
            if join.same_keys not in labels:
                keys = [join.keys[name][first:stop] for name in join.rv.join_keys]
                labels[join.same_keys] = Labels(
                    keys, rule.times[first:stop], list(join.rv.join_keys.values())
                )
            mine, done = labels[join.same_keys], count.done + sum(piece.n_rows for piece in read)
            find = partial(_rows, join, mine, rule.of(first, stop), read, budget, count)
            places = shared.places(origin, find)
            count.reach(max(done, count.done))
            _join(join, places, read, budget, made, first, count)
    return answers


class _Shared:
    """Rows of labels that are the same for several views, found for the first and kept until the last has them."""

    def __init__(self, origins: Iterable[Hashable | None]) -> None:
        self._left = Counter(origin for origin in origins if origin is not None)
        self._places: dict[Hashable, Ints] = {}

    def places(self, origin: Hashable | None, find: Callable[[], Ints]) -> Ints:
        """A view's own, to be changed as it likes."""
        if origin is None:
            return find()
        self._left[origin] -= 1
        found = self._places.pop(origin) if origin in self._places else find()
        if self._left[origin]:
            self._places[origin] = found.copy()
        return found


def _origin(join: Join, pieces: Sequence[Piece]) -> Hashable | None:
    """What decides which rows labels have: joins of one origin have the same. None: no other has."""
    origins = tuple(piece.origin for piece in pieces)
    return None if None in origins else (join.same_keys, join.rv.view.ttl_us, origins)


def _rows(
    join: Join, labels: Labels, rule: Rule, pieces: Sequence[Piece], budget: Budget, count: Count
) -> Ints:
    """The row of each label."""
    return find_rows(
        labels,
        [row_chunks(piece.keys(), join.rv) for piece in pieces],
        ttl_us=join.rv.view.ttl_us,
        cutoff=rule.cutoff,
        threads=budget.threads,
        group_rows=budget.group_rows,
        seen=count.add,
    )


def _join(
    join: Join,
    places: Ints,
    pieces: Sequence[Piece],
    budget: Budget,
    made: Answers,
    first: int,
    count: Count,
) -> None:
    """The values of one view for the labels first …, whose rows are at places."""
    rv, features = join.rv, list(join.features)
    done = count.done + sum(piece.n_rows for piece in pieces)

    def stow(found: dict[int, pa.RecordBatch], of: Ints) -> None:
        made.stow(first, places, found, of)
        places[of] = NONE

    found = read_winners(
        places,
        pieces,
        rv,
        features,
        threads=budget.threads,
        most_bytes=budget.found_bytes,
        full=stow,
        seen=count.add,
    )
    count.reach(done)  # of pieces without a row for any label too
    if len(places) < made.n and found:  # other labels come after these
        stow(found, np.flatnonzero(places >= 0))
    elif found:
        made.hold(first, places, found, len(pieces))
