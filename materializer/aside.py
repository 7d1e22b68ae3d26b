"""Work beside the one who asks for it: on one thread, in the order given, no more of it waiting than said.

caller   read 1 | read 2 | read 3 |  …  | read 4          reading goes on while the thread works,
thread            ── work 1 ──|── work 2 ──|── work 3     and waits for it where it falls behind
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Aside:
    """One thread for jobs that take turns. A context manager; leaving it drops what has not begun.

    Args:
        ahead: jobs that may be there unfinished: what they hold is all the memory that this takes.
    """

    def __init__(self, ahead: int = 1) -> None:
        self._ahead = ahead
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fastserve-aside")
        self._jobs: deque[Future[None]] = deque()

    def __enter__(self) -> Aside:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def do(self, job: Callable[[], None]) -> None:
        """Have it done; waits until there is room. Raises what an earlier job raised, which this one then is not."""
        while len(self._jobs) >= self._ahead:
            self._jobs.popleft().result()
        self._jobs.append(self._pool.submit(job))

    def finish(self) -> None:
        """Wait for all; raises what a job raised."""
        while self._jobs:
            self._jobs.popleft().result()
