"""What came of the answers that were rebuilt: as an object, as JSON for programs, as a table for people."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from materializer.served.explain import DIFFERENCES, KINDS

_SHORT: Final = 60  # characters of a value in the table of examples

MEANING: Final = {
    "late": "history got the row after the answer",
    "correction": "history's row was put in the place of the one that was served, after the answer",
    "ttl": "one row, taken as expired on one side",
    "lag": "an older row, or events up to an earlier one, was online; what is newer was within the grace",
    "code": "another on-demand function, or another definition of its view, than served it",
    "corrupt": "the stored row cannot be read",
    "unexplained": "none of these",
}


@dataclass(frozen=True, slots=True)
class Example:
    """One value that differs.

    Attributes:
        entity: the request's columns; hashes of them where a view or an entity is tagged `pii`.
        at: the instant of the answer.
        served, rebuilt: the values, None for null; of views tagged `pii` neither.
    """

    feature: str
    kind: str
    entity: dict[str, Any]
    at: str
    status: str
    served: Any
    rebuilt: Any
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready but for values, which are Python's."""
        names = ("feature", "kind", "entity", "at", "status", "served", "rebuilt", "note")
        return {name: getattr(self, name) for name in names}


@dataclass(slots=True)
class AnswersReport:
    """What `fastserve verify` found.

    Attributes:
        answers: rows of answers that were looked at.
        features: feature, as `view@vN:feature` -> kind -> how many values of it.
        allowed: kinds of differences that do not count.
        examples: a few of each feature and kind.
        errors: of what could not be rebuilt: service or features -> why.
        seed: how the entities were drawn; None for a log.
        seconds: how long it took.
    """

    answers: int = 0
    features: dict[str, Counter[str]] = field(default_factory=dict)
    allowed: tuple[str, ...] = ()
    examples: list[Example] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    seed: int | None = None
    seconds: float = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """Kind -> values of it, of the kinds that occurred."""
        total: Counter[str] = Counter()
        for counts in self.features.values():
            total.update(counts)
        return {kind: total[kind] for kind in KINDS if total[kind]}

    @property
    def values(self) -> int:
        """How many values were compared: those that were unavailable were not."""
        return sum(n for kind, n in self.counts.items() if kind != "unavailable")

    @property
    def left(self) -> int:
        """Values that differ, and are not allowed to."""
        return sum(n for kind, n in self.counts.items() if kind in DIFFERENCES and kind not in self.allowed)

    @property
    def ok(self) -> bool:
        """Whether everything could be rebuilt, and every value is equal or differs in a way that is allowed."""
        return not self.left and not self.errors

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready but for values of examples, which are Python's."""
        return {
            "ok": self.ok,
            "answers": self.answers,
            "values": self.values,
            "counts": self.counts,
            "allowed": list(self.allowed),
            "left": self.left,
            "features": {name: dict(counts) for name, counts in sorted(self.features.items())},
            "examples": [example.to_dict() for example in self.examples],
            "errors": self.errors,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
        from rich.console import Console  # noqa: PLC0415  (a program that reads JSON need not wait for it)

        console = Console(file=io.StringIO(), width=160, color_system=None)
        for table in self.tables():
            console.print(table)
        file = console.file
        assert isinstance(file, io.StringIO)
        return file.getvalue().rstrip()

    def tables(self) -> list[Any]:
        """What people read: a line, a table of features by kind, what the kinds are, examples."""
        from rich.markup import escape  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415

        said = (
            "equal" if self.values == self.counts.get("equal", 0) else "allowed" if self.ok else "different"
        )
        drawn = "" if self.seed is None else f", seed {self.seed}"
        found: list[Any] = [f"{said}: {self.answers:,} rows of answers, {self.values:,} values{drawn}"]
        kinds = list(self.counts)
        table = Table("feature", *kinds)
        for name, counts in sorted(self.features.items()):
            table.add_row(escape(name), *(f"{counts[kind]:,}" if counts[kind] else "" for kind in kinds))
        found.append(table)
        for kind in kinds:
            if kind in MEANING:
                found.append(f"{kind}: {MEANING[kind]}{', allowed' if kind in self.allowed else ''}")
        found += [f"error: {name}: {escape(error)}" for name, error in self.errors.items()]
        if self.examples:
            table = Table("example", "kind", "entity", "at", "served", "history says")
            for e in self.examples:
                entity = ", ".join(f"{name}={value}" for name, value in e.entity.items())
                served = f"{_shown(e.served)} ({e.status})" if e.status != "PRESENT" else _shown(e.served)
                cells = (e.feature, e.kind, entity, e.at, served, e.note or _shown(e.rebuilt))
                table.add_row(*map(escape, cells))
            found.append(table)
        return found


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"
