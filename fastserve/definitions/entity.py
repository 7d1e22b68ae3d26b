"""Entities: the things features are about, named by one or more join keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fastserve.definitions.freeze import freeze, frozen_tags, names_of
from fastserve.display import html_table
from fastserve.types import DType, String


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A thing features describe: a user, a carrier, a route from one airport to another.

    Args:
        name: the entity's name.
        join_keys: the columns that identify it; default one column of the entity's own name.
        dtype: the type of every join key (``"string"``, ``"int64"``, ``"bool"``, ``"bytes"``), or one
            type per join key.
        description, tags, owner: for people; they change nothing that is computed.
    """

    name: str
    join_keys: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    owner: str = ""

    def __init__(
        self,
        name: str,
        join_keys: Sequence[str] | str | None = None,
        dtype: DType | str | Sequence[DType | str] = String,
        *,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str = "",
    ) -> None:
        keys = names_of(join_keys) or (name,)
        if isinstance(dtype, (str, DType)):
            dtypes = (str(dtype),) * len(keys)
        else:
            dtypes = tuple(str(d) for d in dtype)
        freeze(
            self,
            name=name,
            join_keys=keys,
            dtypes=dtypes,
            description=description,
            tags=frozen_tags(tags),
            owner=owner,
        )

    def _repr_html_(self) -> str:
        rows = zip(self.join_keys, self.dtypes, strict=False)
        return html_table(f"Entity {self.name}", ("join key", "type"), rows, self.description)
