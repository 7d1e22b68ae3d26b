"""A read on behalf of a request: admitted, read, rendered. Both APIs that read features go through here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from fastserve.api.admission import Admission, Answer, Refuse
from fastserve.api.errors import error_response
from fastserve.api.hits import HitPath
from fastserve.api.shapes import KnownBodies
from fastserve.batch import ReadBatch
from fastserve.errors import FastserveError
from fastserve.http.message import Response
from fastserve.serving.answer_log import AnswerLog
from fastserve.serving.catalog import Catalog
from fastserve.serving.entities import check_columns
from fastserve.serving.plan import ReadPlan
from fastserve.serving.read_path import Finish, Found, ReadPath


class Reader:
    """See the module's docstring.

    Args:
        read_path: the store behind it.
        admission: what may be begun; None for everything.
        log: of some of the answers; None for none.
    """

    def __init__(
        self, read_path: ReadPath, admission: Admission | None = None, log: AnswerLog | None = None
    ) -> None:
        self.read_path = read_path
        self.log = log
        self._admission = admission

    def hit_path(self, bodies: KnownBodies, catalog: Catalog) -> HitPath | None:
        """What answers hits on known bodies; None where there is no cache."""
        cache = self.read_path.cache
        if cache is None or self._admission is None:
            return None
        load, now = self._admission.load, self.read_path.now
        return HitPath(bodies, catalog, self.read_path, cache.rows.get_reads, cache, load, now)

    def read(
        self,
        plan: ReadPlan,
        entities: Mapping[str, Sequence[Any]],
        render: Finish[Response],
        *,
        form: str,
        deadline_us: int | None = None,
        refuse: Refuse = error_response,
        logged: bool = True,
    ) -> Answer:
        """The answer that `render` makes of the rows of these entities.

        Args:
            form: what kind of answer it is, for the estimate of what one costs.
            refuse: how an error in the course of it becomes an answer.
            logged: whether it may be among those that are logged.

        Raises:
            OverloadedError: it was not admitted.
            InvalidEntityError: as ReadPath.read.
        """
        n = check_columns(plan, entities)
        batch = self.read_path.encode(plan, entities, n)
        if logged and self.log is not None and self.log.due():
            render = self.log.noting(render, entities)
        render = plan.finishing(render, entities)
        return self.read_batch(plan, batch, n, render, form=form, deadline_us=deadline_us, refuse=refuse)

    def read_batch(
        self,
        plan: ReadPlan,
        batch: ReadBatch,
        n: int,
        render: Finish[Response],
        *,
        form: str,
        deadline_us: int | None = None,
        refuse: Refuse = error_response,
        looked: bool = False,
    ) -> Answer:
        """The same for keys that are encoded. What the cache knows all of is answered in this call.

        Args:
            looked: the cache was asked just now; what it had is in the batch.
        """
        admission, keys = self._admission, len(batch)
        if admission is None:
            return self._later(plan, batch, n, _safe(render, refuse), deadline_us)()
        kind = admission.kind((id(plan), form), keys)
        if not admission.may_begin(keys):
            if looked:  # what it had may be overwritten until then
                batch.own()
            work = self._later(plan, batch, n, admission.metered(kind, _safe(render, refuse)), deadline_us)
            return admission.run(kind, keys, work, deadline_us or plan.deadline_us, refuse)
        begun = perf_counter()
        try:
            found = self.read_path.at_once(plan, batch, n, looked=looked)
            if found is None:
                finish = admission.metered(kind, _safe(render, refuse))
                fetch = partial(self.read_path.fetch, plan, batch, n, finish, deadline_us)
                return admission.measured(kind, keys, fetch, begun)
            answer = render(found)
        except FastserveError as error:
            answer = refuse(error)
        admission.worked(kind, begun)
        return answer

    def queue(
        self,
        plan: ReadPlan,
        batch: ReadBatch,
        work: Callable[[], Answer],
        form: str,
        deadline_us: int | None,
    ) -> Answer:
        """What `work` answers, in its turn.

        Raises:
            OverloadedError: it was not admitted.
        """
        assert self._admission is not None
        keys = len(batch)
        kind = self._admission.kind((id(plan), form), keys)
        return self._admission.run(kind, keys, work, deadline_us or plan.deadline_us)

    def begin(
        self,
        plan: ReadPlan,
        batch: ReadBatch,
        n: int,
        render: Finish[Response],
        *,
        form: str,
        deadline_us: int | None = None,
        looked: bool = False,
    ) -> Answer:
        """`read_batch` of what is admitted: part of the work that is measured."""
        assert self._admission is not None
        kind = self._admission.kind((id(plan), form), len(batch))
        finish = self._admission.metered(kind, _safe(render, error_response))
        return self._later(plan, batch, n, finish, deadline_us)()

    def _later(
        self,
        plan: ReadPlan,
        batch: ReadBatch,
        n: int,
        finish: Finish[Response],
        deadline_us: int | None,
    ) -> Callable[[], Answer]:
        """The whole read as one piece of work, for the queue."""

        def work() -> Answer:
            found = self.read_path.at_once(plan, batch, n)
            if found is None:
                return self.read_path.fetch(plan, batch, n, finish, deadline_us)
            return finish(found)

        return work


def _safe(render: Finish[Response], refuse: Refuse) -> Finish[Response]:
    """`render`, whose errors are answers too."""

    def rendered(found: Found) -> Response:
        try:
            return render(found)
        except FastserveError as error:
            return refuse(error)

    return rendered
