"""What `verify` found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["manifest", "file", "definition", "source", "history", "column", "encoding"]
Outcome = Literal["equal", "different", "cannot_be_remade"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference.

    Attributes:
        kind: what differs: the manifest or a file of the data set itself; a definition, a source file or a table's
            history it was made from; a column of what was made again; or only the bytes, not the values.
        where: which one.
        message: how.
    """

    kind: Kind
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of making a data set again.

    Attributes:
        outcome: ``equal`` to the byte and nothing it was made from changed; ``different``; or
            ``cannot_be_remade``: what it was made from is gone.
        findings: what differs; empty when equal.
        notes: what else is worth knowing: software of other versions, definitions that moved on.
    """

    dataset_id: str
    outcome: Outcome
    rows: int
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it is equal."""
        return self.outcome == "equal"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def __str__(self) -> str:
        said = {
            "equal": f"equal: {self.rows:,} rows made again, byte for byte",
            "different": "different",
            "cannot_be_remade": "cannot be re-made",
        }[self.outcome]
        lines = [f"{self.dataset_id}: {said}", *(f"  {finding}" for finding in self.findings)]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])
