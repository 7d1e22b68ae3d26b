"""Events to send."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastserve.timeutil import MICROS, format_timestamp, now_us


def events(n: int, seed: int = 1, span_us: int = 7_200 * MICROS) -> dict[str, list[Any]]:
    """Events of the last span of time, in about the order of time; some late, some twice."""
    rng = random.Random(seed)
    rows: list[tuple[Any, ...]] = []
    start = now_us() - span_us
    for i in range(n):
        late = rng.choice([0, 0, 0, 0, 30, 300, 900]) * MICROS
        at = start + i * (span_us // n) - rng.randrange(late + 1)
        status = rng.choice(["paid", "open", None])
        rows.append((rng.randrange(20), at, f"s{seed}-{i}", rng.random() * 100, status))
        if rng.random() < 0.1:
            rows.append(rng.choice(rows[-200:]))
    card, at, name, amount, status = map(list, zip(*rows, strict=True))
    return {
        "card_id": card,
        "event_timestamp": [format_timestamp(t) for t in at],
        "payment_id": name,
        "amount": amount,
        "status": status,
    }


@contextmanager
def sending(send: Callable[[int], None], pause_s: float = 0.03) -> Iterator[None]:
    """Call `send` with 1, 2, … all the time, in a thread."""
    stop = threading.Event()

    def produce() -> None:
        seed = 0
        while not stop.is_set():
            seed += 1
            send(seed)
            time.sleep(pause_s)  # a load, no synchronisation

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
