"""Every bound of the front end in one frozen object. Times are seconds, sizes are bytes.

Operators set them by name: `[limits]` in fastserve.toml, FASTSERVE_LIMITS, `fastserve serve --limit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Final

from fastserve.errors import ConfigError

KIB: Final = 1024
MIB: Final = 1024 * KIB
MOST: Final = 2**31 - 1  # that HTTP/2 can say of a window


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may cost us.

    Per request
        max_header_bytes: names + values (+ 32 each in HTTP/2, RFC 9113 6.5.2) -> 431.
        max_target_bytes: path and query -> 414.
        max_body_bytes: -> 413.
    Per connection
        max_buffered_body_bytes: request bodies held at once, unfinished or unanswered -> 413.
        max_pending_response_bytes: answers not yet on the wire; beyond it new HTTP/2 streams are refused.
        max_concurrent_streams: requests in flight (HTTP/2).
        write_high_water_bytes: in the transport; beyond it no more DATA is pulled from the answers.
        stream_window_bytes, connection_window_bytes: HTTP/2 receive windows for request bodies.
        control_frame_budget: tokens. A frame costs one that is neither HEADERS of an open stream nor useful
            DATA, which ends its request or brings it 64 bytes; and one more per 64 bytes of it. RST_STREAM
            costs two, whoever sends it, and a request that a limit turns away one. In HTTP/1.1 a chunk of
            less than 64 bytes costs one. 4 come back per answered request, 1 per 4 KiB of body in either
            direction, control_frames_per_second with time. None left: GOAWAY(ENHANCE_YOUR_CALM), or 400.
    Time
        header_timeout_s: from connect, or the first byte of a head, to its end -> 408.
        body_timeout_s: from the head to the last byte of the body -> 408.
        idle_timeout_s: nothing in flight -> GOAWAY / close.
        write_timeout_s: answers wait and the client takes less than min_progress_bytes in it -> the
            connection is aborted.
        linger_timeout_s: how long to swallow input after a final answer, so that it is not lost to a
            TCP reset.
    Per server
        max_connections: more are closed at once.

    Raises:
        ConfigError: a value is not positive, or beyond MOST; a body of the largest size would not be held.
    """

    max_header_bytes: int = 64 * KIB
    max_target_bytes: int = 8 * KIB
    max_body_bytes: int = 8 * MIB
    max_buffered_body_bytes: int = 32 * MIB
    max_pending_response_bytes: int = 64 * MIB
    max_concurrent_streams: int = 128
    max_connections: int = 10_000
    write_high_water_bytes: int = 256 * KIB
    stream_window_bytes: int = MIB
    connection_window_bytes: int = 16 * MIB
    control_frame_budget: int = 500
    control_frames_per_second: int = 20
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    idle_timeout_s: float = 120.0
    write_timeout_s: float = 30.0
    min_progress_bytes: int = 4 * KIB
    linger_timeout_s: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value <= MOST:  # as NaN is not
                raise _wrong(
                    field.name, f"is {value}, it must be positive and at most {MOST:,}", field.default
                )
        if self.max_body_bytes > self.max_buffered_body_bytes:
            raise ConfigError(
                f"a body of {self.max_body_bytes:,} bytes is allowed, and {self.max_buffered_body_bytes:,} are held",
                where="limit max_body_bytes",
                hint="set max_buffered_body_bytes to as much, or to a few times that",
            )

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Limits:
        """The defaults but for these settings: numbers, or their text.

        Raises:
            ConfigError: there is no limit of a name, or its value will not do.
        """
        defaults = {field.name: field.default for field in fields(cls)}
        found = {}
        for name, value in settings.items():
            if name not in defaults:
                near = get_close_matches(name, defaults, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"limits: {', '.join(defaults)}"
                raise ConfigError("there is no such limit", where=f"limit {name}", hint=hint)
            found[name] = _number(name, value, defaults[name])
        return cls(**found)

    @property
    def sweep_interval_s(self) -> float:
        """How often deadlines are looked at: a quarter of the shortest, 20 ms to 1 s."""
        shortest = min(
            self.header_timeout_s,
            self.body_timeout_s,
            self.idle_timeout_s,
            self.write_timeout_s,
            self.linger_timeout_s,
        )
        return min(max(shortest / 4, 0.02), 1.0)


def _number(name: str, value: Any, default: Any) -> Any:
    """The value as what its default is: an int of bytes or things, a float of seconds."""
    kind = type(default)
    if isinstance(value, str):
        try:
            return kind(value)
        except ValueError:
            raise _wrong(name, f"is {value!r}, not {_KINDS[kind]}", default) from None
    if isinstance(value, bool) or not isinstance(value, (int, kind)):
        raise _wrong(name, f"is {value!r}, not {_KINDS[kind]}", default)
    return kind(value)


_KINDS: Final = {int: "a whole number", float: "a number of seconds"}


def _wrong(name: str, what: str, default: Any) -> ConfigError:
    return ConfigError(what, where=f"limit {name}", hint=f"leave it out for the default, {default:,}")
