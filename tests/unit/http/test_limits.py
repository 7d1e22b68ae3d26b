"""Limits by name, as operators set them."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from fastserve.errors import ConfigError
from fastserve.http.limits import MIB, MOST, Limits

PAGE = Path(__file__).parents[3] / "docs" / "operations.md"


def test_numbers_and_their_text() -> None:
    given = {"max_body_bytes": "1_000", "max_connections": 5, "idle_timeout_s": "2.5", "body_timeout_s": 60}
    wanted = Limits(max_body_bytes=1_000, max_connections=5, idle_timeout_s=2.5, body_timeout_s=60.0)
    assert Limits.of(given) == wanted and isinstance(Limits.of(given).body_timeout_s, float)
    assert Limits.of({}) == Limits()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("max_conections", 5, "there is no such limit\n  hint: did you mean 'max_connections'?"),
        ("zzz", 5, "there is no such limit\n  hint: limits: max_header_bytes, max_target_bytes"),
        (
            "max_connections",
            "many",
            "is 'many', not a whole number\n  hint: leave it out for the default, 10,000",
        ),
        ("max_connections", 1.5, "is 1.5, not a whole number"),
        ("max_connections", True, "is True, not a whole number"),
        ("max_connections", [5], "is [5], not a whole number"),
        ("max_connections", 0, "is 0, it must be positive and at most 2,147,483,647"),
        ("max_connections", MOST + 1, f"is {MOST + 1}, it must be positive"),
        (
            "idle_timeout_s",
            "soon",
            "is 'soon', not a number of seconds\n  hint: leave it out for the default, 120.0",
        ),
        ("idle_timeout_s", "nan", "is nan, it must be positive"),
        ("idle_timeout_s", "inf", "is inf, it must be positive"),
        ("idle_timeout_s", -1, "is -1.0, it must be positive"),
        ("max_body_bytes", 64 * MIB, "a body of 67,108,864 bytes is allowed, and 33,554,432 are held"),
    ],
)
def test_what_will_not_do_is_named(name: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Limits.of({name: value})
    assert caught.value.where == f"limit {name}" and says in str(caught.value)


def test_operators_are_told_every_name_and_default() -> None:
    text = PAGE.read_text()
    for field in fields(Limits):
        assert f"`{field.name}`" in text
    rows = re.findall(r"^\| `(\w+)` \|.*?\| ([0-9,]+) \|", text, re.MULTILINE)
    told = {name: float(value.replace(",", "")) for name, value in rows}
    assert told.items() <= {field.name: field.default for field in fields(Limits)}.items() and len(told) >= 10
