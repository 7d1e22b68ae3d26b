"""Connections that the server ended: counted each, told now and then."""

from fastserve.http.endings import EVERY_S, Endings, address
from fastserve.http.stats import Stats


def test_each_is_counted_and_few_are_told(caplog):
    endings = Endings()
    for i in range(1000):
        endings.note("frame_budget", ("127.0.0.1", 5), 100.0 + i / 1000)
    assert endings.counts["frame_budget"] == 1000
    assert [r.getMessage() for r in caplog.records] == [
        "ended the connection of 127.0.0.1:5: too many frames, chunks or refused requests for too little work"
    ]
    endings.note("frame_budget", ("::1", 6, 0, 0), 101.0 + EVERY_S)
    assert caplog.records[-1].getMessage().startswith("ended the connection of [::1]:6: ")
    assert caplog.records[-1].getMessage().endswith("(999 more since the last line of this kind)")
    endings.note("slow_head", None, 101.0)  # another kind has a line of its own
    assert len(caplog.records) == 3


def test_what_is_no_fault_is_only_counted(caplog):
    endings = Endings()
    endings.note("idle", ("127.0.0.1", 5), 0.0)
    assert endings.counts["idle"] == 1 and not caplog.records


def test_the_counters_have_every_reason_from_the_start():
    stats = Stats()
    assert stats.as_dict()["ended_frame_budget"] == 0
    stats.endings.note("slow_reader", ("127.0.0.1", 5), 0.0)
    assert stats.as_dict()["ended_slow_reader"] == 1


def test_addresses():
    assert address(("127.0.0.1", 80)) == "127.0.0.1:80"
    assert address("") == "a client that is gone"
