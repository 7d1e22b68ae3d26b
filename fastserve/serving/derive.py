"""From the rows of the store to the rows that are answered, where the two are not the same.

    store's rows   read 0, n rows | read 1, n rows | …             one batch, in whoever's memory
    folds          one aggregated view each: its tile rows folded into rows of values, as of the answer's instant
    steps          one on-demand view each: inputs decoded, its function called once on all n, its features encoded
    answer's rows  a read as it lies, or folded | a step's rows | …   another batch, of ordinary rows

Renderers see the answer's batch, and the plan of the answer, and know nothing of what was computed. A row that the
store did not tell of, or that was to be computed from one, stays UNKNOWN, and so do a failed function's rows. A cache
keeps the store's rows, so the values of windows go on with time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastserve.aggregations.fold import Folder
from fastserve.batch import ReadBatch
from fastserve.codec.keys import KeyEncoder
from fastserve.codec.rows import RowDecoder, RowEncoder
from fastserve.codec.status import Status
from fastserve.on_demand.columns import Bools, Column, of_arrow, of_decoded
from fastserve.serving.computing import Computed
from fastserve.serving.plan import ReadPlan
from fastserve.serving.read_path import Finish, Found
from fastserve.serving.request_columns import request_columns
from fastserve.types import DType

T = TypeVar("T")

_UNAVAILABLE: Final = int(Status.UNAVAILABLE)


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Inputs that are read from the store: features of read number `read`, and what the inputs are called."""

    read: int
    rows: RowDecoder
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One on-demand view.

    Attributes:
        run: its function.
        stored: inputs from the store.
        computed: inputs from earlier steps: (number of the step, its feature, the feature's type, input).
        request: inputs from the request: (column, input).
        keys, rows: make its rows.
    """

    run: Computed
    stored: tuple[Stored, ...]
    computed: tuple[tuple[int, str, DType, str], ...]
    request: tuple[tuple[str, str], ...]
    keys: KeyEncoder
    rows: RowEncoder


@dataclass(slots=True, eq=False)
class _Made:
    """What became of a step.

    Attributes:
        columns: its features; None where nothing could be computed.
        unknown: rows that were to be computed from rows that are not known; None for none of them.
    """

    columns: dict[str, pa.Array] | None
    unknown: Bools | None


@dataclass(frozen=True, slots=True, eq=False)
class Derivation:
    """See the module's docstring.

    Attributes:
        plan: of the answer; its reads are what `parts` names.
        parts: (is it a step?, its number: of a step, or of a read from the store) for each read of the answer.
        folds: (number of a read from the store, what folds its rows).
        steps: in an order in which each comes after what it needs.
    """

    plan: ReadPlan
    parts: tuple[tuple[bool, int], ...]
    folds: tuple[tuple[int, Folder], ...]
    steps: tuple[Step, ...]

    def finishing(self, finish: Finish[T], entities: Mapping[str, Sequence[Any]]) -> Finish[T]:
        """`finish` of the derived rows.

        Args:
            entities: the request's columns, checked by check_columns.

        Raises:
            InvalidEntityError: a value does not fit the type of its column.
        """
        request = request_columns(self.plan, entities)
        return lambda found: finish(self.derive(found, request))

    def hit(self, answer: Callable[[ReadBatch, int, int], T | None], plan: ReadPlan) -> Any:
        """`answer` of the derived rows, for a plan without request columns; None where some are not known."""

        def derived(batch: ReadBatch, n: int, now_us: int) -> T | None:
            found = self.derive(Found(plan, n, batch, now_us), {})
            return None if found.unavailable else answer(found.rows, n, now_us)

        return derived

    def derive(self, found: Found, request: Mapping[str, Column]) -> Found:
        """The rows that are answered; those of `found` must stay where they are meanwhile.

        Raises:
            CodecError: a row is corrupt.
        """
        n, why = found.n, found.unavailable
        at = np.full(n, found.now_us, np.int64)
        folded = {read: _folded(folder, found, read * n) for read, folder in self.folds}
        made: list[_Made] = []
        for step in self.steps:
            one, reason = self._computed(step, found, folded, request, made, at)
            made.append(one)
            why = why or reason
        batch = ReadBatch()
        for is_step, number in self.parts:
            if is_step:
                batch.take(_encoded(self.steps[number], made[number], at), 0, n)
            elif number in folded:
                batch.take(folded[number], 0, n)
            else:
                batch.take(found.rows, number * n, (number + 1) * n)
        return Found(self.plan, n, batch, found.now_us, why if batch.missing else "", found.stale)

    def _computed(
        self,
        step: Step,
        found: Found,
        folded: Mapping[int, ReadBatch],
        request: Mapping[str, Column],
        made: Sequence[_Made],
        at: npt.NDArray[np.int64],
    ) -> tuple[_Made, str]:
        """A step, and why it could not be computed."""
        inputs = {name: request[column] for column, name in step.request}
        unknown: Bools | None = None
        for stored in step.stored:
            batch = folded.get(stored.read, found.rows)
            start = stored.read * found.n if batch is found.rows else 0
            ttl_us = found.plan.reads[stored.read].ttl_us
            rows = stored.rows.decode_batch(batch, start, start + found.n, now_us=found.now_us, ttl_us=ttl_us)
            if found.rows.missing:
                unknown = _either(unknown, rows.row_status == _UNAVAILABLE)
            inputs |= {name: of_decoded(c) for name, c in zip(stored.names, rows.columns, strict=True)}
        for number, feature, dtype, name in step.computed:
            earlier = made[number]
            if earlier.columns is None:
                return earlier, ""
            unknown = _either(unknown, earlier.unknown)
            inputs[name] = of_arrow(earlier.columns[feature], dtype)
        if unknown is not None and unknown.all():
            return _Made(None, None), ""
        columns = step.run(inputs, at)
        return (_Made(None, None), columns) if isinstance(columns, str) else (_Made(columns, unknown), "")


def _folded(folder: Folder, found: Found, start: int) -> ReadBatch:
    """The tile rows of a read as rows of values."""
    batch = ReadBatch()
    batch.take(found.rows, start, start + found.n)
    folder.fold_into(found.rows, start, start + found.n, batch, 0, now_us=found.now_us)
    return batch


def _encoded(step: Step, made: _Made, at: npt.NDArray[np.int64]) -> ReadBatch:
    """The step's rows, as rows of the view that hold from now on."""
    batch = ReadBatch()
    step.keys.encode_into(batch, [], len(at))
    if made.columns is not None:
        step.rows.encode_into(batch, list(made.columns.values()), at, at)
        if made.unknown is not None:
            batch.forget(np.flatnonzero(made.unknown).tolist())
    return batch


def _either(one: Bools | None, other: Bools | None) -> Bools | None:
    return other if one is None else one if other is None else one | other
