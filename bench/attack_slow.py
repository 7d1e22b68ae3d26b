"""Clients that are slow on purpose: what each sends at once, what then byte by byte, and what the server calls it."""

from __future__ import annotations

from typing import Final, TypeAlias

from hpack import Encoder
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame, SettingsFrame, WindowUpdateFrame

from bench.attack_h1 import CHUNKED
from bench.attack_kinds import BIG, OPEN, PREFACE, REQUEST, WINDOW_SIZE, headers, whole

Slow: TypeAlias = tuple[bytes, bytes, str]

_block = Encoder().encode(REQUEST)
_long_head = HeadersFrame(1, _block * 40).serialize()
_short_head = HeadersFrame(1, b"").serialize()
_more = ContinuationFrame(1, _block).serialize()
_unfinished = OPEN + HeadersFrame(1, _block).serialize()
_many = Encoder()
MANY_BIG = b"".join(whole(_many, stream_id, BIG) for stream_id in range(1, 200, 2))
_closed = PREFACE + SettingsFrame(0, {WINDOW_SIZE: 0}).serialize()
_drip = WindowUpdateFrame(1, window_increment=1).serialize()
H2_SLOW: Final[dict[str, Slow]] = {
    "nothing": (b"", b"", "slow_head"),
    "part of the preface": (PREFACE[:10], b"", "slow_head"),
    "preface byte by byte": (b"", PREFACE[:-1], "slow_head"),
    "head without an end": (_unfinished, b"", "slow_head"),
    "head byte by byte": (OPEN + _long_head[:9], _long_head[9:], "slow_head"),
    "continuations byte by byte": (OPEN + _short_head + _more[:9], _more[9:], "slow_head"),
    "settings byte by byte": (PREFACE, SettingsFrame(0, {}).serialize(), "idle"),
    "idle": (OPEN, b"", "idle"),
    "body without an end": (OPEN + headers(Encoder(), 1), b"", "idle"),
    "body byte by byte": (OPEN + headers(Encoder(), 1), DataFrame(1, b"x").serialize(), "idle"),
    "answers behind a closed window": (_closed + MANY_BIG, b"", "slow_reader"),
    "window opened byte by byte": (_closed + whole(Encoder(), 1, BIG), _drip, "slow_reader"),
}
H1_SLOW: Final[dict[str, Slow]] = {
    "head without an end": (b"GET / HTTP/1.1\r\nhost", b"", "slow_head"),
    "head byte by byte": (b"GET / HTTP/1.1\r\nhost: ", b"x", "slow_head"),
    "body without an end": (b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1000\r\n\r\n", b"x", "slow_body"),
    "chunks byte by byte": (CHUNKED, b"1\r\nx\r\n", "slow_body"),
    "idle": (b"GET / HTTP/1.1\r\nhost: h\r\n\r\n", b"", "idle"),
}
