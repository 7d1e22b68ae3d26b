"""Which function does a kind of job: kind -> ``module:function``, resolved in the job's process only.

A string, because the function may live where this layer must not look (the materializer). Its signature:

    def function(context: JobContext, args: Mapping[str, Any]) -> Mapping[str, Any]: ...

`args` and the result are JSON objects. It raises a FastserveError to fail, and JobStopped when it stopped because
`context.stopping` said so.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from fastserve.errors import ConfigError, RequestError
from fastserve.jobs.context import JobContext

Function: TypeAlias = Callable[[JobContext, Mapping[str, Any]], Mapping[str, Any]]

KINDS: Final[dict[str, str]] = {
    "backfill": "materializer.jobs:backfill",
    "materialize": "materializer.jobs:materialize",
    "reconcile": "materializer.jobs:reconcile",
    "refresh": "materializer.jobs:refresh",
    "rollback": "materializer.jobs:rollback",
    "training_dataset": "materializer.datasets:run_job",
}


def function_of(kind: str) -> Function:
    """The function of a kind.

    Raises:
        RequestError: no such kind.
        ConfigError: its function cannot be imported here.
    """
    target = KINDS.get(kind)
    if target is None:
        raise RequestError(f"unknown kind of job {kind!r}", hint=f"kinds: {', '.join(KINDS)}")
    module, _, name = target.partition(":")
    try:
        found: Function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"jobs of kind {kind!r} cannot run here: {error}",
            where=target,
            hint="install the package that holds it, the same release as this fastserve",
        ) from None
    return found
