"""What may be asked of jobs that materialize or backfill, checked as far as the registry can before they are queued."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from fastserve.definitions import batch_source
from fastserve.errors import RequestError, UnknownObjectError
from fastserve.registry import Job, RegisteredView, Snapshot

KIND: Final = "materialize"
BACKFILL: Final = "backfill"
_VIEW: Final = re.compile(r"([^@\s]+)(?:@v([1-9][0-9]{0,8}))?")


def find_view(snapshot: Snapshot, text: str, where: str) -> RegisteredView:
    """The view that `name` or `name@v2` means.

    Raises:
        RequestError: it is neither.
        UnknownObjectError: no such view or version.
    """
    match = _VIEW.fullmatch(text)
    if match is None:
        raise RequestError(
            f"{text[:200]!r} is no view", where=where, hint="write name, or name@v2 for a version"
        )
    try:
        return snapshot.view(match[1], int(match[2]) if match[2] else None)
    except UnknownObjectError as error:
        error.where = where
        raise


def materialize_args(
    snapshot: Snapshot,
    views: Sequence[str],
    *,
    start_us: int | None = None,
    end_us: int | None = None,
    incremental: bool = False,
    target: str | None = None,
    where: str = "$",
) -> dict[str, Any]:
    """The job's arguments.

    Args:
        views: `name` or `name@v2`; none for all.
        start_us, end_us: event times, both inclusive; None for all there is, and for the present.
        where: the place of the views in the request, for errors.

    Raises:
        UnknownObjectError: a view that is not registered.
        RequestError: a view without files, none at all, a start after the end, or an incremental run with a start.
    """
    for name in views:
        registered = find_view(snapshot, name, where)
        registered.check_stored(where)
        if batch_source(registered.view.source) is None:
            raise RequestError(
                f"view {name!r} has no batch source, so there is nothing to materialize",
                where=where,
                hint="give its source a batch_source, or write its rows by pushing them",
            )
    if not snapshot.views:
        raise RequestError("no feature view is registered", where=where, hint="apply some first")
    if start_us is not None and end_us is not None and start_us > end_us:
        raise RequestError("start is after end", where="start", hint="swap them")
    if incremental and start_us is not None:
        raise RequestError(
            "start and incremental exclude each other",
            where="start",
            hint="an incremental run starts where the last one ended; drop one of the two",
        )
    args = {"views": list(views), "start_us": start_us, "end_us": end_us}
    return args | {"incremental": incremental, "target": target}


def backfill_args(
    snapshot: Snapshot,
    view: str,
    *,
    start_us: int | None = None,
    end_us: int | None = None,
    target: str | None = None,
    workers: int = 1,
    again: bool = False,
    where: str = "path",
) -> dict[str, Any]:
    """The arguments of a job of kind `backfill`; raises as `materialize_args`."""
    checked = materialize_args(snapshot, [view], start_us=start_us, end_us=end_us, target=target, where=where)
    window = {name: checked[name] for name in ("start_us", "end_us", "target")}
    return {"view": view, **window, "workers": workers, "again": again}


def views_of(snapshot: Snapshot, names: Sequence[str]) -> set[int]:
    """The ids of the views named; of all that have files when none is. Unknown ones are left out."""
    if not names:
        found = [r for r in snapshot.views.values() if batch_source(r.view.source) is not None]
        return {registered.view_id for registered in found}
    ids = set()
    for name in names:
        try:
            ids.add(find_view(snapshot, name, "").view_id)
        except RequestError:  # retired since
            continue
    return ids


def overlapping(snapshot: Snapshot, names: Sequence[str], jobs: Sequence[Job]) -> set[int]:
    """Which of the views named some materializing job is about."""
    busy = {view_id for job in jobs for names_of in _names(job) for view_id in views_of(snapshot, names_of)}
    return views_of(snapshot, names) & busy


def _names(job: Job) -> list[Sequence[str]]:
    """The views that a job materializes, as it was asked: one list, or none if it is of another kind."""
    if job.kind == BACKFILL:
        return [[job.args["view"]]]
    return [job.args["views"]] if job.kind == KIND else []
