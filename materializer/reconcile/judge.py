"""What is wrong with one key, if anything: the row that history has for it now beside the one that is held online.

Held rows and rows of history have a present each: both hold within the view's ttl, or do not count. In this order:

    corrupt   the held row cannot be read: cut, checksum, unknown format or layout
    ttl       it is past its ttl, history has none that holds, and it should have been dropped more than a day ago
    missing   history has a row that holds, nothing is held
    late      the held row is older than history's
    extra     the held row holds, history has no row of the key that does
    newer     the held row is newer than history's
    filled    equal times, other values, but only of fields that history's row is too old to have
    value     equal times, other values

`extra` and `newer` are `recent` while the held row was created within the grace: its history may be on its way.
Anything else is `equal`: the same bytes, the same values once defaults stand in, or nothing to answer on either side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias, get_args

from fastserve.codec.fields import encode_defaults
from fastserve.codec.rows import RowDecoder, read_header
from fastserve.codec.rows_py import field_values
from fastserve.errors import CodecError
from fastserve.online.base import ORDER, Rows
from fastserve.registry import RegisteredView
from fastserve.timeutil import DAY_US
from materializer.reconcile.request import DIFFERENCES

Difference: TypeAlias = Literal["missing", "late", "newer", "extra", "ttl", "value", "filled", "corrupt"]
Kind: TypeAlias = Difference | Literal["equal", "recent", "changed"]
"""`changed` is said of a key whose row online changed between two looks: nothing is known of it."""

assert get_args(Difference) == DIFFERENCES
REPAIRED: Final[frozenset[Kind]] = frozenset(("missing", "late", "ttl", "value", "corrupt"))
PRUNED: Final[frozenset[Kind]] = frozenset(("newer", "extra"))

_FOREVER: Final = 2**63 - 1


class Judge:
    """Judges keys of one view.

    Args:
        rv: the view.
        now_us: the present, microseconds UTC.
        grace_us: how long after its creation a row may be online without its history.
        dropped_us: how long after its event time a row is kept online at most; None for ever.
    """

    def __init__(self, rv: RegisteredView, now_us: int, grace_us: int, dropped_us: int | None) -> None:
        self._layouts = {layout.layout_id: layout for layout in rv.layouts}
        self._names = rv.view.feature_names
        self._decoder = RowDecoder(self._layouts, self._names, rv.defaults)
        self._defaults = encode_defaults(self._layouts, self._names, rv.defaults)
        self._holds_after = None if rv.view.ttl_us is None else now_us - rv.view.ttl_us
        self._dropped_by = None if dropped_us is None else now_us - dropped_us - DAY_US
        self._recent_from = now_us - grace_us

    def judge(self, keys: Sequence[bytes], truth: Rows, held: Rows) -> list[Kind]:
        """The kind of each key.

        Args:
            keys: n keys.
            truth: history's newest row of each that holds now; None for none.
            held: what the store has for each.
        """
        found: list[Kind] = ["equal"] * len(keys)
        unsure = [i for i in range(len(keys)) if held[i] is not None and held[i] != truth[i]]
        wrong = self._unreadable([keys[i] for i in unsure], [held[i] for i in unsure])
        corrupt = {i for i, bad in zip(unsure, wrong, strict=True) if bad}
        for i in unsure:
            row = held[i]
            assert row is not None
            found[i] = "corrupt" if i in corrupt else self._compared(keys[i], truth[i], row)
        for i in range(len(keys)):
            if held[i] is None and truth[i] is not None:
                found[i] = "missing"
        return found

    def differing(self, key: bytes, truth: bytes, held: bytes) -> list[str]:
        """The fields whose values differ between two rows of a key, bit by bit."""
        mine, theirs = self._values(key, truth), self._values(key, held)
        return [name for name in self._names if mine[name] != theirs[name]]

    def _compared(self, key: bytes, truth: bytes | None, held: bytes) -> Kind:
        _, event_us, created_us = read_header(held)
        if self._holds_after is not None and event_us <= self._holds_after:
            if truth is not None:
                return "late"
            return "ttl" if self._dropped_by is not None and event_us <= self._dropped_by else "equal"
        if truth is None or held[ORDER] > truth[ORDER]:
            if created_us > self._recent_from:
                return "recent"
            return "extra" if truth is None else "newer"
        if held[ORDER] < truth[ORDER]:
            return "late"
        return self._same_times(key, truth, held)

    def _same_times(self, key: bytes, truth: bytes, held: bytes) -> Kind:
        names = self.differing(key, truth, held)
        if not names:
            return "equal"
        known = self._layouts[read_header(truth)[0]].index
        return "value" if any(name in known for name in names) else "filled"

    def _values(self, key: bytes, row: bytes) -> Mapping[str, bytes | None]:
        """Every field's bytes as a reader takes them: a field that the row is too old for has its default."""
        layout = self._layouts[read_header(row)[0]]
        stored = field_values(layout, key, row)
        return {
            name: stored[layout.index[name]] if name in layout.index else self._defaults.get(name)
            for name in self._names
        }

    def _unreadable(self, keys: Sequence[bytes], rows: Rows) -> list[bool]:
        """Which of the rows no reader could read; halved until a bad one is alone."""
        if not keys:
            return []
        try:
            self._decoder.decode(keys, rows, now_us=_FOREVER, ttl_us=None)
        except CodecError:
            if len(keys) == 1:
                return [True]
            half = len(keys) // 2
            return self._unreadable(keys[:half], rows[:half]) + self._unreadable(keys[half:], rows[half:])
        return [False] * len(keys)
