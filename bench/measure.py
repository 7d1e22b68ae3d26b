"""Rounds of several systems in alternation, and what they come to.

A machine drifts, and so does a shared one most: what is compared is measured in turns of one run, every round in an
order of its own, and ratios are taken within a round. The figure of a system is the median of its rounds; the worst
one stands beside it.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from bench.scale import ROUNDS, scaled

LEAST_S: Final = scaled(0.2, 0.0)


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity of one system.

    Attributes:
        rounds: what each round measured, in the order of the rounds.
        smaller_is_better: a duration, say, and not a rate.
    """

    rounds: tuple[float, ...]
    smaller_is_better: bool = True

    @property
    def median(self) -> float:
        """The figure to quote."""
        return statistics.median(self.rounds)

    @property
    def worst(self) -> float:
        """The round to be ashamed of."""
        return max(self.rounds) if self.smaller_is_better else min(self.rounds)

    def over(self, other: Figure) -> Figure:
        """The ratios to another system's, round by round."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return Figure(tuple(mine / theirs for mine, theirs in pairs), self.smaller_is_better)

    def as_dict(self) -> dict[str, Any]:
        """For the results file."""
        return {"median": self.median, "worst": self.worst, "rounds": list(self.rounds)}


def alternate(
    systems: Mapping[str, Callable[[], Mapping[str, float]]], *, rounds: int = ROUNDS, seed: int = 1
) -> dict[str, dict[str, list[float]]]:
    """Run each system once a round, in random order; system -> quantity -> one value a round.

    Args:
        systems: each call measures once and gives its quantities. Check that the answers are right before: a wrong
            system gets no number.
    """
    found: dict[str, dict[str, list[float]]] = {name: {} for name in systems}
    order = list(systems)
    shuffle = random.Random(seed).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            for quantity, value in systems[name]().items():
                found[name].setdefault(quantity, []).append(value)
    return found


def ns_per_call(
    call: Callable[[], object], *, least_s: float = LEAST_S, clock: Callable[[], int] = time.perf_counter_ns
) -> float:
    """Nanoseconds one call takes: repeated until `least_s` have passed, garbage collection off.

    Args:
        clock: time.process_time_ns for what is held against a server's CPU.
    """
    number = 1
    with quiet():
        while True:
            begun = clock()
            for _ in range(number):
                call()
            took = clock() - begun
            if took >= least_s * 1e9:
                return took / number
            number = max(number * 2, int(number * least_s * 1.1e9 / max(took, 1)))


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection in between."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
