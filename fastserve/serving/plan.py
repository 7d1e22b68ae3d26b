"""What a ReadPlan says: how to answer one request shape at one registry revision. compile.py makes it.

Data: a plan holds one ViewRead for each distinct (view version, join columns) that the store is asked for and one
OutputColumn for each feature asked for, in the order asked; a column points at (read, column of that read). Where
something is computed from the rows (derive.py) columns point into the reads of another plan: that of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fastserve.codec.keys import KeyEncoder
from fastserve.codec.rows import RowDecoder
from fastserve.definitions import FeatureViewProjection

if TYPE_CHECKING:
    from fastserve.serving.derive import Derivation
    from fastserve.serving.read_path import Finish

T = TypeVar("T")

DEFAULT_MAX_STALENESS_US: Final = 60_000_000


@dataclass(frozen=True, slots=True)
class ViewRead:
    """One row per entity of one view version, keyed by some columns of the request.

    Attributes:
        view, version: what is read.
        key_columns: request columns in the key's canonical order; empty for an entity-less view.
        key_types: their types.
        ttl_us: how long a row holds, or None for ever.
        max_staleness_us: how long a cached row may be answered; None for the default.
        names: features decoded, in the decoder's order.
        computed: its rows are made for each request, by an on-demand view's function.
    """

    view: str
    version: int
    key_columns: tuple[str, ...]
    key_types: tuple[str, ...]
    ttl_us: int | None
    max_staleness_us: int | None
    names: tuple[str, ...]
    keys: KeyEncoder
    rows: RowDecoder
    computed: bool = False


@dataclass(frozen=True, slots=True)
class OutputColumn:
    """One answered feature: its output name, declared type, and where its values come from."""

    name: str
    dtype: str
    read: int
    column: int


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How to answer one request shape at one registry revision.

    Attributes:
        service: the service's name, or '' for a list of references.
        revision: the registry revision it was compiled from.
        columns: what is answered, in order; into `answered.reads`.
        reads: what is read from the store.
        entity_columns: request columns needed as keys -> key type.
        deadline_us: the service's; None without one.
        request_columns: request columns needed as values, by on-demand views -> type.
        derivation: what is made of the rows before they are answered; None where they are answered as they are.
        needed: both kinds of columns, which is what a request gives, no more and no less -> type.
        max_ages_us: how old a cached row of each read may be; 0 for never cached.
        fingerprint: 16 hex digits that change when a name, type, view version or the order changes.
        parts: what was asked for, with the versions that are read.
        full_feature_names: how features are named.
    """

    service: str
    revision: int
    columns: tuple[OutputColumn, ...]
    reads: tuple[ViewRead, ...]
    entity_columns: Mapping[str, str]
    fingerprint: str
    deadline_us: int | None = None
    request_columns: Mapping[str, str] = field(default_factory=dict)
    derivation: Derivation | None = None
    parts: tuple[FeatureViewProjection, ...] = ()
    full_feature_names: bool = False
    needed: Mapping[str, str] = field(init=False)
    max_ages_us: tuple[int, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        allowed = [read.max_staleness_us for read in self.reads]
        ages = tuple(DEFAULT_MAX_STALENESS_US if age is None else age for age in allowed)
        object.__setattr__(self, "max_ages_us", ages)
        object.__setattr__(self, "needed", {**self.entity_columns, **self.request_columns})

    @property
    def answered(self) -> ReadPlan:
        """The plan whose reads are answered: this one, unless something is made of its rows first."""
        return self if self.derivation is None else self.derivation.plan

    def finishing(self, finish: Finish[T], entities: Mapping[str, Sequence[Any]]) -> Finish[T]:
        """`finish` of what is answered: of the store's rows, unless something is made of them first.

        Args:
            entities: the request's columns, checked by check_columns.

        Raises:
            InvalidEntityError: a value does not fit the type of its column.
        """
        return finish if self.derivation is None else self.derivation.finishing(finish, entities)
