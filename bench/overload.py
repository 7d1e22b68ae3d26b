"""More is asked than the server can do: goodput, refusals and the way back, at 0.5, 1, 2, 5 and 0.5 times saturation.

Saturation is what a closed loop gets. The ramp is open loop, arrivals at random, from 32 connections; a latency counts
from when the request was due. Goodput is right answers within their caller's deadline. Once with callers that take a
refusal for an answer, once with callers that come again as the project's client does: after Retry-After and a random
pause, within a budget of retries.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.arrivals import LATE_US, Ask, Outcome, closed_loop, features, open_loop, poisson
from bench.measure import Figure, alternate
from bench.record import Table, Target, save
from bench.scale import scaled
from bench.world import JSON, TENSOR, Server, hit_and_miss
from fastserve.client.options import Retry

ROUNDS: Final = scaled(3, 1)
IN_FLIGHT: Final = 80
BODIES: Final = scaled(64, 8)
STEP_S: Final = scaled(1.5, 0.2)
OVER_S: Final = scaled(2.5, 0.3)
RAMP: Final = (
    ("0.5", 0.5, STEP_S),
    ("1", 1.0, STEP_S),
    ("2", 2.0, OVER_S),
    ("5", 5.0, OVER_S),
    ("after", 0.5, OVER_S),
)
MOST_PER_S: Final = 250_000  # that the generator can offer
CALLERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "give up": {"deadline_s": 1.0},
    "come again": {"deadline_s": 3.0, "retry": Retry()},
}
FORMS: Final = {
    "100 JSON hit": (100, JSON, True),
    "1 tensor hit": (1, TENSOR, True),
    "100 JSON miss": (100, JSON, False),
}
WINDOW_S: Final = 0.1
LATER: Final = 3.0  # a window is back to normal when its p99 is no longer than this times the p99 before


def main() -> int:
    """Measure and write bench/results/overload.json."""
    with hit_and_miss() as servers:
        systems: dict[str, Callable[[], Mapping[str, float]]] = {}
        for name, (n, accept, cached) in FORMS.items():
            server = servers.hit if cached else servers.miss
            ids = (servers.warm if cached else servers.drawn)(n, BODIES)
            asks = {who: asked(server, accept, ids, how) for who, how in CALLERS.items()}
            systems[name] = partial(once, asks)
        report(alternate(systems, rounds=ROUNDS))
    return 0


def asked(server: Server, accept: str, ids: list[list[int]], how: Mapping[str, Any]) -> Ask:
    """By 32 connections."""
    return features(server, accept, ids, connections=32, **how)


def once(asks: Mapping[str, Ask]) -> Mapping[str, float]:
    """Saturation, then a ramp for each kind of caller."""
    settled = closed_loop(asks["give up"], IN_FLIGHT, 2 * STEP_S)
    refused = np.count_nonzero(settled.attempts["status"] != 200)
    assert not refused, f"{refused} refused in a closed loop of {IN_FLIGHT}"
    peak = settled.good_per_s()
    found: dict[str, float] = {"peak": peak}
    for who, ask in asks.items():
        rates = [(min(times * peak, MOST_PER_S), seconds) for _, times, seconds in RAMP]
        outcome = open_loop(ask, poisson(rates))
        found |= {f"{who} {q}": value for q, value in quantities(outcome, peak, ask.deadline_s).items()}
    return found


def quantities(outcome: Outcome, peak: float, deadline_s: float) -> dict[str, float]:
    """Of one ramp, by its steps."""
    attempts = outcome.attempts
    found: dict[str, float] = {}
    latest = outcome.final()
    took_s = (latest["done"] - latest["due"]) / 1e9
    good = latest[(latest["status"] == 200) & (took_s <= deadline_s)]
    for name, begun, ended in steps():
        within = (attempts["due"] >= begun * 1e9) & (attempts["due"] < ended * 1e9)
        done = (good["done"] >= begun * 1e9) & (good["done"] < ended * 1e9)
        refused = attempts[within & (attempts["status"] == 429)]
        found[f"{name} offered"] = int(np.count_nonzero(within)) / (ended - begun)
        found[f"{name} goodput"] = int(np.count_nonzero(done)) / (ended - begun) / peak
        found[f"{name} good_p99_ms"] = percentile(good[done]["done"] - good[done]["due"], 99)
        found[f"{name} reject_p50_ms"] = percentile(refused["done"] - refused["due"], 50)
        found[f"{name} reject_p99_ms"] = percentile(refused["done"] - refused["due"], 99)
    unheard = int(np.count_nonzero((latest["status"] != 200) & (latest["status"] != 429)))
    lag = outcome.lag_us
    return found | {
        "back_s": back_to_normal_s(latest),
        "unheard": unheard / len(latest),
        "lag_p99_us": float(np.percentile(lag, 99)),
        "busy": outcome.busy_share,
    }


def steps() -> Iterator[tuple[str, float, float]]:
    """(name, begin, end) in seconds."""
    begun = 0.0
    for name, _, seconds in RAMP:
        yield name, begun, begun + seconds
        begun += seconds


def percentile(ns: npt.NDArray[np.int64], q: float) -> float:
    """Milliseconds; 0 for none."""
    return float(np.percentile(ns, q)) / 1e6 if len(ns) else 0.0


def back_to_normal_s(latest: npt.NDArray[Any]) -> float:
    """From the end of the overload until requests are answered as before it, in this window and the next.

    Requests of clients that come again count from when they were first due, so only those of the time after it are
    looked at: what they see is how much is left of the overload.
    """
    (_, begun, ended), (_, after, last) = next(steps()), list(steps())[-1]
    taken = (latest["done"] - latest["due"]) / 1e6
    due = latest["due"] / 1e9
    usual = np.percentile(taken[(due >= begun) & (due < ended)], 99) * LATER
    starts = np.arange(after, last - WINDOW_S / 2, WINDOW_S)
    normal = [True] * (len(starts) + 1)
    for i, start in enumerate(starts):
        within = (due >= start) & (due < start + WINDOW_S)
        answered = np.count_nonzero(latest["status"][within] == 200)
        normal[i] = bool(
            within.any()
            and answered >= 0.99 * np.count_nonzero(within)
            and np.percentile(taken[within], 99) <= usual
        )
    for i in range(len(starts)):
        if normal[i] and normal[i + 1]:
            return i * WINDOW_S
    return len(starts) * WINDOW_S


def report(found: dict[str, dict[str, list[float]]]) -> None:
    """Table, targets, file."""
    columns = {
        "offered": "1/s",
        "goodput": "of the peak",
        "good_p99_ms": "",
        "reject_p50_ms": "",
        "reject_p99_ms": "",
    }
    table = Table("times saturation, in order", columns)
    ramps = Table(
        "ramps", {"peak": "1/s", "back_s": "", "unheard": "share", "lag_p99_us": "", "busy": "share"}
    )
    targets: list[Target] = []
    notes: list[str] = []
    for form, rounds in found.items():
        for who in CALLERS:
            figures = {
                q: Figure(tuple(rounds[f"{who} {q}"]), not q.endswith("goodput")) for q in names(rounds, who)
            }
            for name, _, _ in RAMP:
                table.add(f"{form}, {who}: {name}", **{q: figures[f"{name} {q}"] for q in columns})
            ramp = {q: figures[q] for q in ramps.columns if q != "peak"}
            ramps.add(f"{form}, {who}", peak=Figure(tuple(rounds["peak"]), False), **ramp)
            targets += aims(f"{form}, callers {who}", figures)
            if figures["lag_p99_us"].median > LATE_US:
                notes.append(f"{form}, {who}: the generator was late; these rows say nothing of the server.")
    notes.append(
        "lag and busy: how late the generator was by its own fault, and how much of its time it worked."
    )
    notes.append(
        "`unheard`: callers that found no stream free on their connection, or were not answered in time: where a small "
        "request costs hardly more than to refuse it, HTTP/2's limit of streams is what holds the rest back."
    )
    save("overload", "Overload", [table, ramps], targets=targets, notes=notes)


def aims(what: str, figures: Mapping[str, Figure]) -> Iterator[Target]:
    """Of one ramp."""
    for name in ("2", "5"):
        goodput, reject = (figures[f"{name} {q}"].median for q in ("goodput", "reject_p99_ms"))
        yield Target(f"{what}, {name}x: goodput over peak", goodput, at_least=0.9, reach=0.95)
        yield Target(f"{what}, {name}x: p99 of the time to reject, ms", reject, at_most=10)
    yield Target(f"{what}: back to normal, s", figures["back_s"].median, at_most=1)


def names(rounds: Mapping[str, list[float]], who: str) -> list[str]:
    """The quantities of one kind of caller."""
    return [name.removeprefix(f"{who} ") for name in rounds if name.startswith(f"{who} ")]


if __name__ == "__main__":
    sys.exit(main())
