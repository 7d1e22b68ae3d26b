"""Putting right rows that were looked at: exchange what was seen, and never what somebody wrote since.

`put_many` lets the newest win, which is no help against a row whose bytes are wrong and whose order is not the lowest:
nothing that is right would ever replace it. An exchange does, where the key still holds, to the byte, what was seen:

    holds what was seen     the new row stands there, or none
    holds another row       the new row replaces it only if it is newer, as put_many does
    holds nothing any more  left alone: whoever removed it knew why
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from fastserve.errors import InvalidDataError
from fastserve.online.base import MIN_ROW_BYTES, ORDER, Lifetimes, Rows, lifetimes_of

EXCHANGE: Final = """
local held, said, done = redis.call('MGET', unpack(KEYS)), {}, {}
local stamp = struct.unpack
for i = 1, #KEYS do
  local key, old, seen, row, px = KEYS[i], held[i], ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  local may = (old and '=' .. old or '') == seen
  if not may and old and row ~= '' then
    may = #old < 24
    if not may then
      local a, b = stamp('>I4I4', row, 9)
      local c, d = stamp('>I4I4', old, 9)
      if a == c and b == d then
        a, b = stamp('>I4I4', row, 17)
        c, d = stamp('>I4I4', old, 17)
      end
      may = a > c or (a == c and b > d)
    end
  end
  done[i] = may and 1 or 0
  if may then
    if row == '' then redis.call('DEL', key)
    elseif px == '0' then redis.call('SET', key, row)
    else redis.call('SET', key, row, 'PX', px) end
    if #key < 65536 then said[#said + 1] = struct.pack('<I2', #key) .. key end
  end
end
if #said > 0 then redis.call('PUBLISH', ARGV[1], table.concat(said)) end
return done
"""
"""KEYS; ARGV: channel, then for each key what was seen (after ``=``; empty: nothing), the new row (empty: none) and the
milliseconds it lives (0: for ever). Orders are compared as in writer.NEWEST_WINS."""

SCRIPT_KEYS: Final = 100
SCRIPT_BYTES: Final = 4 << 20


def may_replace(held: bytes | None, seen: bytes | None, row: bytes | None) -> bool:
    """Whether a key that holds `held` is to get `row`; the script does the same."""
    if held == seen:
        return True
    return held is not None and row is not None and (len(held) < MIN_ROW_BYTES or row[ORDER] > held[ORDER])


def check_exchange(
    keys: Sequence[bytes], seen: Rows, rows: Rows, lifetimes_us: Lifetimes
) -> list[tuple[bytes, bytes | None, bytes | None, int]]:
    """(key, seen, row, lifetime) of each; 0 for ever.

    Raises:
        InvalidDataError: for sequences of unequal length, a key that comes up twice, a row shorter than 24 bytes.
    """
    lifetimes = lifetimes_of(lifetimes_us, len(keys))
    if not len(keys) == len(seen) == len(rows) == len(lifetimes):
        raise InvalidDataError(
            f"{len(keys)} keys, {len(seen)} rows seen, {len(rows)} new rows and {len(lifetimes)} lifetimes"
            " do not pair up"
        )
    if len(set(keys)) < len(keys):
        raise InvalidDataError("a key comes up twice in one exchange")
    for key, row in zip(keys, rows, strict=True):
        if row is not None and len(row) < MIN_ROW_BYTES:
            raise InvalidDataError(
                f"a row is at least {MIN_ROW_BYTES} bytes, this one has {len(row)}", where=f"key {key!r}"
            )
    return list(zip(keys, seen, rows, lifetimes, strict=True))


def script_calls(
    keys: Sequence[bytes], seen: Rows, rows: Rows, px: Sequence[int]
) -> Iterator[tuple[Sequence[bytes], list[Any]]]:
    """(KEYS, ARGV without the channel) of each run of the script, bounded in keys and bytes.

    Args:
        px: milliseconds each row lives, 0 for ever.
    """
    start, size = 0, 0
    words: list[Any] = []
    for i, (old, row, life) in enumerate(zip(seen, rows, px, strict=True)):
        words += (b"" if old is None else b"=" + old, row or b"", life)
        size += len(words[-3]) + len(words[-2])
        if i + 1 - start == SCRIPT_KEYS or size > SCRIPT_BYTES or i + 1 == len(keys):
            yield keys[start : i + 1], words
            start, size, words = i + 1, 0, []
