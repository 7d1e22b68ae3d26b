"""Decoded answers as a table (fastserve/offline/answers.py), and answers read now to be looked into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from fastserve.codec.status import Status
from fastserve.definitions import FeatureViewProjection
from fastserve.errors import CodecError
from fastserve.offline.answers import (
    CREATED,
    ENTITY,
    EVENT,
    FEATURE,
    STATUS,
    TIME,
    UNREADABLE,
    Answers,
    Asked,
)
from fastserve.registry import Snapshot
from fastserve.serving.compile import compile_plan
from fastserve.serving.computing import Computing
from fastserve.serving.plan import ReadPlan
from fastserve.serving.read_path import FeatureBatch
from fastserve.serving.request_columns import request_arrays
from fastserve.serving.sdk import read_once
from fastserve.timeutil import now_us as wall_clock_us
from fastserve.types import arrow_type, parse_dtype

READ_ROWS: Final = 4_096

_UTC: Final = pa.timestamp("us", "UTC")


def answers_of(
    batch: FeatureBatch, entities: Mapping[str, Sequence[Any]], *, registry_id: str, project: str
) -> Answers:
    """What was answered.

    Args:
        entities: the request's columns, that were checked when it was answered.
    """
    plan, n = batch.plan, batch.n
    columns = _given(plan, entities, n, batch.now_us)
    for c in plan.columns:
        rows = batch.reads[c.read]
        columns[FEATURE + c.name] = rows.columns[c.column].to_arrow()
        columns[STATUS + c.name] = pa.array(rows.statuses[c.column])
    for i, rows in enumerate(batch.reads):
        none = (rows.row_status != Status.PRESENT) & (rows.row_status != Status.OUTSIDE_MAX_AGE)
        for kind, times in ((EVENT, rows.event_ts), (CREATED, rows.created_ts)):
            columns[kind + _read_name(plan, i)] = pa.array(times, mask=none).cast(_UTC)
    return Answers(_asked(plan, registry_id, project), pa.table(columns))


def _given(plan: ReadPlan, entities: Mapping[str, Sequence[Any]], n: int, t: int) -> dict[str, pa.Array]:
    columns = {TIME: pa.array(np.full(n, t)).cast(_UTC)}
    for name, key_type in plan.entity_columns.items():
        columns[ENTITY + name] = pa.array(entities[name], arrow_type(parse_dtype(key_type)))
    given = request_arrays(plan, entities)
    return columns | {ENTITY + name: values for name, values in given.items()}


def _asked(plan: ReadPlan, registry_id: str, project: str) -> Asked:
    return Asked(
        plan.service,
        plan.parts,
        plan.full_feature_names,
        plan.revision,
        plan.fingerprint,
        {c.name: _read_name(plan, c.read) for c in plan.columns},
        registry_id,
        project,
    )


def _read_name(plan: ReadPlan, i: int) -> str:
    read = plan.reads[i]
    return f"{read.view}@v{read.version}/{i}"


def read_now(
    online_store: str,
    snapshot: Snapshot,
    projections: Sequence[FeatureViewProjection],
    entities: Mapping[str, Sequence[Any]],
    *,
    service: str = "",
    now_us: int | None = None,
    computing: Computing,
) -> Iterator[Answers]:
    """What is answered now for these entities, or as of an instant.

    A row that cannot be read is UNREADABLE, and does not take the others with it.

    Raises:
        RequestError, InvalidEntityError, UnknownObjectError: as `read_once`.
        StoreError: the store does not answer.
    """
    n = len(next(iter(entities.values()), [0]))
    # A pinned service has one schema; features of references may have one name in two views.
    named: dict[str, Any] = {"service": service, "full_feature_names": not service}
    waiting = [(at, min(at + READ_ROWS, n)) for at in range(0, n, READ_ROWS)][::-1]
    while waiting:
        start, stop = waiting.pop()
        rows = {name: column[start:stop] for name, column in entities.items()}
        try:
            found = read_once(
                online_store, snapshot, projections, rows, now_us=now_us, computing=computing, **named
            )
        except CodecError:
            if stop - start > 1:
                middle = (start + stop) // 2
                waiting += [(middle, stop), (start, middle)]
                continue
            plan = compile_plan(snapshot, projections, **named).answered
            t = wall_clock_us() if now_us is None else now_us
            yield _unreadable(plan, rows, t, snapshot)
            continue
        yield answers_of(found.batch, rows, registry_id=snapshot.registry_id, project=snapshot.project)


def _unreadable(plan: ReadPlan, entities: Mapping[str, Sequence[Any]], t: int, snapshot: Snapshot) -> Answers:
    """One entity, of which some row is corrupt."""
    columns = _given(plan, entities, 1, t)
    for c in plan.columns:
        columns[FEATURE + c.name] = pa.nulls(1, arrow_type(parse_dtype(c.dtype)))
        columns[STATUS + c.name] = pa.array([UNREADABLE], pa.uint8())
    for i in range(len(plan.reads)):
        for kind in (EVENT, CREATED):
            columns[kind + _read_name(plan, i)] = pa.nulls(1, _UTC)
    return Answers(_asked(plan, snapshot.registry_id, snapshot.project), pa.table(columns))
