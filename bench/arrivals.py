"""Requests that leave on time, and what came of them: bench/arrivals.c is compiled, told what to ask, and read.

A latency counts from the instant a request was *due*, whether or not it left then: no coordinated omission. The
generator tells how late it was by its own fault; where that is not little, the run says nothing of the server.
"""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from hpack import Encoder

from bench.processes import CLIENT_CORE, cpu_s, pinned, prompt
from bench.scale import scaled
from bench.world import JSON, ROOT, Server, body_of, check
from fastserve.client.options import Retry

SOURCE: Final = Path(__file__).with_suffix(".c")
BINARY: Final = ROOT / "build" / "bench" / "arrivals"
PATH: Final = "/online-features/batch"
NS: Final = 1_000_000_000
NOBODY: Final = 0xFFFFFFFF
TOO_LATE, RESET = 1, 2  # in place of a status
FIRST_SAMPLES: Final = scaled(200, 20)
LATE_US: Final = 1_000.0  # a generator that is later than this measures itself
_PLAN: Final = struct.Struct("<12I5q2d")
_ATTEMPT: Final = np.dtype(
    [("due", "<i8"), ("sent", "<i8"), ("done", "<i8"), ("request", "<u4"), ("bytes", "<u4"),
     ("status", "<u2"), ("attempt", "<u2"), ("streams", "<u4")]
)  # fmt: skip

Times = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked, by whom.

    Attributes:
        bodies: requests take them in turns.
        check: raises when this answer to the body of that number is wrong; sees a sample.
        connections: to the server; each stands for a client, with its own budget of retries.
        streams: in flight on each, at most.
        room_s: how long who finds no stream free waits for one, then gives up.
        deadline_s: how long the caller of a request is interested; the server is told nine tenths of it, as the
            project's client does.
        retry: the client's policy; None takes a refusal for an answer.
        spin: never sleep; only where nobody else needs the core.
        path: what is asked for.
    """

    server: Server
    accept: str
    bodies: Sequence[bytes] = field(repr=False)
    check: Callable[[bytes, int], None] | None = None
    connections: int = 16
    streams: int = 100
    room_s: float = 0.01
    deadline_s: float = 1.0
    retry: Retry | None = None
    spin: bool = False
    path: str = PATH

    def heads(self) -> tuple[bytes, bytes]:
        """The first header block of a connection, and all the later ones, which only name what the first said."""
        pairs = [(":method", "POST"), (":scheme", "http"), (":authority", f"127.0.0.1:{self.server.port}")]
        pairs += [(":path", self.path), ("accept", self.accept), ("content-type", JSON)]
        pairs += [("fastserve-deadline-ms", str(max(1, int(self.deadline_s * 900))))]
        encoder = Encoder()
        return encoder.encode(pairs), encoder.encode(pairs)


def features(server: Server, accept: str, ids: Sequence[Sequence[int]], **how: Any) -> Ask:
    """Ask for the features of these entities, a request for each list, and check the answers."""

    def right(answer: bytes, body: int) -> None:
        check(answer, accept, ids[body])

    return Ask(server, accept, [body_of(some) for some in ids], right, **how)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        attempts: one for each time a request was sent or given up; see bench/arrivals.c.
        seconds: that it took.
        busy_share: of its time the generator worked.
        worst_turn_ms: the longest that the generator looked at nothing else.
        cpu_us: the server's CPU by answered attempt.
        checked: answers compared with what they must be; a wrong one raises.
    """

    attempts: npt.NDArray[Any] = field(repr=False)
    seconds: float
    busy_share: float
    worst_turn_ms: float
    cpu_us: float
    checked: int

    @property
    def lag_us(self) -> npt.NDArray[np.float64]:
        """How late each first attempt left while a stream was free for it: the generator's own fault."""
        left = (self.attempts["attempt"] == 1) & (self.attempts["sent"] > 0)
        free = self.attempts["streams"] < self.attempts["streams"].max(initial=0)
        some = self.attempts[left & free] if (left & free).any() else self.attempts[left]
        late: npt.NDArray[np.float64] = (some["sent"] - some["due"]) / 1e3
        return late

    @property
    def late(self) -> str:
        """Why this says nothing of the server ('' when it does): the generator did not keep its schedule."""
        lag = float(np.percentile(self.lag_us, 99)) if len(self.lag_us) else 0.0
        return f"the generator was late, by {lag:.0f} µs at p99" if lag > LATE_US else ""

    def good_per_s(self) -> float:
        """Answers with 200 in a second of the run."""
        return float(np.count_nonzero(self.attempts["status"] == 200) / self.seconds)

    def final(self) -> npt.NDArray[Any]:
        """The last attempt of each request, in the order of the requests; `due` is the first's."""
        order = np.lexsort((self.attempts["attempt"], self.attempts["request"]))
        sorted_ = self.attempts[order]
        last = np.append(sorted_["request"][1:] != sorted_["request"][:-1], True)
        first = np.append(True, last[:-1])
        found: npt.NDArray[Any] = sorted_[last].copy()
        found["due"] = sorted_["due"][first]
        return found


def poisson(rates: Sequence[tuple[float, float]], seed: int = 1) -> Times:
    """Arrivals of independent callers: (requests/s, seconds) after each other, as nanoseconds from the start."""
    random = np.random.default_rng(seed)
    found, begun = [], 0.0
    for rate, seconds in rates:
        n = random.poisson(rate * seconds)
        found.append(begun + np.sort(random.uniform(0, seconds, n)))
        begun += seconds
    return (np.concatenate(found) * NS).astype(np.int64)


def evenly(rate: float, seconds: float) -> Times:
    """Arrivals at equal distances."""
    return (np.arange(int(rate * seconds)) * (NS / rate)).astype(np.int64)


def open_loop(ask: Ask, due: Times, *, seed: int = 1) -> Outcome:
    """Send on schedule, whatever comes back."""
    return _run(ask, due, 0, float(due[-1]) / NS, seed)


def closed_loop(ask: Ask, in_flight: int, seconds: float) -> Outcome:
    """Keep so many requests in flight: what the server can do at most."""
    return _run(ask, np.zeros(0, np.int64), in_flight, seconds, 1)


def built() -> Path:
    """The generator, compiled when its source is newer."""
    if not BINARY.exists() or BINARY.stat().st_mtime < SOURCE.stat().st_mtime:
        BINARY.parent.mkdir(parents=True, exist_ok=True)
        command = [os.environ.get("CC", "cc"), "-O2", "-Wall", "-Wextra", "-o", str(BINARY), str(SOURCE)]
        subprocess.run([*command, "-lnghttp2"], check=True)
    return BINARY


def _run(ask: Ask, due: Times, closed: int, seconds: float, seed: int) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="fastserve-arrivals-") as folder:
        plan, results, samples = (Path(folder, name) for name in ("plan", "results", "samples"))
        plan.write_bytes(_plan(ask, due, closed, seconds, seed))
        before = cpu_s(ask.server.pid)
        command = pinned(CLIENT_CORE, [*prompt(), str(built()), str(plan), str(results), str(samples)])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        used = cpu_s(ask.server.pid) - before
        if done.returncode:
            raise RuntimeError(done.stderr.strip() or f"the generator ended with {done.returncode}")
        found = np.fromfile(results, _ATTEMPT)
        own, found = found[-1], found[:-1]
        took = float(own["due"])
        answered = int(np.count_nonzero(found["status"] >= 100))
        checked = _check(ask, samples.read_bytes())
    return Outcome(
        attempts=found,
        seconds=took / NS,
        busy_share=1 - float(own["sent"]) / took,
        worst_turn_ms=float(own["done"]) / 1e6,
        cpu_us=used * 1e6 / max(answered, 1),
        checked=checked,
    )


def _plan(ask: Ask, due: Times, closed: int, seconds: float, seed: int) -> bytes:
    retry = ask.retry or Retry(attempts=1)
    first, later = ask.heads()
    expected = len(due) or int(seconds * 50_000)
    every = max(1, expected // FIRST_SAMPLES) | 1  # odd, so that all bodies have their turn
    spare = min(retry.spare, 1 << 20)
    head = _PLAN.pack(
        ask.server.port, ask.connections, len(due), len(ask.bodies), ask.streams, len(first), len(later), every,
        closed, ask.spin, retry.attempts, seed, int(seconds * NS), int(ask.deadline_s * NS), int(ask.room_s * NS),
        int(retry.base_s * NS), int(retry.max_s * NS), spare, retry.share,
    )  # fmt: skip
    framed = b"".join(struct.pack("<I", len(body)) + body for body in ask.bodies)
    return head + np.ascontiguousarray(due, "<i8").tobytes() + first + later + framed


def _check(ask: Ask, samples: bytes) -> int:
    """Check the kept answers; how many."""
    at = n = 0
    while at < len(samples) and ask.check is not None:
        request, size = struct.unpack_from("<II", samples, at)
        ask.check(samples[at + 8 : at + 8 + size], request % len(ask.bodies))
        at += 8 + size
        n += 1
    return n
