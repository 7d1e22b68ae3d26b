"""The entity columns of a request: are they the plan's, all there, all of one length?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastserve.errors import InvalidEntityError, UnknownObjectError
from fastserve.serving.plan import ReadPlan, ViewRead


def check_columns(plan: ReadPlan, entities: Mapping[str, Sequence[Any]]) -> int:
    """The number of entities asked for.

    A request without entity columns asks for one row, which only entity-less views can answer.

    Raises:
        InvalidEntityError: a column is missing or columns differ in length.
        UnknownObjectError: a column belongs to none of the features asked for.
    """
    for name in plan.needed:
        if name not in entities:
            raise missing_column(name, plan)
    for name in entities:
        if name not in plan.needed:
            raise unknown_column(name, plan)
    lengths = {name: len(column) for name, column in entities.items()}
    n = next(iter(lengths.values()), 1)
    for name, length in lengths.items():
        if length != n:
            first = next(iter(lengths))
            raise InvalidEntityError(
                f"has {length} values, but {first!r} has {n}",
                where=f"$.entities.{name}",
                hint="give every entity column one value per entity",
            )
    return n


def missing_column(name: str, plan: ReadPlan, where: str = "$.entities") -> InvalidEntityError:
    """The error for a column that the features need and the request lacks."""
    hint = f"these features need {_listed(plan.needed)}"
    kind = "entity" if name in plan.entity_columns else "request"
    return InvalidEntityError(f"{kind} column {name!r} is missing", where=where, hint=hint)


def unknown_column(name: str, plan: ReadPlan, where: str = "$.entities") -> UnknownObjectError:
    """The error for a column that none of the features needs."""
    if plan.needed:
        return UnknownObjectError.of("entity column", name, plan.needed, where=where)
    return UnknownObjectError(
        f"unknown entity column {name!r}",
        where=where,
        hint="these features belong to no entity: leave it out",
    )


def key_columns(read: ViewRead, entities: Mapping[str, Sequence[Any]]) -> list[Sequence[Any]]:
    """The request's columns in the canonical order of this view's key."""
    return [entities[name] for name in read.key_columns]


def _listed(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({dtype})" for name, dtype in columns.items())
