"""A circuit breaker: a store that failed again and again is left alone for a while.

    closed ──FAILURES in a row──► open ──pause──► one read tries ──answered──► closed
                                   ▲                    │failed: twice the pause
                                   └────────────────────┘

Without it every read of a dead store would wait for its deadline, and hold memory and the client meanwhile.
"""

from __future__ import annotations

import logging
import random
from typing import Final

from fastserve.errors import StoreError

log = logging.getLogger(__name__)

FAILURES: Final = 5
FIRST_PAUSE_US: Final = 200_000
LONGEST_PAUSE_US: Final = 5_000_000


class Breaker:
    """See the module's docstring. Times are the monotonic clock's microseconds.

    Attributes:
        opened: how often it opened.
        failures: of the store, ever.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._pause_us = 0  # 0: closed
        self._open_until = 0
        self._trying = False
        self._why = ""
        self.opened = self.failures = 0

    @property
    def is_open(self) -> bool:
        """Whether reads are refused, but for one that tries."""
        return self._pause_us > 0

    def refusal(self, moment: int) -> str:
        """Why the store must not be asked now; '' when it may. After a pause one caller may try."""
        if not self._pause_us:
            return ""
        if moment < self._open_until:
            return self._why
        # The others wait for how this one fares; if nobody hears of it, the next one tries after a pause.
        self._trying = True
        self._open_until = moment + self._pause_us
        return ""

    def succeeded(self) -> None:
        """The store answered."""
        if self._pause_us:
            log.info("the online store answers again")
        self._failures = self._pause_us = 0
        self._trying = False

    def failed(self, error: StoreError | None, moment: int) -> None:
        """The store failed with an error, or did not answer within the server's own deadline (None)."""
        self.failures += 1
        self._failures += 1
        if self._failures < FAILURES or (self._pause_us and not self._trying):
            return  # the latter was asked before it opened
        reason = error.message if error else "no answer in time"
        if not self._pause_us:
            self.opened += 1
            log.warning("the online store fails; asking it less: %s", reason)
        self._why = f"the online store failed lately: {reason}"
        self._pause_us = min(max(2 * self._pause_us, FIRST_PAUSE_US), LONGEST_PAUSE_US)
        self._open_until = moment + int(self._pause_us * random.uniform(0.8, 1.2))
        self._trying = False
