"""The SDK facade: the verbs users know, each one call into the part that does it.

It holds no logic of its own, and only the three handles a repo has: config, registry, and (per call) a store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fastserve.config import Config
from fastserve.definitions import (
    Definition,
    Entity,
    FeatureService,
    FeatureView,
    FeatureViewProjection,
    merge_refs,
)
from fastserve.errors import ConfigError, RequestError
from fastserve.registry import ApplyResult, Plan, Registry, Snapshot, open_registry
from fastserve.timeutil import now_us, parse_duration, parse_timestamp

if TYPE_CHECKING:
    from fastserve.registry import RegisteredView, TrainingDataset
    from fastserve.serving.push import PushResult
    from fastserve.serving.sdk import OnlineFeatures
    from fastserve.statistics import ViewStatistics
    from materializer.backfill import BackfillSummary
    from materializer.datasets import Dataset, Report
    from materializer.reconcile.report import Report as ReconcileReport
    from materializer.refresh import SetsSummary
    from materializer.run import Summary
    from materializer.training import TrainingSet

Features: TypeAlias = FeatureService | str | Sequence[str | FeatureView | FeatureViewProjection]
Moment: TypeAlias = str | date | int


class FeatureStore:
    """One repo: its definitions, its registry and its stores.

    Args:
        repo_path: directory with a `fastserve.toml`.

    Raises:
        ConfigError: there is no such file, or it is wrong.
    """

    def __init__(self, repo_path: str | Path = ".") -> None:
        self.config = Config.from_repo(repo_path)

    @cached_property
    def registry(self) -> Registry:
        """The repo's registry, connected at first use."""
        return open_registry(self.config.registry, self.config.project)

    def close(self) -> None:
        """Let go of the registry's connections."""
        if "registry" in self.__dict__:
            self.registry.close()
            del self.__dict__["registry"]

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"FeatureStore(project={self.config.project!r}, repo={str(self.config.repo)!r})"

    # ---- definitions ------------------------------------------------------------------------

    def load(self) -> tuple[Definition, ...]:
        """The definitions in the repo's Python files; `plan` and `apply` check them.

        Raises:
            ConfigError: a file cannot be imported, or none declares anything.
        """
        from fastserve.definitions.load import load_repo  # noqa: PLC0415

        return load_repo(self.config.repo)

    def plan(self, objects: Iterable[Definition] | None = None, *, prune: bool = False) -> Plan:
        """What `apply` would change; `str(plan)` is a readable diff."""
        return self.registry.plan(self._checked(objects), prune=prune)

    def apply(
        self, objects: Iterable[Definition] | None = None, *, prune: bool = False, author: str = ""
    ) -> ApplyResult:
        """Register the given definitions, by default those of the repo's files.

        Args:
            prune: also retire registered objects that are not among them.

        Raises:
            DefinitionError: problems, all at once; nothing is written.
            BreakingChangeError: a view changed incompatibly under its version; nothing is written.
        """
        return self.registry.apply(self._checked(objects), prune=prune, author=author)

    def _checked(self, objects: Iterable[Definition] | None) -> Sequence[Definition]:
        from fastserve.offline.sources import check_sources  # noqa: PLC0415

        found = self.load() if objects is None else tuple(objects)
        return check_sources(found, self.registry, self.config)

    # ---- what is registered -----------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        """The registry's newest revision."""
        return self.registry.snapshot()

    def list_entities(self) -> list[Entity]:
        """Registered entities, by name."""
        return [self.snapshot.entities[name] for name in sorted(self.snapshot.entities)]

    def list_feature_views(self) -> list[FeatureView]:
        """Registered feature views, every version, by name and version."""
        views = self.snapshot.views
        return [views[key].view for key in sorted(views)]

    def list_feature_services(self) -> list[FeatureService]:
        """Registered feature services, by name."""
        services = self.snapshot.services
        return [services[name] for name in sorted(services)]

    def get_feature_view(self, name: str, version: int | None = None) -> FeatureView:
        """A registered view; its newest version unless one is given."""
        return self.snapshot.view(name, version).view

    def get_feature_service(self, name: str) -> FeatureService:
        """A registered service."""
        return self.snapshot.service(name)

    def statistics(
        self, view: str, start: Moment | None = None, end: Moment | None = None
    ) -> ViewStatistics | None:
        """What the rows of a view, `name` or `name@v2`, were like; None where no run noted it.

        Args:
            start, end: event times, both inclusive; only runs whose rows all lie between them count.
        """
        from fastserve.serving.push import view_named  # noqa: PLC0415

        return self.registry.statistics(
            view_named(self.snapshot, view).view_id,
            None if start is None else _us(start, "start"),
            None if end is None else _us(end, "end") + 1,
        )

    # ---- training ---------------------------------------------------------------------------

    def get_historical_features(  # noqa: PLR0913  (a call names each)
        self,
        entity_df: Any,
        features: Features | None = None,
        *,
        service: str | None = None,
        full_feature_names: bool = False,
        cutoff: Moment | Literal["label_time"] | None = None,
        timestamp_column: str = "event_timestamp",
        allow_incomplete: bool = False,
        threads: int | None = None,
        memory: int | str | None = None,
        progress: bool = False,
    ) -> TrainingSet:
        """Features as of each row's time: N rows in, N rows out, in their order, label columns untouched.

        Args:
            entity_df: join keys, labels and a timestamp column; pandas, polars or Arrow.
            features: a FeatureService, or a reference, or a list of references and views.
            service: or the name of a registered service.
            cutoff: use only rows known (created) by then; ``"label_time"`` for each row's own time.
            timestamp_column: the column with the time each row asks for.
            allow_incomplete: train although the offline table does not cover all labels.
            threads: that join; None for as many as this process has cores. The answer is the same.
            memory: that this process may hold while it joins, ``"1.5GiB"`` or bytes; what does not fit goes to a
                temporary file, and `batches()` of the answer reads it from there. None for no limit.
            progress: show a bar on standard error, if that is a terminal.

        Raises:
            RequestError: the spine lacks a column, names would collide, or the memory is too little.
            UnknownObjectError: a view, feature or service is not registered.
            IncompleteHistoryError: labels reach outside what is materialized.
        """
        from materializer.progress import join_bar  # noqa: PLC0415
        from materializer.training import build_training_set, to_spine  # noqa: PLC0415

        with join_bar(progress) as watch:
            return build_training_set(
                to_spine(entity_df),
                self.snapshot.resolve(self._projections(features, service)),
                config=self.config,
                registry=self.registry,
                full_feature_names=full_feature_names,
                cutoff=cutoff,
                timestamp_column=timestamp_column,
                allow_incomplete=allow_incomplete,
                threads=threads,
                memory=memory,
                watch=watch,
            )

    def _projections(
        self, features: Features | None, service: str | None
    ) -> tuple[FeatureViewProjection, ...]:
        if (features is None) == (service is None):
            raise ConfigError("name either features or a service", hint="features=[...] or service='name'")
        if service is not None:
            return tuple(self.snapshot.service_parts(service))
        if isinstance(features, FeatureService):
            return features.features
        return merge_refs([features] if isinstance(features, str) else features or ())

    # ---- training data sets -----------------------------------------------------------------

    def create_training_dataset(
        self,
        entity_df: Any,
        name: str,
        features: Features | None = None,
        *,
        service: str | None = None,
        output: str | Path = "",
        **options: Any,
    ) -> Dataset:
        """Make a training set as files with a manifest, and register it with its lineage.

        Args:
            entity_df: as of `get_historical_features`; or the path of a Parquet or CSV file.
            name: of the data set; its id is the name and a hash of all it is made of.
            features: references and views; or name a registered service.
            output: the directory to make; by default one under `.fastserve/training` of the repo.
            options: cutoff, full_feature_names, timestamp_column, allow_incomplete, author, memory, threads,
                progress.

        Raises:
            RequestError: a wrong name, output or option, or as `get_historical_features`; nothing was written.
        """
        from materializer.datasets.opened import make_dataset  # noqa: PLC0415

        parts = () if features is None else self._projections(features, None)
        made = {"name": name, "service": service or "", "features": parts, **options}
        return make_dataset(self.config, self.registry, entity_df, made, output)

    def list_training_datasets(self, *, view: str = "", service: str = "") -> list[TrainingDataset]:
        """Registered training data sets, newest first; those that read a view, or were made for a service."""
        return self.registry.training_datasets(view=view, service=service)

    def get_training_dataset(self, dataset: str | Path) -> Dataset:
        """A training data set by id, name (the newest) or directory; `.to_df()` loads it."""
        from materializer.datasets.opened import open_dataset  # noqa: PLC0415

        return open_dataset(self.config, self.registry, dataset)

    def verify_training_dataset(self, dataset: str | Path) -> Report:
        """Make a data set again and compare the bytes; `print(report)` says what differs."""
        from materializer.datasets.verify import verify  # noqa: PLC0415

        return verify(self.config, self.registry, dataset)

    # ---- serving ----------------------------------------------------------------------------

    def get_online_features(
        self,
        features: Features | None = None,
        entity_rows: Any = (),
        *,
        service: str | None = None,
        full_feature_names: bool = False,
        now: Moment | None = None,
    ) -> OnlineFeatures:
        """The features' values now, read in this process by the same path the server uses.

        Args:
            entity_rows: join key -> values, or one mapping per entity, or a frame with the join keys.
            now: the instant to answer for, instead of the wall clock.
        """
        from fastserve.serving.sdk import read_once  # noqa: PLC0415

        return read_once(
            self.config.online_store,
            self.snapshot,
            self._projections(features, service),
            entity_rows,
            service=service or (features.name if isinstance(features, FeatureService) else ""),
            full_feature_names=full_feature_names,
            now_us=now_us() if now is None else _us(now, "now"),
        )

    # ---- writing ----------------------------------------------------------------------------

    def push(self, push_source_name: str, df: Any, to: str = "online") -> PushResult:
        """Write rows to every view that a push source feeds; done when they are in all stores asked for.

        Idempotent: a row counts once by (join keys, event time, created time), and online the newest wins.

        Args:
            df: join keys, features, `event_timestamp` and perhaps `created_timestamp`; pandas, polars, Arrow
                or a dict of lists.
            to: ``online``, ``offline`` or ``online_and_offline``.

        Raises:
            InvalidDataError: a row does not fit, or lies in the future; nothing is written.
            UnknownObjectError: there is no such push source.
            StoreError, OfflineStoreError: a store failed; send it again.
        """
        from fastserve.serving.push import views_of  # noqa: PLC0415

        return self._push(views_of(self.snapshot, push_source_name), df, to)

    def write_to_online_store(self, view: str, df: Any) -> PushResult:
        """Write rows of one view, `name` or `name@v2`, to the online store; see `push`."""
        return self._push_view(view, df, "online")

    def write_to_offline_store(self, view: str, df: Any) -> PushResult:
        """Write rows of one view, `name` or `name@v2`, to its history; see `push`."""
        return self._push_view(view, df, "offline")

    def _push_view(self, view: str, df: Any, to: str) -> PushResult:
        from fastserve.serving.push import view_named  # noqa: PLC0415

        return self._push([view_named(self.snapshot, view)], df, to)

    def _push(self, views: Sequence[RegisteredView], df: Any, to: str) -> PushResult:
        from fastserve.serving.sdk import push_once  # noqa: PLC0415

        return push_once(self.config, self.registry, views, df, to)

    # ---- materialization --------------------------------------------------------------------

    def materialize(
        self,
        start: Moment | None = None,
        end: Moment | None = None,
        views: Sequence[str] = (),
        *,
        target: str | None = None,
        now: Moment | None = None,
    ) -> Summary:
        """Fill the stores with the rows of [start, end]; see `materializer run`."""
        from materializer.run import materialize  # noqa: PLC0415

        return materialize(
            self.config,
            views=tuple(views),
            start_us=None if start is None else _us(start, "start"),
            end_us=None if end is None else _us(end, "end"),
            target=target,
            now_us=None if now is None else _us(now, "now"),
        )

    def materialize_incremental(
        self, views: Sequence[str] = (), *, target: str | None = None, now: Moment | None = None
    ) -> Summary:
        """Fill the stores with what is new since the last run, late rows and corrections included."""
        from materializer.run import materialize  # noqa: PLC0415

        return materialize(
            self.config,
            views=tuple(views),
            incremental=True,
            target=target,
            now_us=None if now is None else _us(now, "now"),
        )

    def backfill(
        self,
        view: str,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        target: str | None = None,
        workers: int = 1,
        again: bool = False,
        now: Moment | None = None,
    ) -> BackfillSummary:
        """Fill a view's stores with the dates of [start, end] that are not complete; see `materializer backfill`.

        Args:
            start, end: both dates are filled whole; None for the source's first, and for today.
            workers: processes; with more than one, a script calls this under ``if __name__ == "__main__":``.
            again: do dates that are complete again.

        Raises:
            RequestError: an unknown view or target; nothing was changed. What goes wrong after that is the
                summary's `error`.
        """
        from materializer.backfill import BackfillRequest, backfill  # noqa: PLC0415

        request = BackfillRequest(
            view=view,
            start_us=None if start is None else _us(start, "start"),
            end_us=None if end is None else _us(end, "end"),
            target=target,
            workers=workers,
            again=again,
            now_us=None if now is None else _us(now, "now"),
        )
        return backfill(self.config, request)

    def refresh(
        self,
        view: str,
        *,
        keep: str = "1h",
        carry: bool | None = None,
        allow_fewer: bool = False,
        now: Moment | None = None,
    ) -> SetsSummary:
        """Build a view's online rows anew beside those served, and switch to them at once.

        Args:
            keep: how long the rows before are kept for a `rollback`; a minute at least.
            carry: whether rows that only the served set has are taken over; None: of views with a push source.
            allow_fewer: switch even to less than half as many rows.

        Raises:
            RequestError: an unknown view, or its last switch is less than a minute ago; nothing was changed. What goes
                wrong after that is the summary's `error`.
        """
        from materializer.refresh import RefreshRequest, refresh  # noqa: PLC0415

        request = RefreshRequest(
            view=view,
            keep_us=_duration_us(keep, "keep"),
            carry=carry,
            allow_fewer=allow_fewer,
            now_us=None if now is None else _us(now, "now"),
        )
        return refresh(self.config, request)

    def rollback(self, view: str, *, keep: str = "1h") -> SetsSummary:
        """Serve the rows before a view's last refresh again, with every push and run since.

        Args:
            keep: how long those served until now are kept, to take the rollback back.

        Raises:
            RequestError: an unknown view, or there are no rows to go back to.
        """
        from materializer.refresh import rollback  # noqa: PLC0415

        return rollback(self.config, view, keep_us=_duration_us(keep, "keep"))

    def reconcile(
        self,
        views: Sequence[str] = (),
        *,
        sample: int | None = 10_000,
        grace: str = "1h",
        now: Moment | None = None,
        **options: Any,
    ) -> ReconcileReport:
        """Compare online rows with what their history says now; `print(report)`. See `materializer reconcile`.

        Args:
            views: `name` or `name@v2`; none for all that are online and have a history.
            sample: so many keys, drawn at random; None for all, and those that only the online store has.
            grace: how long after its creation a row may be online without being in history.
            options: seed, repair, prune, ignore (kinds of differences).

        Raises:
            RequestError: an unknown view, or options that make no sense.
            StoreError: an embedded online store cannot be opened.
        """
        from materializer.reconcile.request import Request  # noqa: PLC0415
        from materializer.reconcile.run import reconcile  # noqa: PLC0415

        options |= {"views": tuple(views), "ignore": tuple(options.get("ignore", ()))}
        options |= {
            "grace_us": _duration_us(grace, "grace"),
            "now_us": None if now is None else _us(now, "now"),
        }
        return reconcile(self.config, Request(sample=sample, **options))


def _duration_us(text: str, argument: str) -> int:
    try:
        return parse_duration(text)
    except (ValueError, OverflowError) as error:
        raise RequestError(str(error), where=argument) from None


def _us(moment: Moment, argument: str) -> int:
    """Microseconds of a time given as an argument.

    Raises:
        RequestError: it is no time; names the argument.
    """
    try:
        return parse_timestamp(moment)
    except ValueError as error:
        raise RequestError(str(error), where=argument) from None
