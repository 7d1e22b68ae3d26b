"""The registry: what is defined, in every revision, and what has been materialized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from fastserve.definitions import Definition
from fastserve.errors import RegistryConflictError, RegistryError
from fastserve.registry.backfills import Backfills
from fastserve.registry.datasets import (
    TrainingDataset,
    check_pins,
    read_dataset,
    read_datasets,
    write_dataset,
)
from fastserve.registry.engine import Database, open_database
from fastserve.registry.jobs import JobStore
from fastserve.registry.ledger import Ledger
from fastserve.registry.locks import lock_rewrite, lock_sets, lock_view
from fastserve.registry.migrate import ensure_schema
from fastserve.registry.objects import (
    lock_project,
    read_history,
    read_revision,
    read_snapshot,
    write_plan,
)
from fastserve.registry.online_ids import OnlineIds
from fastserve.registry.plan import ApplyResult, Plan, Revision
from fastserve.registry.planner import make_plan
from fastserve.registry.snapshot import Snapshot
from fastserve.registry.upkeep import Upkeep, read_upkeep, remove_before, write_upkeep


def open_registry(url: str, project: str) -> Registry:
    """The registry of a project: ``sqlite:////absolute/path.db`` or ``postgresql://user:password@host/db``.

    A new database gets its tables; one that an older fastserve wrote is migrated.

    Raises:
        ConfigError: the URL is malformed or its driver is not installed.
        RegistryError: unreachable, not writable, no registry, or written by a newer fastserve.
    """
    database = open_database(url)
    try:
        return Registry(database, project, ensure_schema(database))
    except BaseException:
        database.close()
        raise


class Registry(Ledger):
    """One project in a registry database. Safe to share between threads.

    Every method raises RegistryError when the database fails.

    Attributes:
        registry_id: made once per database, never changed.
        project: the name space of the definitions.
        jobs: the project's jobs.
        online_ids: of the project's views.
        backfills: of the project's views.
    """

    def __init__(self, database: Database, project: str, registry_id: str) -> None:
        super().__init__(database, project)
        self.registry_id = registry_id
        self.jobs = JobStore(database, project)
        self.online_ids = OnlineIds(database, project)
        self.backfills = Backfills(database)

    def revision(self) -> int:
        """The project's revision, one cheap SELECT; 0 when nothing was ever applied."""
        with self._database.read() as connection:
            return read_revision(connection, self.project)

    def data_version(self) -> int | None:
        """While it is the same, so is the revision; None where only `revision` can tell."""
        return self._database.data_version()

    def snapshot(self, revision: int | None = None) -> Snapshot:
        """The definitions at a revision, the current one by default.

        Raises:
            RegistryError: no such revision.
        """
        with self._database.read() as connection:
            newest = read_revision(connection, self.project)
            wanted = newest if revision is None else revision
            if not 0 <= wanted <= newest:
                raise RegistryError(
                    f"no revision {wanted}",
                    where=f"project {self.project}",
                    hint=f"revisions go from 0 to {newest}",
                )
            return read_snapshot(connection, self.registry_id, self.project, wanted)

    def plan(self, objects: Sequence[Definition], *, prune: bool = False) -> Plan:
        """What `apply` would do now. Writes nothing.

        Raises:
            DefinitionError: the objects, laid over what is registered, do not hold together.
            BreakingChangeError: a view would change incompatibly under its version.
        """
        plan = make_plan(self.snapshot(), objects, prune=prune)
        with self._database.read() as connection:
            check_pins(connection, plan)
        return plan

    def apply(
        self,
        objects: Sequence[Definition],
        *,
        prune: bool = False,
        author: str = "",
        expect_revision: int | None = None,
    ) -> ApplyResult:
        """Register the objects in one transaction; what is not among them stays, unless pruned.

        The plan is made anew inside the transaction, so that concurrent applies lose nothing of each other.
        Without a change there is no new revision.

        Args:
            prune: retire what is not among the objects.
            author: who, for the history.
            expect_revision: the revision a plan was reviewed at.

        Raises:
            DefinitionError, BreakingChangeError: as `plan`.
            RegistryConflictError: the registry is no longer at `expect_revision`.
        """
        with self._database.write() as connection:
            revision = lock_project(connection, self.project)
            if expect_revision is not None and expect_revision != revision:
                raise RegistryConflictError(
                    f"the registry is at revision {revision}, the plan was made at {expect_revision}",
                    where=f"project {self.project}",
                    hint="somebody applied in between; plan again and apply that",
                )
            before = read_snapshot(connection, self.registry_id, self.project, revision)
            plan = make_plan(before, objects, prune=prune)
            if plan.is_empty:
                return ApplyResult(plan, before)
            check_pins(connection, plan)
            written = write_plan(connection, before, plan, author)
            after = read_snapshot(connection, self.registry_id, self.project, written)
        return ApplyResult(plan, after)

    def history(self, limit: int = 50) -> list[Revision]:
        """The newest revisions, newest first: revision, when, author, summary."""
        with self._database.read() as connection:
            return read_history(connection, self.project, limit)

    def record_training_dataset(self, dataset: TrainingDataset) -> None:
        """Register a data set and its lineage; one that is registered already moves to the new place."""
        with self._database.write() as connection:
            write_dataset(connection, self.project, dataset)

    def training_datasets(self, *, view: str = "", service: str = "") -> list[TrainingDataset]:
        """The project's training data sets, newest first; those made from a view, or for a service."""
        with self._database.read() as connection:
            return read_datasets(connection, self.project, view=view, service=service)

    def training_dataset(self, dataset: str) -> TrainingDataset:
        """A training data set by its id, or the newest one of a name.

        Raises:
            UnknownObjectError: there is none.
        """
        with self._database.read() as connection:
            return read_dataset(connection, self.project, dataset)

    def lock_view(self, view_id: int) -> AbstractContextManager[None]:
        """Hold a view for one run; the lock ends with the process, however that ends.

        Raises:
            AlreadyRunningError: another run holds it; names its process where known.
        """
        return lock_view(self._database, view_id)

    def lock_sets(self, view_id: int) -> AbstractContextManager[None]:
        """Hold the row sets of a view, for a refresh, a rollback or their removal; runs go on meanwhile.

        Raises:
            AlreadyRunningError: as `lock_view`.
        """
        return lock_sets(self._database, view_id)

    def lock_rewrite(self, view_id: int) -> AbstractContextManager[None]:
        """Hold the files of a view's offline table: whoever joins, orders or deletes them does.

        Raises:
            AlreadyRunningError: another process or thread holds them.
        """
        return lock_rewrite(self._database, view_id)

    def upkeep(self, view_id: int) -> Upkeep:
        """What was done to the files of a view's offline table."""
        with self._database.read() as connection:
            return read_upkeep(connection, view_id)

    def note_upkeep(
        self, view_id: int, *, optimized_us: int | None = None, ordered: Mapping[str, int] | None = None
    ) -> None:
        """Change what `upkeep` says; None leaves an attribute as it is. Callers hold `lock_rewrite`."""
        told = {"optimized_us": optimized_us, "ordered": ordered}
        with self._database.write() as connection:
            write_upkeep(
                connection, view_id, **{name: value for name, value in told.items() if value is not None}
            )

    def remove_before(self, view_id: int, before_us: int, retention_us: int) -> None:
        """Note that retention removes a view's rows of earlier event times, in one transaction.

        The view's offline intervals begin there, so that nobody takes those times for covered. Callers hold
        `lock_view`, and remove the rows after this.
        """
        with self._database.write() as connection:
            remove_before(connection, view_id, before_us, retention_us)

    def close(self) -> None:
        """Close the database connections."""
        self._database.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
