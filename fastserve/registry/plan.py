"""What an apply will do, or did: a list of changes, as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fastserve.definitions import Definition
from fastserve.display import html_table
from fastserve.registry.snapshot import Snapshot

Action = Literal["create", "update", "retire", "keep", "unchanged"]
_SIGNS: Final[dict[str, str]] = {"create": "+", "update": "~", "retire": "-"}
_WORDS: Final = {
    "entity": "entity",
    "push_source": "push source",
    "event_source": "event source",
    "feature_view": "feature view",
    "aggregated_feature_view": "aggregated feature view",
    "on_demand_feature_view": "on-demand feature view",
    "feature_service": "feature service",
}


@dataclass(frozen=True, slots=True)
class AttributeChange:
    """One attribute before and after; None where it was not, or is no longer, there."""

    attribute: str
    old: Any
    new: Any

    def __str__(self) -> str:
        if self.old is None:
            return f"{self.attribute}: {_shown(self.new)}"
        return f"{self.attribute}: {_shown(self.old)} -> {_shown(self.new)}"


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one object.

    Attributes:
        action: ``keep`` is an object that the registry holds and the applied set does not name.
        kind: as of fastserve.definitions.serde.KINDS.
        version: of a feature view; None for other kinds.
        details: attributes that differ.
        notes: what follows from it, for people.
        definition: the object after the change; the one dropped for ``retire``.
    """

    action: Action
    kind: str
    name: str
    version: int | None
    details: tuple[AttributeChange, ...] = ()
    notes: tuple[str, ...] = ()
    definition: Definition | None = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> str:
        """``feature view stats@v2``."""
        suffix = f"@v{self.version}" if self.version is not None else ""
        return f"{_WORDS[self.kind]} {self.name}{suffix}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "action": self.action,
            "kind": self.kind,
            "name": self.name,
            "version": self.version,
            "details": [{"attribute": d.attribute, "old": d.old, "new": d.new} for d in self.details],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """All changes between the registry at `revision` and an applied set of definitions."""

    project: str
    revision: int
    changes: tuple[Change, ...]

    @property
    def is_empty(self) -> bool:
        """Whether applying would change nothing."""
        return not self.effective

    @property
    def effective(self) -> tuple[Change, ...]:
        """The changes that write something."""
        return tuple(c for c in self.changes if c.action in _SIGNS)

    def of(self, action: Action) -> tuple[Change, ...]:
        """The changes with this action."""
        return tuple(c for c in self.changes if c.action == action)

    @property
    def summary(self) -> str:
        """``2 to create, 1 to update; 7 unchanged, 1 kept``."""
        words = {
            "create": "to create",
            "update": "to update",
            "retire": "to retire",
            "unchanged": "unchanged",
            "keep": "kept",
        }
        counts = {action: len([c for c in self.changes if c.action == action]) for action in words}
        parts = [f"{counts[a]} {words[a]}" for a in _SIGNS if counts[a]] or ["no changes"]
        rest = [f"{counts[a]} {words[a]}" for a in ("unchanged", "keep") if counts[a]]
        return "; ".join(filter(None, [", ".join(parts), ", ".join(rest)]))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "project": self.project,
            "revision": self.revision,
            "empty": self.is_empty,
            "summary": self.summary,
            "changes": [c.to_dict() for c in self.changes],
        }

    def _repr_html_(self) -> str:
        rows = [
            (_SIGNS[c.action], c.label, "; ".join([*map(str, c.details), *(f"! {note}" for note in c.notes)]))
            for c in self.effective
        ]
        title = f"Plan for {self.project}, revision {self.revision}"
        return html_table(title, ("", "object", "what"), rows, self.summary)

    def __str__(self) -> str:
        lines = [f"project {self.project}, revision {self.revision}: {self.summary}"]
        for change in self.effective:
            lines.append(f"{_SIGNS[change.action]} {change.label}")
            lines += [f"    {detail}" for detail in change.details]
            lines += [f"    ! {note}" for note in change.notes]
        kept = self.of("keep")
        if kept:
            lines.append(f"  kept, not in this set: {', '.join(c.label for c in kept)}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """What an apply did: the plan it carried out and the registry after it."""

    plan: Plan
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Revision:
    """One line of the registry's history."""

    revision: int
    applied_us: int
    author: str
    summary: str


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)
