"""Admission: what is begun, queued and refused; driven by turns of the loop, not by time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from fastserve.api import admission as module
from fastserve.api.admission import Admission, Answer
from fastserve.errors import OverloadedError, RequestError
from fastserve.http.gate import Gate
from fastserve.http.message import Response


class Clock:
    """perf_counter, moved by the work itself."""

    def __init__(self) -> None:
        self.now = self.ran = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, us: float, log: list[int] | None = None, mark: int = 0) -> Callable[[], Response]:
        def run() -> Response:
            self.now += us / 1e6
            self.ran += us / 1e6
            if log is not None:
                log.append(mark)
            return Response(200, "text/plain", b"%d" % mark)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "perf_counter", made)
    monkeypatch.setattr(module, "_ran_s", lambda: made.ran)
    return made


def trained(admission: Admission, us: float) -> module.Kind:
    kind = admission.kind("shape", 1)
    kind.work_us = us
    return kind


async def test_an_idle_server_answers_where_it_parsed(clock: Clock) -> None:
    admission = Admission()
    answer = admission.run(admission.kind("a", 1), 1, clock.work(10))
    assert isinstance(answer, Response)


async def test_a_busy_turn_queues_and_later_turns_answer_in_order(clock: Clock) -> None:
    admission = Admission(max_queue_ms=100)
    kind = trained(admission, 1_000)
    log: list[int] = []
    answers = [admission.run(kind, 1, clock.work(1_000, log, i), None) for i in range(8)]
    assert [isinstance(a, Response) for a in answers] == [True, True] + [False] * 6, "a slice is 2 ms"
    assert log == [0, 1]
    done = [await a for a in answers if not isinstance(a, Response)]
    assert [bytes(r.body) for r in done] == [b"%d" % i for i in range(2, 8)]
    assert log == list(range(8))
    assert admission.counters()["queued"] == 0 and admission.counters()["queued_ms"] == 0


async def test_a_little_work_is_not_worth_a_turn_of_the_loop(clock: Clock) -> None:
    admission = Admission()
    kind = trained(admission, 10)
    most = int(module.LOOK_US / 10) - 1
    for _ in range(most):
        assert isinstance(admission.run(kind, 1, clock.work(10)), Response)
        await asyncio.sleep(0)
    assert not admission.load.scheduled and admission.load.busy_us == pytest.approx(10 * most)
    for _ in range(2):
        assert isinstance(admission.run(kind, 1, clock.work(10)), Response)
    assert admission.load.scheduled
    await asyncio.sleep(0)
    assert not admission.load.scheduled and admission.load.busy_us == 0


async def test_sockets_are_read_between_slices(clock: Clock) -> None:
    admission = Admission(max_queue_ms=100)
    kind = trained(admission, 2_000)
    log: list[int] = []
    answers = [admission.run(kind, 1, clock.work(2_000, log, i)) for i in range(4)]
    seen: list[int] = []

    def other() -> None:
        seen.append(len(log))
        if len(log) < 4:
            asyncio.get_running_loop().call_soon(other)

    other()
    await asyncio.gather(*(a for a in answers if isinstance(a, asyncio.Future)))
    assert seen[:3] == [1, 2, 3] or seen[:3] == [1, 1, 2], "one slice a turn"


async def test_beyond_the_limit_it_refuses_at_once(clock: Clock) -> None:
    admission = Admission(max_queue_ms=10)
    kind = trained(admission, 2_000)
    log: list[int] = []
    admitted: list[Answer] = []
    with pytest.raises(OverloadedError, match="10 ms of work are queued") as refused:
        for i in range(100):
            admitted.append(admission.run(kind, 1, clock.work(2_000, log, i)))
    assert len(admitted) == 6 and log == [0], "one begun, five of 2 ms queued"
    assert refused.value.retry_after_s >= 1
    assert admission.counters()["refused"] == 1
    await asyncio.gather(*(a for a in admitted if isinstance(a, asyncio.Future)))
    assert isinstance(admission.run(kind, 1, clock.work(1)), Response), "back to normal"


async def test_what_nobody_waits_for_any_more_is_not_done(clock: Clock) -> None:
    admission = Admission()
    kind = trained(admission, 2_000)
    log: list[int] = []
    answers = [admission.run(kind, 1, clock.work(2_000, log, i)) for i in range(3)]
    assert isinstance(answers[1], asyncio.Future) and isinstance(answers[2], asyncio.Future)
    answers[1].cancel()
    await answers[2]
    assert log == [0, 2]


async def test_work_whose_deadline_passed_in_the_queue_is_refused(clock: Clock) -> None:
    admission = Admission()
    kind = trained(admission, 2_000)
    admission.run(kind, 1, clock.work(2_000))
    log: list[int] = []
    late = admission.run(kind, 1, clock.work(1, log), 1)  # a microsecond: it has passed by the next turn
    assert isinstance(late, asyncio.Future)
    assert (await late).status == 429 and log == []


async def test_errors_of_queued_work_become_answers(clock: Clock) -> None:
    admission = Admission()
    kind = trained(admission, 2_000)
    admission.run(kind, 1, clock.work(2_000))

    def bad() -> Response:
        raise RequestError("no such thing")

    def broken() -> Response:
        raise ZeroDivisionError

    answers = [admission.run(kind, 1, bad), admission.run(kind, 1, broken)]
    assert isinstance(answers[0], asyncio.Future) and isinstance(answers[1], asyncio.Future)
    assert (await answers[0]).status == 400
    with pytest.raises(ZeroDivisionError):
        await answers[1]


async def test_reads_that_wait_for_the_store_are_bounded_by_keys(clock: Clock) -> None:
    admission = Admission(max_waiting_keys=150)
    kind = admission.kind("a", 100)
    store: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
    assert admission.run(kind, 100, lambda: store) is store
    with pytest.raises(OverloadedError, match="reads of 100 keys wait"):
        admission.run(kind, 100, lambda: store)
    store.set_result(Response(200, "", b""))
    await asyncio.sleep(0)
    assert isinstance(admission.run(kind, 100, clock.work(1)), Response)


async def test_one_request_larger_than_the_bound_is_answered(clock: Clock) -> None:
    admission = Admission(max_waiting_keys=150)
    assert isinstance(admission.run(admission.kind("a", 10_000), 10_000, clock.work(1)), Response)


async def test_the_estimate_learns_both_halves_of_a_read(clock: Clock) -> None:
    admission = Admission()
    kind = admission.kind("a", 1)
    for _ in range(100):
        store: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        admission.run(kind, 1, lambda store=store: store)
        store.set_result(admission.metered(kind, lambda _: clock.work(400)())(None))
        await asyncio.sleep(0)
    assert kind.work_us == pytest.approx(0, abs=1) and kind.late_us == pytest.approx(400, rel=0.01)


async def test_a_first_request_that_compiles_its_plan_does_not_shut_out_the_next(clock: Clock) -> None:
    admission = Admission()
    kind = admission.kind("a", 1)
    admission.run(kind, 1, clock.work(500_000))
    assert kind.work_us < 2 * module.FIRST_GUESS_US


async def test_a_cancelled_answer_of_queued_work_cancels_its_read(clock: Clock) -> None:
    admission = Admission()
    kind = trained(admission, 2_000)
    admission.run(kind, 1, clock.work(2_000))
    store: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
    begun = asyncio.Event()

    def read() -> asyncio.Future[Response]:
        begun.set()
        return store

    answer = admission.run(kind, 1, read)
    assert isinstance(answer, asyncio.Future)
    await begun.wait()
    answer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await store


class Crowd:
    """So many requests of 1 ms, sent by callers that ask again as soon as they are answered or refused."""

    def __init__(self, clock: Clock, callers: int, max_queue_ms: float = 200) -> None:
        self.gate = Gate(["/reads"])
        self.admission = Admission(max_queue_ms, gate=self.gate)
        self.kind = trained(self.admission, 1_000)
        self._clock = clock
        self._callers = callers
        self._answers: list[Answer] = []
        self.longest = 0

    async def turns(self, n: int) -> None:
        """So many turns of the loop, in each of which every caller who may asks."""
        for _ in range(n):
            self._answers = [a for a in self._answers if isinstance(a, asyncio.Future) and not a.done()]
            while len(self._answers) < self._callers and not self.gate.refuses("/reads"):
                self._answers.append(self.admission.run(self.kind, 1, self._clock.work(1_000)))
            self.longest = max(self.longest, int(self.admission.counters()["queued"]))
            await asyncio.sleep(0)

    async def gone(self) -> None:
        """The callers have left, and the queue with them."""
        self._callers = 0
        while self.admission.counters()["queued"]:
            await asyncio.sleep(0)
        self._answers.clear()


async def test_a_few_callers_that_wait_for_their_answers_are_never_refused(clock: Clock) -> None:
    crowd = Crowd(clock, callers=100)
    await crowd.turns(1_000)
    assert not crowd.gate.refused and crowd.longest >= 90


async def test_after_an_overflow_a_turn_answers_what_it_can_where_it_is_parsed(clock: Clock) -> None:
    crowd = Crowd(clock, callers=1_000)
    await crowd.turns(200)
    assert crowd.longest == 200 and crowd.admission.counters()["standing"]
    crowd.longest, begun, turns = 0, clock.now, 200
    await crowd.turns(turns)
    assert crowd.longest == 0 and crowd.gate.refused, "nothing is queued"
    assert turns * 3_000 <= (clock.now - begun) * 1e6 <= turns * 5_000, "and every turn is used"


async def test_an_overload_is_over_when_nothing_was_refused_for_a_while(clock: Clock) -> None:
    crowd = Crowd(clock, callers=1_000)
    await crowd.turns(400)
    await crowd.gone()
    assert crowd.admission.counters()["standing"], "it may have been a breath"
    clock.now += 2 * module.CALM_S
    clock.ran += 2 * module.CALM_S
    async with asyncio.timeout(10):
        while crowd.admission.counters()["standing"]:  # though nobody asks any more
            await asyncio.sleep(0)
    assert not crowd.gate.shut and not crowd.admission.load.strict


async def test_what_was_read_before_the_gate_shut_is_queued_and_begun_first(clock: Clock) -> None:
    crowd = Crowd(clock, callers=1_000)
    await crowd.turns(400)
    admission, log = crowd.admission, list[int]()
    answers: list[Answer] = []
    while not crowd.gate.shut:
        answers.append(admission.run(crowd.kind, 1, clock.work(1_000, log, len(answers))))
    assert all(isinstance(answer, Response) for answer in answers)
    late: list[Answer] = []
    with pytest.raises(OverloadedError, match="ms of work are queued"):
        while True:
            late.append(admission.run(crowd.kind, 1, clock.work(1_000, log, 100 + len(late))))
    assert 9 <= len(late) <= 11
    await asyncio.gather(*(answer for answer in late if isinstance(answer, asyncio.Future)))
    assert log[len(answers) :] == [100 + i for i in range(len(late))]


async def test_a_crowd_that_stays_is_a_queue_that_stands(clock: Clock) -> None:
    crowd = Crowd(clock, callers=150)
    await crowd.turns(20)
    assert not crowd.gate.refused, "it may be a burst"
    await crowd.turns(200)
    assert crowd.gate.refused and crowd.admission.counters()["queued"] == 0


async def test_reads_that_wait_for_a_slow_store_shut_nobody_out(clock: Clock) -> None:
    crowd = Crowd(clock, callers=0)
    admission, kind = crowd.admission, crowd.kind
    kind.late_us = 1_000
    stores: list[asyncio.Future[Response]] = []
    for _ in range(1_000):
        stores.append(asyncio.get_running_loop().create_future())
        admission.run(kind, 1, lambda: stores[-1])
        clock.now += 0.001  # spent elsewhere: this thread did not run
        await asyncio.sleep(0)
    assert not crowd.gate.shut, "a second of work is to come, but there is time to spare"
    assert isinstance(admission.run(kind, 1, clock.work(10)), Response)
    for store in stores:
        store.set_result(Response(200, "", b""))
    await asyncio.sleep(0)
    assert admission.counters()["waiting_keys"] == 0


async def test_a_busy_worker_begins_no_more_reads_than_it_can_finish(clock: Clock) -> None:
    crowd = Crowd(clock, callers=0)
    admission, kind = crowd.admission, crowd.kind
    kind.late_us = 1_000
    stores: list[asyncio.Future[Response]] = []

    def begin() -> asyncio.Future[Response]:
        clock.work(100)()
        stores.append(asyncio.get_running_loop().create_future())
        return stores[-1]

    turns = 0
    while not crowd.gate.shut and turns < 10_000:
        turns += 1
        admission.run(kind, 1, begin)
        await asyncio.sleep(0)
    assert crowd.gate.shut and len(stores) < 1_100, "a crowd, for a tenth of a second, on a busy thread"
    for store in stores:
        store.set_result(Response(200, "", b""))
    await asyncio.sleep(0)
    assert not crowd.gate.shut
