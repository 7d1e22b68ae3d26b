"""A function's call: what it is told of nulls and times, and what becomes of what it gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fastserve import Field, RequestSource, on_demand_feature_view
from fastserve.errors import InvalidDataError
from fastserve.on_demand import ratio
from fastserve.on_demand.call import OnDemandFunction
from fastserve.on_demand.columns import Column, of_arrow
from fastserve.types import parse_dtype

ASKED = RequestSource("asked", [Field("a", "float64"), Field("b", "float64")])
TOLD: list[dict[str, Any]] = []


def made(function: Any, *schema: Field, **view: Any) -> OnDemandFunction:
    declared = on_demand_feature_view(sources=[ASKED], schema=schema or [Field("c", "float64")], **view)
    found = declared(function)
    return OnDemandFunction(found, function)


def columns(**values: list[float | None]) -> dict[str, Column]:
    return {name: of_arrow(pa.array(v, pa.float64()), parse_dtype("float64")) for name, v in values.items()}


def at(n: int) -> np.ndarray[Any, Any]:
    return np.arange(n, dtype=np.int64) * 1_000_000


def plus(inputs: dict[str, Any]) -> dict[str, Any]:
    TOLD.append(inputs)
    return {"c": inputs["a"] + inputs["b"]}


def test_where_an_input_is_null_the_feature_is_and_nobody_is_asked():
    TOLD.clear()
    found = made(plus)(columns(a=[1.0, None, 3.0, 4.0], b=[10.0, 20.0, None, 40.0]), at(4))
    assert found["c"].to_pylist() == [11.0, None, None, 44.0] and found["c"].type == pa.float64()
    assert [inputs["a"].tolist() for inputs in TOLD] == [[1.0, 4.0]]
    assert made(plus)(columns(a=[None], b=[1.0]), at(1))["c"].to_pylist() == [None]
    assert made(plus)(columns(a=[], b=[]), at(0))["c"].to_pylist() == []
    assert len(TOLD) == 1


def test_a_function_may_ask_for_valid_and_sees_every_row():
    def first(inputs: dict[str, Any], valid: dict[str, Any]) -> dict[str, Any]:
        return {"c": np.where(valid["a"], inputs["a"], np.where(valid["b"], inputs["b"], -1.0))}

    found = made(first)(columns(a=[1.0, None, None], b=[9.0, 2.0, None]), at(3))
    assert found["c"].to_pylist() == [1.0, 2.0, -1.0]


def test_a_null_that_a_function_forgets_stays_null():
    def forgets(inputs: dict[str, Any], valid: dict[str, Any]) -> dict[str, Any]:
        return {"c": inputs["a"] / inputs["b"], "d": ratio(inputs["a"], inputs["b"]), "e": inputs["a"] > 1}

    schema = [Field("c", "float64"), Field("d", "float64"), Field("e", "bool")]
    given = columns(a=[1.0, None, 3.0, 4.0], b=[2.0, 1.0, None, 0.0])
    whole = made(forgets, *schema)(given, at(4))
    assert {name: values.to_pylist() for name, values in whole.items()} == {
        "c": [0.5, None, None, None],
        "d": [0.5, None, None, None],
        "e": [False, None, True, True],
    }
    for i in range(4):  # whatever stands beside it
        alone = columns(a=[[1.0, None, 3.0, 4.0][i]], b=[[2.0, 1.0, None, 0.0][i]])
        found = made(forgets, *schema)(alone, at(1))
        assert {n: v.to_pylist() for n, v in found.items()} == {n: [v[i].as_py()] for n, v in whole.items()}


def test_a_function_may_ask_for_the_time_of_its_rows():
    def seconds(inputs: dict[str, Any], at: Any) -> dict[str, Any]:
        assert at.dtype == np.dtype("datetime64[us]")
        return {"c": at.astype(np.int64) / 1e6 + inputs["a"]}

    found = made(seconds)(columns(a=[0.0, None, 0.5], b=[0.0, 0.0, 0.0]), at(3))
    assert found["c"].to_pylist() == [0.0, None, 2.5]


def test_inputs_cannot_be_written_to():
    def careless(inputs: dict[str, Any]) -> dict[str, Any]:
        inputs["a"] += 1.0
        return {"c": inputs["a"]}

    with pytest.raises(InvalidDataError, match="ValueError: output array is read-only"):
        made(careless)(columns(a=[1.0], b=[1.0]), at(1))


def test_a_failure_names_view_line_and_function():
    def wrong(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"c": inputs["nothing"]}

    with pytest.raises(InvalidDataError) as caught:
        made(wrong, version=2)(columns(a=[1.0], b=[1.0]), at(1))
    assert caught.value.message == "KeyError: 'nothing'"
    assert (
        caught.value.where.startswith("on-demand view 'wrong@v2'") and "test_call.py:" in caught.value.where
    )


def test_a_failure_inside_a_library_names_the_line_that_called_it():
    def wrong(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"c": np.einsum("ij->i", inputs["a"])}

    with pytest.raises(InvalidDataError) as caught:
        made(wrong)(columns(a=[1.0], b=[1.0]), at(1))
    line = wrong.__code__.co_firstlineno + 1
    assert caught.value.where == f"on-demand view 'wrong', {__file__}:{line}"


def test_a_function_that_would_end_the_process_fails():
    def leaves(inputs: dict[str, Any]) -> dict[str, Any]:
        raise SystemExit(3)

    with pytest.raises(InvalidDataError, match="SystemExit: 3"):
        made(leaves)(columns(a=[1.0], b=[1.0]), at(1))


@pytest.mark.parametrize(
    "gave", [np.zeros(1, "c16"), np.zeros(1, "i4,i4"), pa.array([None], pa.month_day_nano_interval())]
)
def test_arrays_that_nothing_can_be_made_of(gave):
    with pytest.raises(InvalidDataError):
        made(lambda inputs: {"c": gave})(columns(a=[1.0], b=[1.0]), at(1))


@pytest.mark.parametrize(
    ("gave", "said"),
    [
        (None, "gave a NoneType"),
        ({"d": np.zeros(1)}, "gave 'd', not just c"),
        ({}, "gave nothing, not just c"),
        ({"c": np.zeros(1), "d": np.zeros(1)}, "gave 'c', 'd', not just c"),
    ],
)
def test_other_columns_than_the_schema_are_refused(gave, said):
    with pytest.raises(InvalidDataError, match=said):
        made(lambda inputs: gave)(columns(a=[1.0], b=[1.0]), at(1))


def test_the_row_that_does_not_fit_is_counted_among_all():
    whole = made(lambda inputs: {"c": inputs["a"]}, Field("c", "int32"))
    with pytest.raises(InvalidDataError) as caught:
        whole(columns(a=[1.0, None, 2.0, 0.5], b=[1.0, 1.0, 1.0, 1.0]), at(4), first=100)
    assert caught.value.where == "on-demand view '<lambda>', feature 'c', row 103"


def test_a_division_by_zero_is_the_functions_affair():
    found = made(lambda inputs: {"c": inputs["a"] / inputs["b"]})(columns(a=[1.0, 0.0], b=[0.0, 0.0]), at(2))
    assert np.isnan(found["c"].to_numpy()).tolist() == [False, True]
