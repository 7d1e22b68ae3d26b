"""History's tiles before what a stream goes on with: against rows built of the events that should then be in them."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.aggregations.splice_py import TileSplicer
from fastserve.batch.batch_py import ReadBatch
from fastserve.errors import CodecError, InvalidDataError
from tests.unit.aggregations.programs import Asked, Case, cases
from tests.unit.aggregations.test_tiles import CREATED, batch_of, build, keys_of

EXAMPLES = int(os.environ.get("FASTSERVE_WINDOW_EXAMPLES", "100"))
EARLIER = 5
Events = list[Any]


def of(case: Case, events: Events) -> Case:
    return Case(case.dtypes, case.asked, case.m, tuple(events))


def splice(twin: Any, case: Case, history: Events, held: list[bytes | None], settled: int) -> Any:
    """The rows to be written."""
    out = twin.ReadBatch(keys_of(case))
    twin.TileSplicer(case.program, 3).splice_into(
        out,
        batch_of(twin, case, build(twin, of(case, history), settled)),
        batch_of(twin, case, held),
        settled_us=np.full(case.m, settled),
        created_us=CREATED,
    )
    return out.rows()


def rows_of(twin: Any, case: Case, events: Events, created: int = CREATED) -> list[bytes | None]:
    out = twin.ReadBatch(keys_of(case))
    builder = twin.TileBuilder(case.program, 3)
    builder.build_into(out, *case.arrays(events), end_us=10_000, created_us=created)
    rows: list[bytes | None] = out.rows()
    return rows


def chosen(hop: int, history: Events, stream: Events, settled: int) -> Events:
    """Event by event which ones a row is to have, of one hop and one entity."""
    known = [e for e in history if e[1] <= settled]
    if all(e[1] <= settled for e in stream):
        return known if known or not stream else []
    cut = settled // hop
    going_on = [e for e in stream if (e[1] - 1) // hop >= cut]
    has_cut = any((e[1] - 1) // hop == cut for e in stream)
    return [e for e in known if (e[1] - 1) // hop < cut + (not has_cut)] + going_on


@given(case=cases(), data=st.data(), settled=st.integers(-150, 160), hop=st.sampled_from([1, 10, 60]))
@settings(max_examples=EXAMPLES, deadline=None)
def test_rows_have_historys_events_and_the_streams(
    twin: SimpleNamespace, case: Case, data: st.DataObject, settled: int, hop: int
) -> None:
    """Whatever either of them has that the other lacks."""
    asked = tuple(Asked(each.function, each.column, each.window, hop) for each in case.asked)
    whose = data.draw(st.lists(st.sampled_from("hsb"), min_size=len(case.events), max_size=len(case.events)))
    case = Case(case.dtypes, asked, case.m, case.events)
    history = [e for e, who in zip(case.events, whose, strict=True) if who in "hb"]
    stream = [e for e, who in zip(case.events, whose, strict=True) if who in "sb"]
    held = rows_of(twin, case, stream, EARLIER)
    found = splice(twin, case, history, held, settled)
    for code in range(case.m):
        own = chosen(hop, *([e for e in some if e[0] == code] for some in (history, stream)), settled)
        wanted = rows_of(twin, case, own)[code]
        now = held[code] if found[code] is None else found[code]
        if wanted is None and now is not None:  # history has nothing, and the stream nothing that goes on
            codec = twin.TileSplicer(case.program, 3).codec
            assert all(not tiles for tiles in codec.decode(keys_of(case)[code], now).levels)
        elif found[code] is None:
            assert (wanted is None) if now is None else (wanted[24:], wanted[8:16]) == (now[24:], now[8:16])
        else:
            assert now == wanted


@given(case=cases(), settled=st.integers(-150, 160))
@settings(max_examples=EXAMPLES, deadline=None)
def test_nothing_is_written_where_both_say_the_same(twin: SimpleNamespace, case: Case, settled: int) -> None:
    events = list(case.events)
    held = rows_of(twin, case, events, EARLIER)
    assert splice(twin, case, events, held, settled) == [None] * case.m


@given(case=cases(), data=st.data(), settled=st.integers(-150, 160))
@settings(max_examples=EXAMPLES, deadline=None)
def test_rows_are_the_twins_and_stay(
    twin: SimpleNamespace, case: Case, data: st.DataObject, settled: int
) -> None:
    """Levels of any hops; what was written once is not written again."""
    n = data.draw(st.integers(0, len(case.events)))
    history, stream = list(case.events[:n]), list(case.events[n // 2 :])
    held = rows_of(twin, case, stream, EARLIER)
    found = splice(twin, case, history, held, settled)
    pure = SimpleNamespace(TileSplicer=TileSplicer, ReadBatch=ReadBatch, TileBuilder=twin.TileBuilder)
    ours = build(twin, of(case, history), settled)
    out = ReadBatch(keys_of(case))
    TileSplicer(case.program, 3).splice_into(
        out,
        batch_of(pure, case, ours),
        batch_of(pure, case, held),
        settled_us=np.full(case.m, settled),
        created_us=CREATED,
    )
    assert found == out.rows()
    now = [new or old for new, old in zip(found, held, strict=True)]
    assert splice(twin, case, history, now, settled) == [None] * case.m


ONE = Case(("int64",), (Asked("sum", 0, 20, 10), Asked("count", 0, 5, 1)), 1, ((0, 3, (1,)), (0, 15, (2,))))


@pytest.mark.parametrize("harm", [lambda row: row[:-1], lambda row: row[:9], lambda row: b"\x01" + row[1:]])
def test_a_row_that_cannot_be_read_gives_way(twin: SimpleNamespace, harm: Any) -> None:
    (row,) = rows_of(twin, ONE, list(ONE.events))
    assert row is not None
    assert splice(twin, ONE, list(ONE.events), [harm(row)], 12) == build(twin, ONE, 12)
    with pytest.raises(CodecError, match="row"):
        batch = batch_of(twin, ONE, [harm(row)])
        twin.TileSplicer(ONE.program, 3).splice_into(
            twin.ReadBatch(keys_of(ONE)), batch, batch, settled_us=np.array([12]), created_us=0
        )


def test_other_keys_are_refused(twin: SimpleNamespace) -> None:
    batch, other = twin.ReadBatch([b"7:0"]), twin.ReadBatch([b"7:1"])
    for given_ in ((batch, batch, other), (batch, other, batch)):
        with pytest.raises(InvalidDataError, match="other keys"):
            twin.TileSplicer(ONE.program, 3).splice_into(
                *given_, settled_us=np.zeros(1, np.int64), created_us=0
            )
    with pytest.raises(InvalidDataError, match="settled_us"):
        twin.TileSplicer(ONE.program, 3).splice_into(
            batch, batch, batch, settled_us=np.zeros(2), created_us=0
        )
