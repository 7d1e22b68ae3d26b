"""Abuse of the front end: when is a client cut off, what does it cost, and what do the others notice of it?

Every kind of attack_kinds.py, attack_h1.py and attack_slow.py against the front end with its default limits, in
cleartext and over TLS. The good client asks one small answer at a fixed rate on a connection of its own; its times
count from when a request was due. The handshake of TLS is not what is measured: it costs the same whatever follows.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from hpack import Encoder

from bench import attack_h1, attack_kinds
from bench.attack_kinds import OPEN, QUICK
from bench.attack_loop import attack, bytes_of
from bench.attack_slow import H1_SLOW, H2_SLOW
from bench.attack_target import ANSWER
from bench.attack_wire import H1, H2, Address, Attacker, GoodClient
from bench.measure import Figure, alternate
from bench.processes import CLIENT_CORE, SERVER_CORE, cpu_s, rss_bytes, running
from bench.record import Table, Target, save
from bench.scale import ROUNDS, scaled
from bench.world import ROOT
from fastserve.http.limits import Limits

BUDGET: Final = Limits().control_frame_budget
OVER: Final = 200
RATE: Final = 500  # of the good client, requests a second
ATTACKS: Final = 25  # a second, of one attacker
SECONDS: Final = scaled(1.0, 0.1)
CONNECTIONS: Final = scaled(200, 2)  # of one kind, for the memory
HELD: Final = scaled(50, 2)  # slow clients of one kind
STATS: Final = [*QUICK[:2], (":path", "/stats"), (":authority", "h")]
H2_KINDS: Final = attack_kinds.FLOODS | attack_kinds.SINGLE
KINDS: Final = scaled([*H2_KINDS, *attack_h1.FLOODS], ["rapid_reset", "one_byte_data", "one_byte_chunks"])
MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Front:
    """The server that is attacked."""

    pid: int
    ports: Mapping[str, Address]  # cleartext, TLS

    def good(self, transport: str) -> GoodClient:
        """A good client that has been answered."""
        client = GoodClient(self.ports[transport], QUICK, answer=ANSWER)
        client.ask()
        return client


def main() -> int:
    """Measure and write bench/results/abuse.json."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    with front({"control_frames_per_second": 1}) as server:
        held = []
        for _ in range(3):  # what the first rounds leave is a heap that has been used, not a leak
            cut = {kind: cut_off(server, kind) for kind in KINDS}
            held.append(rss_bytes(server.pid))
    with front() as server:
        noticed = {transport: notice(server, transport) for transport in server.ports}
        slow = slow_table(server)
    report(cut, (held[-1] - held[-2]) / MIB, noticed, slow)
    return 0


@contextlib.contextmanager
def front(limits: Mapping[str, float] = MappingProxyType({})) -> Iterator[Front]:
    """A server on the servers' core, with the default limits but these."""
    with tempfile.TemporaryDirectory() as folder:
        cert, key = str(Path(folder, "cert.pem")), str(Path(folder, "key.pem"))
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        make += ["-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", cert]
        subprocess.run(make, check=True, capture_output=True)
        said = Path(folder, "said")
        command = [
            sys.executable,
            "-m",
            "bench.attack_target",
            json.dumps(dict(limits)),
            cert,
            key,
            str(said),
        ]
        with running(command, core=SERVER_CORE, ready=b'"ready"', env={"PYTHONPATH": str(ROOT)}) as started:
            ports = json.loads(said.read_text())
            addresses = {
                "cleartext": Address(ports["port"]),
                "TLS": Address(ports["tls_port"], tls=True),
            }
            yield Front(started.process.pid, addresses)


# ---- floods: how many frames, how much memory ----


def cut_off(server: Front, kind: str) -> dict[str, float]:
    """Frames until the connection is ended, and memory that many connections leave behind."""
    found: dict[str, float] = {}
    for transport, address in server.ports.items():
        good = server.good(transport)
        with contextlib.closing(Attacker(address, H2 if kind in H2_KINDS else H1)) as one:
            if kind in H2_KINDS:
                one.send(OPEN)
                pieces = one.flood(H2_KINDS[kind](Encoder()), good, BUDGET + OVER)
            else:
                pieces = one.flood(attack_h1.FLOODS[kind](), good, BUDGET + OVER)
        good.close()
        found[f"frames_{transport}"] = pieces
        protocol, data = bytes_of(kind)
        for i in range(CONNECTIONS + CONNECTIONS // 10):
            if i == CONNECTIONS // 10:
                before = rss_bytes(server.pid)
            if not attack(address, protocol, data):
                raise RuntimeError(f"{kind} over {transport} was not ended")
        found[f"RSS_{transport}"] = (rss_bytes(server.pid) - before) / MIB
    return found


# ---- what a good client notices ----


def notice(server: Front, transport: str) -> dict[str, dict[str, list[float]]]:
    """Its times with nobody else there, with each kind of attack, and with all kinds as fast as they go."""
    systems: dict[str, Callable[[], Mapping[str, float]]] = {
        "nobody else": lambda: beside(server, transport, (), 0)
    }
    kinds = KINDS if transport == "cleartext" else []
    for kind in kinds:
        systems[kind] = lambda kind=kind: beside(server, transport, (kind,), ATTACKS)  # type: ignore[misc]
    systems["all kinds in turn"] = lambda: beside(server, transport, KINDS, ATTACKS)
    systems["all kinds, without a pause"] = lambda: beside(server, transport, KINDS, 0)
    return alternate(systems, rounds=ROUNDS)


def beside(
    server: Front, transport: str, kinds: tuple[str, ...] | list[str], rate: float
) -> dict[str, float]:
    """The good client's p50 and p99 beside an attacker, and the server's CPU for one attack."""
    address = server.ports[transport]
    command = [sys.executable, "-m", "bench.attack_loop", str(address.port), str(int(address.tls)), str(rate)]
    with contextlib.ExitStack() as stack:
        if kinds:
            env = {"PYTHONPATH": str(ROOT)}
            stack.enter_context(running([*command, *kinds], core=CLIENT_CORE, ready=b"ready", env=env))
        good = server.good(transport)
        before, used = connections(good), cpu_s(server.pid)
        times = ask_at_rate(good)
        used = cpu_s(server.pid) - used
        attacks = connections(good) - before
        good.close()
    quantiles = np.quantile(times, (0.5, 0.99)) * 1e6
    return {"p50_us": quantiles[0], "p99_us": quantiles[1], "attacks": attacks, "cpu_s": used}


def connections(good: GoodClient) -> int:
    """Accepted so far."""
    return int(json.loads(good.ask(STATS, any_answer=True))["connections"])


def ask_at_rate(good: GoodClient) -> list[float]:
    """Seconds from when each request was due to its answer; every answer is checked."""
    times, begun = [], time.perf_counter()
    for i in range(int(RATE * SECONDS)):
        due = begun + i / RATE
        while (left := due - time.perf_counter()) > 0:
            time.sleep(left)
        good.ask()
        times.append(time.perf_counter() - due)
    return times


# ---- slow clients: how long, how much memory while they are there ----


def slow_table(server: Front) -> Table:
    """All kinds at once, some clients of each."""
    table = Table(
        f"slow clients, {HELD} of each kind at once",
        {"ended_s_cleartext": "s", "ended_s_TLS": "s", "KiB_each_cleartext": "KiB", "KiB_each_TLS": "KiB"},
    )
    rows: dict[str, dict[str, float]] = {}
    for transport, address in server.ports.items():
        for name, figures in hold(server, address, server.good(transport)).items():
            rows.setdefault(name, {}).update({f"{what}_{transport}": n for what, n in figures.items()})
    for name, figures in rows.items():
        table.add(name, **figures)
    return table


def hold(server: Front, address: Address, good: GoodClient) -> dict[str, dict[str, float]]:
    """Open them kind by kind, looking at the memory; then see when each is ended. Meanwhile a good client is served."""
    found: dict[str, dict[str, float]] = {}
    held: list[tuple[str, list[Attacker], Iterator[bytes], float]] = []
    for protocol, kinds in ((H2, H2_SLOW), (H1, H1_SLOW)):
        for kind, (start, drip, _) in kinds.items():
            name, before = f"{protocol}: {kind}", rss_bytes(server.pid)
            begun = time.monotonic()
            clients = [Attacker(address, protocol) for _ in range(HELD)]
            for client in clients:
                client.send(start)
            good.ask()
            good.ask()
            found[name] = {"KiB_each": (rss_bytes(server.pid) - before) / 1024 / HELD}
            held.append((name, clients, cycle([drip[i : i + 1] for i in range(len(drip))]), begun))
    give_up = time.monotonic() + scaled(300, 1)
    while held and time.monotonic() < give_up:
        time.sleep(0.5)
        good.ask()
        left = []
        for name, clients, drops, begun in held:
            drop = next(drops, b"")
            for client in clients:
                client.send(drop)
            if sum(client.look() for client in clients) == len(clients):
                found[name]["ended_s"] = time.monotonic() - begun
            else:
                left.append((name, clients, drops, begun))
        held = left
    good.close()
    return found


# ---- report ----


def report(
    cut: Mapping[str, dict[str, float]], grown: float, noticed: Mapping[str, Any], slow: Table
) -> None:
    """Tables, targets, file."""
    frames = Table(
        f"floods (budget {BUDGET}); memory after {CONNECTIONS} connections of a kind",
        {"frames_cleartext": "", "frames_TLS": "", "RSS_cleartext": "MiB", "RSS_TLS": "MiB"},
    )
    for kind, figures in cut.items():
        frames.add(kind, **figures)
    most = max(
        figures[f"frames_{transport}"] for figures in cut.values() for transport in ("cleartext", "TLS")
    )
    connections_a_round = 2 * len(cut) * (CONNECTIONS + CONNECTIONS // 10)
    tables, targets = [frames], [
        Target("abuse: frames over the budget until the end, the most of any kind", most - BUDGET, at_most=OVER),
        Target(f"abuse: memory grown by {connections_a_round:,} more connections, MiB", grown, at_most=8),
    ]  # fmt: skip
    for transport, found in noticed.items():
        tables.append(noticed_table(transport, found))
        alone = Figure(tuple(found["nobody else"]["p99_us"]))
        over = Figure(tuple(found["all kinds in turn"]["p99_us"])).over(alone).median
        what = f"abuse: p99 of a good client beside {ATTACKS} attacks a second over alone, {transport}"
        targets.append(Target(what, over, at_most=1.5, reach=1.1))
    save("abuse", "Abuse", [*tables, slow], targets=targets, notes=NOTES)


def noticed_table(transport: str, found: Mapping[str, Mapping[str, list[float]]]) -> Table:
    """The good client's times by what is beside it."""
    alone = Figure(tuple(found["nobody else"]["p99_us"]))
    table = Table(
        f"a good client, {RATE} requests/s, {transport}; beside it",
        {
            "p50_us": "us",
            "p99_us": "us",
            "p99_over_alone": "x",
            "attacks_per_s": "",
            "CPU_ms_an_attack": "ms",
        },
    )
    for name, rounds in found.items():
        p99 = Figure(tuple(rounds["p99_us"]))
        row = {"p50_us": Figure(tuple(rounds["p50_us"])), "p99_us": p99, "p99_over_alone": p99.over(alone)}
        if name != "nobody else":
            row |= costs(rounds, found["nobody else"])
        table.add(name, **row)
    return table


def costs(rounds: Mapping[str, list[float]], alone: Mapping[str, list[float]]) -> dict[str, Figure]:
    """How many attacks there were, and the server's CPU for one."""
    count = [max(1.0, n) for n in rounds["attacks"]]
    own = zip(rounds["cpu_s"], alone["cpu_s"], count, strict=True)
    return {
        "attacks_per_s": Figure(tuple(n / SECONDS for n in count), smaller_is_better=False),
        "CPU_ms_an_attack": Figure(tuple((used - base) / n * 1e3 for used, base, n in own)),
    }


NOTES: Final = (
    "Frames are counted in step with the server, nothing in flight: after twenty a good client is served twice, so that"
    " the server has read all. In HTTP/1.1 a frame is a chunk, a header or 1,000 bytes. There time gives back one"
    " token a second, not 20, so that the speed of the attacker does not matter.",
    "An attack is one connection that sends 1,000 frames in one go and is ended, its set-up (with TLS the handshake)"
    " included. An attacker that comes back without a pause takes that CPU as often as it connects: whoever must keep"
    " that small limits connections a second per address before the server.",
)

if __name__ == "__main__":
    sys.exit(main())
