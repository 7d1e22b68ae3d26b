"""The native session gives back what it took, however a request and a connection end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import gc, resource
from h2.config import H2Configuration
from h2.connection import H2Connection
from fastserve._native.h2_client import Session
HEAD = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"h:1"), (b":path", b"/p"), (b"x", b"y")]

class Owner:
    told = 0
    def on_answer(self, *outcome):
        Owner.told += 1
    on_failed = on_answer

def run(k):
    session, server = Session(Owner(), 1 << 20), H2Connection(H2Configuration(client_side=False))
    server.initiate_connection()
    ids = [session.request(HEAD, bytes(3000)) for _ in range(10)]
    session.cancel(ids[0])
    server.receive_data(session.data_to_send(1 << 20))
    for stream_id in ids[1:5]:
        server.send_headers(stream_id, [(":status", "200"), ("z", str(k))])
        server.send_data(stream_id, bytes(5000), end_stream=True)
    server.reset_stream(ids[5], 7)
    server.close_connection(0, last_stream_id=ids[7])
    session.feed(server.data_to_send())
    session.data_to_send(1 << 20)
    if k % 2:
        session.close()

def peak():
    gc.collect()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

for k in range(200):
    run(k)
before = peak()
for k in range(1500):
    run(k)
grown = peak() - before
assert Owner.told == 7 * 1700, Owner.told
assert grown < 4096, f"{grown} KiB"
"""


def test_the_session_leaks_nothing() -> None:
    pytest.importorskip("fastserve._native.h2_client", reason="libnghttp2 missing, or a pure install")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
