"""One attacker that comes back as often as it is told: `python -m bench.attack_loop PORT TLS RATE KIND …`.

The kinds in turn, each as one piece of bytes on a connection of its own, RATE connections a second at most (0: as many
as the server takes). It gives way to whoever shares its core, so that the good client's times are the server's doing.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from itertools import cycle, islice

from bench import attack_h1
from bench.attack_kinds import FLOODS, OPEN, SINGLE, flood_bytes
from bench.attack_wire import H1, H2, Address, Attacker

PIECES = 1_000  # more than any budget allows


def bytes_of(kind: str) -> tuple[str, bytes]:
    """The protocol, and all that is sent."""
    if kind in FLOODS or kind in SINGLE:
        return H2, OPEN + flood_bytes(kind, PIECES)
    return H1, b"".join(data for data, _ in islice(attack_h1.FLOODS[kind](), PIECES))


def attack(address: Address, protocol: str, data: bytes) -> bool:
    """Connect, send all, read until the server has ended it; False when it did not in five seconds."""
    with contextlib.closing(Attacker(address, protocol)) as one:
        one.send(data)
        give_up = time.monotonic() + 5
        while not one.look(0.5):
            if time.monotonic() > give_up:
                return False
    return True


def main(arguments: list[str]) -> None:
    """Until it is killed."""
    port, tls, rate, *kinds = arguments
    address, every_s = Address(int(port), tls == "1"), 1 / float(rate) if float(rate) else 0.0
    os.nice(19)
    payloads = [bytes_of(kind) for kind in kinds]
    print("ready", flush=True)
    due = time.monotonic()
    for protocol, data in cycle(payloads):
        with contextlib.suppress(OSError):
            attack(address, protocol, data)
        due = max(due + every_s, time.monotonic() - every_s)
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main(sys.argv[1:])
