"""What a reconciliation found, as an object for the SDK, as JSON for programs and as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fastserve.timeutil import format_timestamp
from materializer.reconcile.request import DIFFERENCES
from materializer.reconcile.tally import Tally
from materializer.summary import EXIT_ALREADY_RUNNING, EXIT_FAILED, EXIT_OK, error_dict

Status = Literal["equal", "repaired", "different", "already_running", "failed", "stopped", "not_run"]

_WORST: Final[tuple[Status, ...]] = (
    "stopped", "not_run", "failed", "already_running", "different", "repaired"
)  # fmt: skip
_CODES: Final = {"equal": EXIT_OK, "repaired": EXIT_OK, "already_running": EXIT_ALREADY_RUNNING}
_MEANING: Final = {
    "missing": "history has a row that holds, nothing is online",
    "late": "the row online is older than history's",
    "newer": "the row online is newer than history's",
    "extra": "a row is online, history has none of the key that holds",
    "ttl": "online long after its ttl",
    "value": "equal times, other values",
    "filled": "equal times; online has a field that history's row is too old for",
    "corrupt": "the row online cannot be read",
    "recent": "online, and so new that its history may be on its way: no difference",
    "changed": "written while we looked: unknown",
}


@dataclass(slots=True)
class ViewReport:
    """What was found of one view.

    Attributes:
        view: its name, with `@vN` from version 2 on.
        status: `different` while a difference is left that is not ignored; `repaired` when all were.
        now_us: the present that both sides were compared at.
        history: where the history was read from, and the version of its table.
        online_id: what the keys of the compared rows begin with: those that are served.
        sample, seed: how many keys were to be drawn, and how to draw them again; None where all were compared.
        keys: how many were compared.
        counts: kind -> keys of it, `equal` among them; of the kinds that occurred.
        repaired: kind -> how many of these were put right.
        ignored: kinds that do not count.
        examples: kind -> a few of its keys, with the event times of both rows.
        kept: of the rows kept for a rollback, which a repair mends too: their online id and how many.
        error: why it failed.
    """

    view: str
    status: Status = "not_run"
    now_us: int = 0
    history: dict[str, Any] = field(default_factory=dict)
    online_id: int | None = None
    sample: int | None = None
    seed: int | None = None
    keys: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    repaired: dict[str, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    error: Exception | None = None

    @property
    def left(self) -> int:
        """Differences that count and are not put right."""
        kinds = [kind for kind in DIFFERENCES if kind not in self.ignored]
        return sum(self.counts.get(kind, 0) - self.repaired.get(kind, 0) for kind in kinds)

    def take(self, tally: Tally) -> None:
        """What was found."""
        self.keys, self.examples = tally.keys, tally.examples
        self.counts = {kind: n for kind, n in sorted(tally.counts.items()) if n}
        self.repaired = dict(sorted(tally.repaired.items()))

    def settle(self) -> None:
        """The comparison is over: its outcome is the status."""
        self.status = "different" if self.left else "repaired" if any(self.repaired.values()) else "equal"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; times in RFC 3339."""
        shown: dict[str, Any] = {"view": self.view, "status": self.status}
        if self.history:
            shown |= {
                "now": format_timestamp(self.now_us),
                "history": self.history,
                "online_id": self.online_id,
                "sample": self.sample,
                "seed": self.seed,
                "keys": self.keys,
                "counts": self.counts,
                "repaired": self.repaired,
                "ignored": list(self.ignored),
                "left": self.left,
                "examples": self.examples,
            }
        if self.kept:
            shown["kept"] = self.kept
        shown["seconds"] = round(self.seconds, 3)
        if self.error is not None:
            shown["error"] = error_dict(self.error)
        return shown

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        if not self.history:
            yield f"{self.view}: {self.status}"
            return
        drawn = "all keys" if self.sample is None else f"a sample, seed {self.seed}"
        yield (f"{self.view}: {self.status}; {self.keys:,} keys ({drawn}) at {format_timestamp(self.now_us)}")
        for kind in (*DIFFERENCES, "recent", "changed"):
            if not (count := self.counts.get(kind)):
                continue
            mended = f", {self.repaired[kind]:,} repaired" if self.repaired.get(kind) else ""
            ignored = ", ignored" if kind in self.ignored else ""
            yield f"  {kind:8} {count:>10,}{mended}{ignored}  ({_MEANING[kind]})"
            for example in self.examples.get(kind, ()):
                yield f"    {_example(example)}"


@dataclass(slots=True)
class Report:
    """What was found, view by view."""

    views: list[ViewReport] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def status(self) -> Status:
        """The worst of the views."""
        found = {view.status for view in self.views}
        return next((status for status in _WORST if status in found), "equal")

    @property
    def ok(self) -> bool:
        """Whether nothing differs, or nothing does any more."""
        return self.status in ("equal", "repaired")

    @property
    def exit_code(self) -> int:
        """0 nothing differs (any more), 1 something does or a view failed, 3 a view was busy. Signals are the CLI's."""
        return _CODES.get(self.status, EXIT_FAILED)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        views = [view.to_dict() for view in self.views]
        return {"status": self.status, "views": views, "seconds": round(self.seconds, 3)}

    def __str__(self) -> str:
        return "\n".join(map(str, self.views)) or "no view is online and has a history"


def _example(example: dict[str, Any]) -> str:
    key = ", ".join(f"{name}={value}" for name, value in example["key"].items()) or "the one row"
    fields = f"; differs in {', '.join(example['fields'])}" if "fields" in example else ""
    return f"{key}: history {example['history'] or 'none'}, online {example['online'] or 'none'}{fields}"
