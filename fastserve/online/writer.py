"""The writes of Redis, without I/O: batches become commands, commands get replies, a batch is done with its last one.

    jobs       [batch A: rows 4,000 … 4,096 to send] [batch B: all]         put_batch calls, first come first served
    sent       command of rows 3,800-3,900 of A, 3,900-4,000 of A           replies come in this order

Two commands write rows, and neither lets an older row replace a newer one, whoever else writes at the same time:

    script     compares each stored row's order with the new one's: 100 keys a run
    fresh      writes what is not there at all, without comparing: 200 keys, in half the server's time a row

Each runs whole or not at all, and publishes the keys it names (changes.py) as part of it. A first load is fresh; which
it is shows when it is tried: one command of a large batch asks, and the others follow while it answers yes. Rows that
a fresh command found in its way are sent again through the script, which is what decides.

Back-pressure: at most WINDOW bytes of commands are on their way; what is beyond waits as rows, and its callers with it.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from fastserve.batch import ReadBatch
from fastserve.errors import CodecError, StoreError, StoreUnavailableError
from fastserve.online.resp_write import Replies, encode_fresh, encode_script, rows_end
from fastserve.online.resp_write_py import Milliseconds

# The order is 16 bytes, compared as four big-endian u32: Lua's `<` on strings follows the locale, and its numbers
# hold 53 bits. What is too short to be a row, or no string, is not ours and gives way. One MGET and one MSET, because
# each call from Lua costs as much as two rows. KEYS, then ARGV: rows, channel, message of all keys, lifetimes.
NEWEST_WINS: Final = """
local n, held = #KEYS, redis.call('MGET', unpack(KEYS))
local stamp, put, m = struct.unpack, {}, 0
local expires, px = #ARGV > n + 2, {}
for i = 1, n do
  local row, old = ARGV[i], held[i]
  local newer = not old or #old < 24
  if not newer then
    local a, b = stamp('>I4I4', row, 9)
    local c, d = stamp('>I4I4', old, 9)
    if a == c and b == d then
      a, b = stamp('>I4I4', row, 17)
      c, d = stamp('>I4I4', old, 17)
    end
    newer = a > c or (a == c and b > d)
  end
  if newer then
    put[m + 1], put[m + 2] = KEYS[i], row
    m = m + 2
    if expires then px[m] = ARGV[n + 2 + i] end
  end
end
if m == 0 then return 0 end
if not expires then redis.call('MSET', unpack(put)) end
local said = {}
for i = 1, m, 2 do
  if expires then
    if px[i + 1] == '0' then redis.call('SET', put[i], put[i + 1])
    else redis.call('SET', put[i], put[i + 1], 'PX', px[i + 1]) end
  end
  if m < 2 * n and #put[i] < 65536 then said[#said + 1] = struct.pack('<I2', #put[i]) .. put[i] end
end
redis.call('PUBLISH', ARGV[n + 1], m < 2 * n and table.concat(said) or ARGV[n + 2])
return m / 2
"""
_SHA: Final = hashlib.sha1(NEWEST_WINS.encode()).hexdigest().encode()
_EVALSHA: Final = (b"EVALSHA", _SHA)
_EVAL: Final = (b"EVAL", NEWEST_WINS.encode())

SCRIPT_KEYS: Final = 100  # of a run: readers wait a quarter of a millisecond
FRESH_KEYS: Final = 200
MAX_BYTES: Final = 4 << 20  # of a command's rows
WINDOW: Final = 1 << 20
FRESH_FROM: Final = 1_000  # rows: pushes are smaller, and mostly of keys that are there
ASK_EVERY: Final = 256  # commands, after one that found rows in its way

Done: TypeAlias = Callable[[StoreError | None, int], None]
ErrorFactory: TypeAlias = Callable[[], StoreError]


@dataclass(slots=True, eq=False)
class _Job:
    """One put_batch. `next_row`: the first that no command has taken; `again`: ranges for the script."""

    batch: ReadBatch
    px: Milliseconds
    done: Done
    next_row: int = 0
    again: list[tuple[int, int, bool]] = field(default_factory=list)
    open: int = 0  # commands without a reply
    written: int = 0
    settled: bool = False

    @property
    def sendable(self) -> bool:
        return not self.settled and (bool(self.again) or self.next_row < len(self.batch))


@dataclass(frozen=True, slots=True)
class _Command:
    """What was sent. `queued`: a transaction's commands, 0 for a script; `full`: with the script's text."""

    job: _Job
    start: int
    stop: int
    queued: int
    full: bool
    n_bytes: int
    sent_at: float


class Writer:
    """See the module's docstring; a Talker of pump.py.

    Args:
        label: the server, for messages.
        channel: where changes are published.
        wake: called when there is something to send; `requests` is to be called soon.
    """

    def __init__(self, label: str, channel: bytes, wake: Callable[[], None]) -> None:
        self._label = label
        self._channel = channel
        self._wake = wake
        self._woken = False
        self._closed: ErrorFactory | None = None
        self._jobs: deque[_Job] = deque()
        self._sent: deque[_Command] = deque()
        self._sent_bytes = 0
        self._heard = 0.0
        self._replies = Replies()
        self._fresh = False  # whether the last fresh command found nothing in its way
        self._asking = False
        self._ask_in = 0

    def write(self, batch: ReadBatch, px: Milliseconds, done: Done) -> None:
        """Write a batch's rows; the newest wins.

        Args:
            batch: distinct keys, all with rows; not to be changed until `done`.
            px: int64[n] milliseconds a row lives, 0 for ever; None where all of them do.
            done: called once: None and how many keys got a new row, or the error. It must not raise.

        Raises:
            StoreError: it was closed.
        """
        if self._closed is not None:
            raise self._closed()
        job = _Job(batch, px, done)
        if not len(batch):
            done(None, 0)
            return
        self._jobs.append(job)
        self._call_for_requests()

    # ---- sending -----------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """How many batches have rows to send."""
        return sum(job.sendable for job in self._jobs)

    @property
    def waiting_since(self) -> float | None:
        """Since when the server owes a reply: when the oldest command was sent, or when it last replied.

        None when nothing is on the way. What is sent in one go may take longer than one reply may: while replies
        come, the server is there.
        """
        return max(self._sent[0].sent_at, self._heard) if self._sent else None

    def requests(self, now: float) -> bytes:
        """Commands of the rows that wait, up to the window; they count as sent from here on."""
        self._woken = False
        parts: list[bytes] = []
        while self._jobs and self._sent_bytes < WINDOW:
            job = self._jobs[0]
            if job.sendable:
                parts.append(self._next_command(job, now))
            else:  # it waits for replies; a range to send again brings it back
                self._jobs.popleft()
        return b"".join(parts)

    def _next_command(self, job: _Job, now: float) -> bytes:
        batch, queued, full = job.batch, 0, False
        if job.again:
            start, stop, full = job.again.pop()
            if (end := rows_end(batch, start, SCRIPT_KEYS, MAX_BYTES)) < stop:
                job.again.append((end, stop, full))
                stop = end
        else:
            start = job.next_row
            fresh = self._may_be_fresh(job)
            stop = job.next_row = rows_end(batch, start, FRESH_KEYS if fresh else SCRIPT_KEYS, MAX_BYTES)
            queued = 0 if not fresh else 2 if job.px is None else stop - start + 1
        if queued:
            data = encode_fresh(batch, start, stop, job.px, self._channel)
        else:
            data = encode_script(_EVAL if full else _EVALSHA, batch, start, stop, job.px, self._channel)
        self._sent.append(_Command(job, start, stop, queued, full, len(data), now))
        self._sent_bytes += len(data)
        job.open += 1
        return data

    def _may_be_fresh(self, job: _Job) -> bool:
        if len(job.batch) < FRESH_FROM or self._asking:
            return False
        if self._fresh:
            return True
        self._ask_in -= 1
        self._asking = self._ask_in < 0
        return self._asking

    # ---- receiving ---------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go; see asyncio.BufferedProtocol."""
        return self._replies.get_buffer(sizehint)

    def buffer_updated(self, size: int) -> bool:
        """Take the bytes, all of them; calls the `done` of the batches that are written now.

        Raises:
            CodecError: they are no reply to what was sent. The connection is of no use any more: `fail_sent`.
        """
        self._replies.buffer_updated(size)
        while self._sent and (reply := self._replies.take(self._sent[0].queued)) is not None:
            self._heard = time.monotonic()  # the clock of the loop, too
            self._take(self._sent.popleft(), reply)
        if not self._sent and self._replies.rest:
            raise CodecError("it answers what nobody asked")
        if self._jobs and self._sent_bytes < WINDOW // 2:
            self._call_for_requests()
        return False

    def _take(self, command: _Command, reply: int | str) -> None:
        job = command.job
        job.open -= 1
        self._sent_bytes -= command.n_bytes
        if command.queued:
            self._take_fresh(command, reply)
        elif isinstance(reply, int):
            job.written += reply
        elif reply.startswith("NOSCRIPT") and not command.full:
            self._again(command, full=True)
        else:
            self._settle(job, self._refusal(reply))
        if not job.open and not job.sendable:
            self._settle(job, None)

    def _take_fresh(self, command: _Command, reply: int | str) -> None:
        """What a fresh command could not write goes through the script, whatever the reason: that knows best."""
        n = command.stop - command.start
        written = 0 if isinstance(reply, str) else reply if command.job.px is not None else reply * n
        command.job.written += written
        self._fresh = written == n
        self._asking = False
        if not self._fresh:
            self._ask_in = ASK_EVERY
            self._again(command, full=False)

    def _again(self, command: _Command, *, full: bool) -> None:
        job = command.job
        if job.settled:
            return
        job.again.append((command.start, command.stop, full))
        if job not in self._jobs:
            self._jobs.appendleft(job)
        self._call_for_requests()

    def _refusal(self, text: str) -> ErrorFactory:
        hint = ""
        if "channel" in text:
            channel = self._channel.decode()
            hint = f"an account that writes publishes what it changed: ACL SETUSER … &{channel}"
        elif text.startswith("NOAUTH"):
            hint = "the URL carries it: redis://:password@host or redis://user:password@host"
        return lambda: StoreUnavailableError(f"Redis at {self._label} answered: {text}", hint=hint)

    def _settle(self, job: _Job, make_error: ErrorFactory | None) -> None:
        if not job.settled:
            job.settled = True
            job.done(None if make_error is None else make_error(), job.written)

    def _call_for_requests(self) -> None:
        if not self._woken:
            self._woken = True
            self._wake()

    # ---- failing -----------------------------------------------------------------------------------

    def fail_sent(self, make_error: ErrorFactory) -> None:
        """The connection is lost: batches of which anything was on its way fail. What is queued stays so."""
        self._replies.clear()
        self._asking = self._fresh = False
        sent, self._sent, self._sent_bytes = self._sent, deque(), 0
        for command in sent:
            self._settle(command.job, make_error)
        self._jobs = deque(job for job in self._jobs if not job.settled)

    def fail_all(self, make_error: ErrorFactory) -> None:
        """There is no connection: all who wait fail."""
        self._woken = False
        self.fail_sent(make_error)
        jobs, self._jobs = self._jobs, deque()
        for job in jobs:
            self._settle(job, make_error)

    def close(self, make_error: ErrorFactory) -> None:
        """All who wait fail, and so does every later write."""
        self._closed = make_error
        self.fail_all(make_error)
