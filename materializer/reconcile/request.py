"""What is to be reconciled, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastserve.errors import RequestError
from fastserve.timeutil import MICROS

# As fastserve.jobs.reconcile has them for jobs, which a command's --help need not load; a test compares.
SAMPLE: Final = 10_000
MAX_SAMPLE: Final = 1_000_000
DIFFERENCES: Final = ("missing", "late", "newer", "extra", "ttl", "value", "filled", "corrupt")
GRACE_US: Final = 3_600 * MICROS


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to reconcile.

    Attributes:
        views: `NAME` or `NAME@vN`; none for all that are online and have a history.
        sample: so many keys of the history, drawn at random; None for all, and what only the store has.
        seed: the same seed draws the same keys of the same history; None for another one each time.
        repair: put right what differs; see `materializer reconcile --help`.
        prune: history is all there is: take away what is newer online, and what only the store has.
        ignore: kinds of differences that are counted but do not make a view `different`.
        grace_us: how long after its creation a row may be online without its history.
        now_us: the present, for a replay; None for the wall clock.
    """

    views: tuple[str, ...] = ()
    sample: int | None = SAMPLE
    seed: int | None = None
    repair: bool = False
    prune: bool = False
    ignore: tuple[str, ...] = ()
    grace_us: int = GRACE_US
    now_us: int | None = None


def check(request: Request) -> None:
    """Raise RequestError for a request that makes no sense."""
    if request.sample is not None and not 1 <= request.sample <= MAX_SAMPLE:
        raise RequestError(
            f"a sample of {request.sample:,} keys", where="--sample", hint=f"1 to {MAX_SAMPLE:,}, or --all"
        )
    if request.prune and not request.repair:
        raise RequestError("--prune is a way to repair", where="--prune", hint="add --repair")
    if request.grace_us < 0:
        raise RequestError("the grace is negative", where="--grace", hint="0s or more")
    for kind in request.ignore:
        if kind not in DIFFERENCES:
            raise RequestError(
                f"{kind!r} is no kind of difference",
                where="--ignore",
                hint=f"one of {', '.join(DIFFERENCES)}",
            )
