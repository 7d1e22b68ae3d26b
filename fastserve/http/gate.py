"""Whether requests are let in. Who knows the load shuts it; the front end then refuses before it reads a body.

A refusal must cost a fraction of an answer, or under overload the server would be busy refusing. So it is made once,
no Request is made for it, and a body that still comes is dropped where it lies.
"""

from __future__ import annotations

from collections.abc import Iterable


class Gate:
    """One for each server, on its event loop.

    Args:
        paths: those that may be refused; others, a health check say, are always let in.

    Attributes:
        shut: requests for `paths` are answered 429 with Retry-After.
        refused: how many were.
    """

    __slots__ = ("paths", "refused", "shut")

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self.paths = frozenset(paths)
        self.shut = False
        self.refused = 0

    def refuses(self, path: str | None) -> bool:
        """Whether a request must be refused; it is counted then."""
        if self.shut and path in self.paths:
            self.refused += 1
            return True
        return False
