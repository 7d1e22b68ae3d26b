"""All of a hit, from a body to its answer, in one call: the readable twin of _ext/hits.pyx.

    request ──► known body? ──► keys ──► cache has every row? ──► answer
                     │                          │
                   None                     Missed: the general way goes on from the keys

What a hit needs to be told of the server's load lies in one Load, which Admission keeps: a hit is answered where
Admission would begin it at once, and counts as work like any other; another has its turn later, and is answered as
quickly then. One that is no more work than to queue it is answered whatever waits, for a queue of cheap requests would
halve what the server can do, and so never go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from fastserve.api.shapes import Known, KnownBodies
from fastserve.api.wire import DEADLINE
from fastserve.batch import ReadBatch
from fastserve.http.message import Request, Response

SLICE_US: Final = 2_000.0
CHEAP_US: Final = 20.0  # of work: to queue a request takes about as long
LOOK_US: Final = 500.0  # of work: a look at the load, and the loop's turn for it, cost as much as a small hit
FIRST_GUESS_US: Final = 50.0
GAIN: Final = 0.1  # of the newest measurement in a mean: a burst of odd requests moves it little


@dataclass(slots=True, eq=False)
class Kind:
    """Requests of one shape and about one size.

    Attributes:
        work_us: what one takes up to its answer, or until it waits for the store; a running mean.
        late_us: what it takes once the store has answered; 0 for one that does not wait.
    """

    work_us: float = FIRST_GUESS_US
    late_us: float = 0.0


@dataclass(slots=True, eq=False)
class Load:
    """How busy one worker is.

    Attributes:
        open: reads are not being refused.
        queued: others wait for their turn.
        busy_us: worked since the last look, so in this turn of the event loop and a little before; from `slice_us`
            on, what comes is queued.
        slice_us: of one turn.
        strict: nothing is to be queued: `judge` is called when a turn's slice is over, and closes this.
        look_us: so much is worth a look.
        scheduled: the loop's next turn will look, and set busy_us back.
        schedule: has it do so.
    """

    schedule: Callable[[], object]
    judge: Callable[[], object] = object
    open: bool = True
    queued: bool = False
    busy_us: float = 0.0
    slice_us: float = SLICE_US
    look_us: float = LOOK_US
    strict: bool = False
    scheduled: bool = False


AnswerHit: TypeAlias = Callable[[ReadBatch, int, int], Response | None]


@dataclass(slots=True, eq=False)
class Lane:
    """Answers to one plan in one form.

    Attributes:
        answer: from (batch of rows, number of entities, now) to the answer; None where another has to make it.
        kinds: by the bits of the number of keys.
        form: its media type.
    """

    answer: AnswerHit
    kinds: list[Kind] = field(default_factory=list)
    form: str = ""


class Missed(NamedTuple):
    """A known body that is no hit: what is left to do.

    Attributes:
        looked: the cache was asked; rows that it had are in the batch, in the cache's own memory.
        lane: where it may be a hit whose turn is to come, for `HitPath.in_turn`.
    """

    known: Known
    batch: ReadBatch
    n: int
    looked: bool
    lane: Lane | None = None


class HitPath:
    """See the module's docstring.

    Args:
        bodies: known skeletons.
        catalog: whose `current` begins with the snapshot that is served.
        read_path: not asked for anything while it is `blocked`.
        rows: the cache's look-up: (batch, n, ages, moment, since) -> number of rows missing.
        trust: whose `since` is the moment from which cached rows count, by the monotonic clock.
        load: of this worker.
        now: the clock that ages features.
    """

    def __init__(
        self,
        bodies: KnownBodies,
        catalog: Any,
        read_path: Any,
        rows: Callable[[ReadBatch, int, tuple[int, ...], int, int], int],
        trust: Any,
        load: Load,
        now: Callable[[], int],
    ) -> None:
        self._bodies = bodies
        self._catalog = catalog
        self._read_path = read_path
        self._rows = rows
        self._trust = trust
        self._load = load
        self._now = now
        self.deadlines: set[bytes] = set()  # texts of the header that are known to be right

    def answer(self, request: Request) -> Response | Missed | None:
        """The answer, if this is a hit; None for a body that is not known."""
        bodies = self._bodies
        if self._catalog.current[0] is not bodies.snapshot:
            bodies.renew(self._catalog.current[0])
        found = bodies.table.match(request.body)
        if found is None:
            return None
        known, batch, n = found
        load = self._load
        lane = self._lane(known.lanes, request)
        if lane is None or not load.open or self._read_path.blocked:
            return Missed(known, batch, n, False)
        kind = lane.kinds[len(batch).bit_length()]
        if kind.work_us > CHEAP_US and (load.queued or load.busy_us >= load.slice_us):
            return Missed(known, batch, n, False, lane)
        begun = time.monotonic_ns()
        moment = begun // 1_000
        if self._trust.since > moment:
            return Missed(known, batch, n, False)
        answer = self._made(known, batch, n, lane, moment)
        if answer is None:
            return Missed(known, batch, n, True)
        took = (time.monotonic_ns() - begun) / 1e3
        kind.work_us += GAIN * (min(took, 4 * kind.work_us + FIRST_GUESS_US) - kind.work_us)
        load.busy_us += took
        if load.busy_us >= load.look_us and not load.scheduled:
            load.schedule()
        if load.strict and load.busy_us >= load.slice_us:
            load.judge()
        return answer

    def in_turn(self, missed: Missed) -> Response | None:
        """The answer of one that was to wait, now; None where the general way has to read again."""
        known, batch, n, _, lane = missed
        moment = time.monotonic_ns() // 1_000
        if lane is None or self._read_path.blocked or self._trust.since > moment:
            return None
        return self._made(known, batch, n, lane, moment)

    def _made(self, known: Known, batch: ReadBatch, n: int, lane: Lane, moment: int) -> Response | None:
        """The answer; None where the cache does not know all of it."""
        if self._rows(batch, n, known.ages_us, moment, self._trust.since):
            return None
        return lane.answer(batch, n, self._now())

    def _lane(self, lanes: Mapping[bytes | None, Lane], request: Request) -> Lane | None:
        accept: bytes | None = None
        for name, value in request.headers:
            if name == b"accept" and accept is None:
                accept = value
            elif name == DEADLINE and value not in self.deadlines:
                return None
        return lanes.get(accept)
