"""Which views a run is about, and which stores it fills for each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from fastserve.definitions import AggregatedFeatureView, BatchSource, FeatureView, batch_source
from fastserve.errors import RequestError, UnknownObjectError
from fastserve.registry import RegisteredView, Snapshot

Target = Literal["online", "offline"]
TargetOption = Literal["online", "offline", "both"]
_NAME: Final = re.compile(r"([^@\s]+)(?:@v([1-9]\d*))?")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A view of the run.

    Attributes:
        registered: the view.
        source: where its rows are.
        targets: what to fill, `offline` before `online`; never empty.
    """

    registered: RegisteredView
    source: BatchSource
    targets: tuple[Target, ...]

    @property
    def name(self) -> str:
        """How people write it; see name_of."""
        return name_of(self.registered.view)

    @property
    def is_aggregated(self) -> bool:
        """Whether its rows are made of events."""
        return isinstance(self.registered.view, AggregatedFeatureView)

    @property
    def option(self) -> TargetOption:
        """The targets as one word."""
        return "both" if len(self.targets) == 2 else self.targets[0]


def named(snapshot: Snapshot, names: Sequence[str]) -> list[RegisteredView]:
    """The views named, each once, or all, by name and version.

    Raises:
        UnknownObjectError, RequestError: as `choose`.
    """
    if not names:
        return snapshot.stored_views
    found = (stored_view(snapshot, name) for name in names)
    return list({(r.view.name, r.view.version): r for r in found}.values())


def choose(snapshot: Snapshot, names: Sequence[str], target: str | None) -> list[Chosen]:
    """The views named, or all that have a batch source and a store to fill, by name and version.

    Args:
        names: `NAME` for the newest version of a view, `NAME@vN` for another.
        target: `online`, `offline`, `both`; None for what each view declares.

    Raises:
        UnknownObjectError: no such view or version; the hint names the nearest.
        RequestError: a view named has no rows to read, the target is no target, or nothing was ever applied.
    """
    if target is not None and target not in get_args(TargetOption):
        raise RequestError(
            f"unknown target {target!r}", where="--target", hint="one of online, offline, both"
        )
    if not snapshot.views:
        raise RequestError(
            f"no feature view is registered in project {snapshot.project!r}",
            hint="run `fastserve apply` first",
        )
    if not names:
        found = [_chosen(snapshot.views[key], target) for key in sorted(snapshot.views)]
        return [chosen for chosen in found if chosen is not None]
    return [_required(registered, target) for registered in named(snapshot, names)]


def name_of(view: FeatureView) -> str:
    """How people write a view: its name, with `@vN` from version 2 on."""
    return view.name if view.version == 1 else f"{view.name}@v{view.version}"


def find_view(snapshot: Snapshot, text: str) -> RegisteredView:
    """The view that `NAME`, its newest version, or `NAME@vN` means.

    Raises:
        RequestError: it is neither.
        UnknownObjectError: no such view or version; the hint names the nearest.
    """
    match = _NAME.fullmatch(text)
    if match is None:
        raise RequestError(
            f"{text!r} is no view", where="--view", hint="write NAME, or NAME@v2 for a version"
        )
    try:
        return snapshot.view(match[1], int(match[2]) if match[2] else None)
    except UnknownObjectError as error:
        error.where = error.where or "--view"
        raise


def stored_view(snapshot: Snapshot, text: str) -> RegisteredView:
    """`find_view`, of those that have rows.

    Raises:
        RequestError: it has none, or as find_view.
    """
    found = find_view(snapshot, text)
    found.check_stored("--view")
    return found


def is_personal(snapshot: Snapshot, rv: RegisteredView) -> bool:
    """Whether the keys are not for reports: the view or one of its entities is tagged `pii`."""
    entities = [snapshot.entities[name] for name in rv.view.entities if name in snapshot.entities]
    tags = [rv.view.tags, *(entity.tags for entity in entities)]
    return any(one.get("pii", "").lower() not in ("", "false", "no", "0") for one in tags)


def refuse_aggregated(registered: RegisteredView, command: str) -> None:
    """Raise RequestError for an aggregated view, which the command has nothing to do for."""
    if isinstance(registered.view, AggregatedFeatureView):
        raise RequestError(
            f"{command} is not for aggregated views, and {name_of(registered.view)!r} is one",
            where="view",
            hint="`materializer run` makes all its online rows anew from the events",
        )


def _chosen(registered: RegisteredView, target: str | None) -> Chosen | None:
    view = registered.view
    source = batch_source(view.source)
    wanted = {
        "online": view.online if target is None else target in ("online", "both"),
        "offline": view.offline if target is None else target in ("offline", "both"),
    }
    if isinstance(view, AggregatedFeatureView):
        wanted["offline"] = False  # its history is the events'
    order: tuple[Target, ...] = ("offline", "online")
    targets = tuple(name for name in order if wanted[name])
    return Chosen(registered, source, targets) if source is not None and targets else None


def _required(registered: RegisteredView, target: str | None) -> Chosen:
    chosen = _chosen(registered, target)
    if chosen is not None:
        return chosen
    view = registered.view
    if batch_source(view.source) is None:
        raise RequestError(
            f"view {view.name!r} has no batch source, so there is nothing to materialize",
            where="--view",
            hint="give its source a batch_source, or write its rows by pushing them",
        )
    if isinstance(view, AggregatedFeatureView):
        raise RequestError(
            f"view {view.name!r} has no offline table: its history is its events'",
            where="--target",
            hint="run it into the online store",
        )
    raise RequestError(
        f"view {view.name!r} is neither online nor offline",
        where="--view",
        hint="name a store to fill by --target",
    )
