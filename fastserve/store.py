"""The SDK facade: the verbs users know, each one call into the part that does it.

It holds no logic of its own, and only the three handles a repo has: config, registry, and (per call) a store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from fastserve.errors import ConfigError
from fastserve.materializing import Materializing, Moment, duration_us, moment_us
from fastserve.registry import ApplyResult, Plan, Registry, Snapshot, open_registry

if TYPE_CHECKING:
    from fastserve.registry import RegisteredView, TrainingDataset
    from fastserve.serving.computing import Computing
    from fastserve.serving.push import PushResult
    from fastserve.serving.sdk import OnlineFeatures
    from fastserve.statistics import ViewStatistics
    from materializer.datasets import Dataset, Report
    from materializer.engine import Engine
    from materializer.served.report import AnswersReport
    from materializer.training import TrainingSet

Features: TypeAlias = FeatureService | str | Sequence[str | FeatureView | FeatureViewProjection]


class FeatureStore(Materializing):
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
        from fastserve.definitions.reach import seal  # noqa: PLC0415
        from fastserve.offline.sources import check_sources  # noqa: PLC0415

        found = self.load() if objects is None else tuple(objects)
        seal(found)
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
            None if start is None else moment_us(start, "start"),
            None if end is None else moment_us(end, "end") + 1,
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
        engine: str | Engine = "local",
        master: str | None = None,
        work: str = "",
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
            engine, master: ``"spark"`` and the URL of its master, to join by tasks on a cluster, each of which may
                hold as much memory. The answer is the same; see docs/spark.md.
            work: path or URL that all its workers see, for what tasks hand on; by default beside the offline tables.
            progress: show a bar on standard error, if that is a terminal.

        Raises:
            RequestError: the spine lacks a column, names would collide, or the memory is too little.
            UnknownObjectError: a view, feature or service is not registered.
            IncompleteHistoryError: labels reach outside what is materialized.
        """
        from materializer.progress import join_bar  # noqa: PLC0415
        from materializer.shards.opening import open_shards  # noqa: PLC0415
        from materializer.training import build_training_set, to_spine  # noqa: PLC0415

        with open_shards(self.config, engine, master, work) as shards, join_bar(progress) as watch:
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
                shards=shards,
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
                engine, master, work, progress.

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
            now_us=None if now is None else moment_us(now, "now"),
            computing=self._computing,
        )

    @cached_property
    def _computing(self) -> Computing:
        """The functions of on-demand views: the repo is imported once for all reads."""
        from fastserve.serving.computing import Computing  # noqa: PLC0415

        return Computing(self.config.repo)

    def verify_answers(  # noqa: PLR0913  (a call names each)
        self,
        features: Features | None = None,
        *,
        service: str | None = None,
        sample: int = 1_000,
        log: str | Path | None = None,
        allow: Sequence[str] = (),
        grace: str = "1h",
        settle: str = "0s",
        seed: int | None = None,
        now: Moment | None = None,
    ) -> AnswersReport:
        """Rebuild online answers from history and compare the bytes of every value; `print(report)`.

        Args:
            features: references and views; or name a registered service. Of neither, all services; not with a log.
            sample: so many entities, drawn at random from history, are asked for now. Of a log: rows, the newest.
            log: the directory of a log of served answers, which are looked at instead; of `service` if it is named.
            allow: kinds of differences that do not count; see docs/verify.md.
            grace: how long after it became known a row need not be online.
            settle: how long history is given before it is read, for events that a stream appends to it later; of a log,
                answers so new are left out.
            seed: draws the same entities again.
            now: the instant to ask for, instead of the wall clock.

        Raises:
            RequestError: an unknown kind or service, or nothing to verify. What has no history that can be read is
                among the report's `errors`.
        """
        from fastserve.verifying import verify_log, verify_now  # noqa: PLC0415

        options: dict[str, Any] = {
            "allow": tuple(allow),
            "grace_us": duration_us(grace, "grace"),
            "settle_us": duration_us(settle, "settle"),
        }
        if log is not None:
            return verify_log(self.config, self.registry, Path(log), service, sample, **options)
        every = service is None and features is None
        services = sorted(self.snapshot.services) if every else [service]
        parts = [(name or "", self._projections(features, name)) for name in services]
        moment = None if now is None else moment_us(now, "now")
        options["computing"] = self._computing
        return verify_now(self.config, self.registry, parts, sample, seed, moment, **options)

    # ---- writing ----------------------------------------------------------------------------

    def push(self, push_source_name: str, df: Any, to: str = "online") -> PushResult:
        """Write rows to every view that a push source feeds; done when they are in all stores asked for.

        Of an event source: send events to its stream; done when they are in its log. See docs/streaming.md.

        Idempotent: a row counts once by (join keys, event time, created time), and online the newest wins.

        Args:
            df: join keys, features, `event_timestamp` and perhaps `created_timestamp`; pandas, polars,
                Arrow, a dict of lists or a list of dicts.
            to: ``online``, ``offline`` or ``online_and_offline``.

        Raises:
            InvalidDataError: a row does not fit, or lies in the future; nothing is written.
            UnknownObjectError: there is no such push source.
            StoreError, OfflineStoreError: a store failed; send it again.
        """
        from fastserve.serving.push import PushResult, views_of  # noqa: PLC0415

        if push_source_name in self.snapshot.event_sources:
            from fastserve.streaming.pushes import push_events  # noqa: PLC0415

            rows, feeds = push_events(self.config, self.snapshot, push_source_name, df)
            return PushResult(tuple(rv.view.name for feed in feeds for rv in feed.views), rows)
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
