"""Every kind of abuse against a server process, in cleartext and over TLS: cut off in time, at no cost to others."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from itertools import cycle
from pathlib import Path

import pytest
from hpack import Encoder
from hyperframe.frame import SettingsFrame, WindowUpdateFrame

from bench import attack_h1
from bench.attack_kinds import (
    FLOODS,
    OPEN,
    PREFACE,
    QUICK,
    SINGLE,
    WINDOW_SIZE,
    flood_bytes,
)
from bench.attack_slow import H1_SLOW, H2_SLOW, MANY_BIG
from bench.attack_wire import H1, Address, Attacker, GoodClient
from bench.processes import rss_bytes

BUDGET = 300
OVER = 200  # frames over the budget, at most
MIB = 1024 * 1024
STATS = [*QUICK[:2], (":path", "/stats"), (":authority", "h")]
ROOT = Path(__file__).parents[3]
LIMITS = {
    "control_frame_budget": BUDGET,
    "control_frames_per_second": 1,
    "max_concurrent_streams": 100,
    "max_header_bytes": 16 * 1024,
    "header_timeout_s": 0.6,
    "body_timeout_s": 0.4,
    "idle_timeout_s": 0.8,
    "write_timeout_s": 0.5,
    "linger_timeout_s": 0.1,
}


class Target:
    """The process that is attacked, and what its counters were."""

    def __init__(self, process, session, address):
        self.pid = process.pid
        self.native = "native" in session
        self.address = address
        self.good = GoodClient(address, QUICK, answer=b"right")

    def stats(self):
        return json.loads(self.good.ask(STATS, any_answer=True))

    def close(self):
        self.good.close()

    def until(self, condition):
        """Until the counters are so; asked as fast as they are answered."""
        give_up = time.monotonic() + 20
        while not condition(self.stats()):
            assert time.monotonic() < give_up, self.stats()
            self.good.ask()


@pytest.fixture(scope="module", params=["py", "native"])
def process(request, certificate):
    """The server, by the native session and by its twin."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    env.pop("FASTSERVE_NO_EXTENSIONS", None)
    if request.param == "py":
        env["FASTSERVE_NO_EXTENSIONS"] = "1"
    command = [sys.executable, "-m", "bench.attack_target", json.dumps(LIMITS), *certificate]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as started:
        try:
            said = json.loads(started.stdout.readline())
            if request.param == "native" and "native" not in said["session"]:
                pytest.skip("fastserve._native.h2 is not built (libnghttp2 missing, or a pure install)")
            yield started, said
        finally:
            started.terminate()
            log = started.stderr.read().decode()
    assert "Traceback" not in log, log


@pytest.fixture(params=["cleartext", "TLS"])
def target(request, process):
    """The server by one of its ports, and a good client of it."""
    started, said = process
    tls = request.param == "TLS"
    target = Target(started, said["session"], Address(said["tls_port" if tls else "port"], tls))
    with contextlib.closing(target):
        yield target


@contextlib.contextmanager
def attacker(target, protocol="h2"):
    """A connection to misuse."""
    with contextlib.closing(Attacker(target.address, protocol)) as one:
        yield one


def ended_by(before, after):
    """Reasons that were counted in between."""
    return {
        name.removeprefix("ended_"): after[name] - n
        for name, n in before.items()
        if name.startswith("ended_") and after[name] != n
    }


@pytest.mark.parametrize("name", FLOODS | SINGLE)
def test_h2_flood(target, name):
    before = target.stats()
    with attacker(target) as abuser:
        abuser.send(OPEN)
        steps = (FLOODS | SINGLE)[name](Encoder())
        assert abuser.flood(steps, target.good, BUDGET + OVER) <= BUDGET + OVER
        assert ended_by(before, target.stats()).keys() <= {"frame_budget", "protocol_error", "header_bomb"}
        target.until(lambda now: now["open_connections"] <= before["open_connections"])


@pytest.mark.parametrize("name", attack_h1.FLOODS)
def test_h1_flood(target, name):
    before = target.stats()
    with attacker(target, H1) as abuser:
        assert abuser.flood(attack_h1.FLOODS[name](), target.good, BUDGET + OVER) <= BUDGET + OVER
        assert len(abuser.output) < 1000 and b" 200 " not in abuser.output
    assert sum(ended_by(before, target.stats()).values()) == 1


@pytest.mark.parametrize("name", attack_h1.SMUGGLING)
def test_h1_smuggling(target, name):
    before = target.stats()
    with attacker(target, H1) as abuser:
        abuser.send(attack_h1.SMUGGLING[name])
        while not abuser.look(5.0):
            pass
        assert abuser.output.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
        assert abuser.output.count(b"HTTP/1.1 ") == 1
    after = target.stats()
    assert after["requests"] - before["requests"] == 1  # the counters themselves
    assert ended_by(before, after).keys() <= {"protocol_error", "rejected"}


# ---- slow ones: the clock ends them ----

NO_HURRY = 15.0


def test_slow(target):
    """All at once. Those that drip send a byte twenty times a second, and so are never still."""
    before, wanted = target.stats(), Counter()
    with contextlib.ExitStack() as stack:
        at_it = []
        for protocol, kinds in (("h2", H2_SLOW), (H1, H1_SLOW)):
            for name, (start, drip, reason) in kinds.items():
                abuser = stack.enter_context(attacker(target, protocol))
                abuser.send(start)
                target.good.ask()
                at_it.append((name, abuser, cycle([drip[i : i + 1] for i in range(len(drip))])))
                wanted[reason] += 1
        give_up = time.monotonic() + NO_HURRY
        while at_it := [one for one in at_it if not one[1].look()]:
            assert time.monotonic() < give_up, [name for name, _, _ in at_it]
            target.good.ask()
            time.sleep(0.05)  # between two bytes of a drip
            for _, abuser, drops in at_it:
                abuser.send(next(drops, b""))
        target.until(lambda now: now["open_connections"] <= before["open_connections"])
    assert ended_by(before, target.stats()) == wanted


@pytest.mark.parametrize("protocol", ["h2", H1])
def test_unread_answers_are_bounded_and_cut_off(target, protocol):
    """Hundreds of answers of 50 KB asked for and none read, by ten clients."""
    before, rss = target.stats(), rss_bytes(target.pid)
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            abuser = stack.enter_context(attacker(target, protocol))
            abuser._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            if protocol == "h2":
                abuser.send(PREFACE + SettingsFrame(0, {WINDOW_SIZE: 2**31 - 1}).serialize())
                abuser.send(WindowUpdateFrame(0, window_increment=2**31 - 1 - 65_535).serialize() + MANY_BIG)
            else:
                abuser.send(b"GET /big HTTP/1.1\r\nhost: h\r\n\r\n" * 500)
            target.good.ask()
        most = 0
        while sum(ended_by(before, target.stats()).values()) < 10:
            most = max(most, rss_bytes(target.pid) - rss)
            target.good.ask()
        assert most < 30 * MIB  # of 50 and 250
        assert ended_by(before, target.stats()) == {"slow_reader": 10}
        target.until(lambda now: now["open_connections"] <= before["open_connections"])


def test_pipelined_requests_that_wait_hold_little(target):
    """Ten thousand in one go: a few are looked at, the others stay bytes."""
    before, rss = target.stats(), rss_bytes(target.pid)
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            abuser = stack.enter_context(attacker(target, H1))
            abuser.send(b"GET /wait HTTP/1.1\r\nhost: h\r\n\r\n" * 10_000)
        target.until(lambda now: now["requests"] >= before["requests"] + 10)
        assert rss_bytes(target.pid) - rss < 20 * MIB
    target.until(lambda now: now["open_connections"] <= before["open_connections"])


def test_pipelined_requests_are_all_answered(target):
    with attacker(target, H1) as client:
        client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n" * 2_000)
        while client.output.count(b"\r\n\r\nright") < 2_000:
            assert not client.look(5.0)


def test_idle_connections_delay_nobody(target):
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(attacker(target)).send(OPEN)
            target.good.ask()
        for _ in range(50):
            target.good.ask()


def test_after_its_end_a_tls_client_that_stays_is_cut_off(target):
    """It neither reads nor answers close_notify, and goes on sending."""
    before = target.stats()
    with attacker(target) as abuser:
        abuser.send(OPEN + flood_bytes("pings", BUDGET + 50))
        target.until(lambda now: now["ended_frame_budget"] == before["ended_frame_budget"] + 1)
        target.until(lambda now: now["open_connections"] <= before["open_connections"])


@pytest.fixture(scope="module")
def floods():
    return [flood_bytes(name, BUDGET + OVER) for name in FLOODS]


def test_memory_stays_flat_over_many_abusers(floods, target):
    """Every kind again and again; what a kind needs at its most is there after the first rounds."""

    def round_of_all():
        for data in floods:
            with attacker(target) as abuser:
                abuser.send(OPEN + data)
                target.good.ask()
                while not abuser.look(1.0):
                    target.good.ask()

    for _ in range(2):
        round_of_all()
    rss = rss_bytes(target.pid)
    for _ in range(10 if target.native else 3):
        round_of_all()
    assert rss_bytes(target.pid) - rss < 3 * MIB
