"""What must be known of sources before they are registered, beside the rules of definitions/validate.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastserve.config import Config
from fastserve.definitions import Definition, FeatureView, SQLSource, batch_source
from fastserve.definitions.validate import find_problems

if TYPE_CHECKING:
    from fastserve.registry import Registry


def check_sources(objects: Sequence[Definition], registry: Registry, config: Config) -> Sequence[Definition]:
    """The objects, whose queries are sound; the rest is left to `Registry.plan` and `apply`, which come next.

    Raises:
        DefinitionError: a query is not sound; all problems of all queries.
        ConfigError: there are queries, and no DuckDB.
    """
    views = [o for o in objects if isinstance(o, FeatureView)]
    queries = [v for v in views if isinstance(batch_source(v.source), SQLSource)]
    if not queries:
        return objects
    current = registry.snapshot()
    if any(find_problems([*current.entities.values(), *(o for o in objects if isinstance(o, Definition))])):
        return objects  # said in full by the plan; a query of a wrong definition need not be looked at
    from fastserve.offline.sql.check import check_queries  # noqa: PLC0415  (most repos have no queries)

    check_queries(objects, current, config)
    return objects
