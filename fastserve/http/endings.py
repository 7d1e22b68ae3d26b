"""Why the server ended a connection: counted by reason, and a line in the log now and then."""

from __future__ import annotations

import logging
from typing import Final

log = logging.getLogger("fastserve.http")

REASONS: Final = {
    "protocol_error": "what it sent is not HTTP",
    "rejected": "its request breaks a limit",
    "frame_budget": "too many frames, chunks or refused requests for too little work",
    "header_bomb": "its headers unpack to far more than the limit",
    "slow_head": "no whole request head in time",
    "slow_body": "no whole request body in time",
    "slow_reader": "it does not read its answers",
    "input_after_end": "it went on sending after its last answer",
    "too_many": "too many connections",
    "idle": "nothing was asked for long",
}
QUIET: Final = frozenset(("idle", "rejected"))  # not worth a line: nobody did wrong, or the client was told
EVERY_S: Final = 10.0


class Endings:
    """Counts by reason; at most one line per reason and ten seconds.

    Attributes:
        counts: reason -> connections, every reason from the start.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(REASONS, 0)
        self._told = dict.fromkeys(REASONS, (-EVERY_S, 0))  # when, and the count then

    def note(self, reason: str, peer: object, now: float) -> None:
        """One more connection ended.

        Args:
            peer: the client's address, for the log.
            now: seconds, of any clock that does not go back.
        """
        self.counts[reason] += 1
        told_at, told = self._told[reason]
        if reason in QUIET or now - told_at < EVERY_S:
            return
        count = self.counts[reason]
        self._told[reason] = (now, count)
        more = f" ({count - told - 1} more since the last line of this kind)" if count - told > 1 else ""
        log.warning("ended the connection of %s: %s%s", address(peer), REASONS[reason], more)


def address(peer: object) -> str:
    """A socket's peer name as text."""
    if isinstance(peer, tuple) and len(peer) >= 2:
        return f"[{peer[0]}]:{peer[1]}" if ":" in str(peer[0]) else f"{peer[0]}:{peer[1]}"
    return str(peer or "a client that is gone")
