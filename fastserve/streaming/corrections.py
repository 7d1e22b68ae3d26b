"""Rows put right in Redis, each if it still is, to the byte, what was looked at; a count rises with them, in one step.

A worker watches the count. So one that read a row before it was put right writes nothing of what it made of it, and one
that wrote a row first is not overwritten: whoever wanted to put it right is told, and looks again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from fastserve.online.exchange import script_calls
from fastserve.streaming.base import Correction

CORRECT: Final = """
local held, said, done = redis.call('MGET', unpack(KEYS, 2)), {}, {}
for i = 1, #KEYS - 1 do
  local key, old, seen, row, px = KEYS[i + 1], held[i], ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  local may = (old and '=' .. old or '') == seen
  done[i] = may and 1 or 0
  if may then
    redis.call('SET', key, row, 'PX', px)
    if #key < 65536 then said[#said + 1] = struct.pack('<I2', #key) .. key end
  end
end
if #said > 0 then
  redis.call('INCR', KEYS[1])
  redis.call('PUBLISH', ARGV[1], table.concat(said))
end
return done
"""
"""KEYS: the count, and the rows'; ARGV: channel, then for each row what was seen (after ``=``; empty: nothing), the new
row and the milliseconds it lives."""


def correction_calls(rows: Sequence[Correction]) -> Iterator[tuple[Sequence[bytes], list[Any]]]:
    """(KEYS without the count, ARGV without the channel) of each run of the script, bounded in keys and bytes."""
    lives = [max(-(-row.lifetime_us // 1_000), 1) for row in rows]
    return script_calls(
        [row.key for row in rows], [row.held for row in rows], [row.row for row in rows], lives
    )
