"""A read on behalf of a request: admitted, read, rendered. Both APIs that read features go through here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastserve.api.admission import Admission, Answer, Refuse
from fastserve.api.errors import error_response
from fastserve.errors import FastserveError
from fastserve.http.message import Response
from fastserve.serving.plan import ReadPlan
from fastserve.serving.read_path import Finish, Found, ReadPath


class Reader:
    """See the module's docstring.

    Args:
        read_path: the store behind it.
        admission: what may be begun; None for everything.
    """

    def __init__(self, read_path: ReadPath, admission: Admission | None = None) -> None:
        self.read_path = read_path
        self._admission = admission

    def read(
        self,
        plan: ReadPlan,
        entities: Mapping[str, Sequence[Any]],
        render: Finish[Response],
        *,
        form: str,
        deadline_us: int | None = None,
        refuse: Refuse = error_response,
    ) -> Answer:
        """The answer that `render` makes of the rows.

        Args:
            form: what kind of answer it is, for the estimate of what one costs.
            refuse: how an error in the course of it becomes an answer.

        Raises:
            OverloadedError: it was not admitted.
            InvalidEntityError: as ReadPath.read; or through `refuse`, where the request was queued.
        """

        def rendered(found: Found) -> Response:
            try:
                return render(found)
            except FastserveError as error:
                return refuse(error)

        if self._admission is None:
            return self.read_path.read(plan, entities, rendered, deadline_us=deadline_us)
        keys = len(plan.reads) * max(map(len, entities.values()), default=1)
        kind = self._admission.kind((id(plan), form), keys)

        finish = self._admission.metered(kind, rendered)
        return self._admission.run(
            kind,
            keys,
            lambda: self.read_path.read(plan, entities, finish, deadline_us=deadline_us),
            deadline_us or plan.deadline_us,
            refuse,
        )
