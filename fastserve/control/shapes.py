"""Shapes of JSON: what a request's body must look like, checked whole, so that all problems are told at once.

A shape is a function of (value, where) that yields Problem(where, what is wrong, the fix); `where` is a JSON path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final, TypeAlias

from fastserve.errors import Problem

Shape: TypeAlias = Callable[[Any, str], Iterator[Problem]]

MAX_TEXT: Final = 10_000
MAX_ITEMS: Final = 10_000
_WORDS: Final = {dict: "object", list: "list", str: "text", bool: "true or false", type(None): "null"}


def text(value: Any, where: str) -> Iterator[Problem]:
    """Text that every database can hold."""
    if not isinstance(value, str):
        yield _wrong(where, value, "text")
    elif len(value) > MAX_TEXT:
        yield Problem(where, f"is {len(value):,} characters long", f"use at most {MAX_TEXT:,}")
    elif "\0" in value:
        yield Problem(where, "holds a NUL character", "leave it out")


def flag(value: Any, where: str) -> Iterator[Problem]:
    """true or false."""
    if not isinstance(value, bool):
        yield _wrong(where, value, "true or false")


def anything(value: Any, where: str) -> Iterator[Problem]:
    """Whatever JSON can say, to a depth that everybody can read again."""
    if _depth(value) > 32:
        yield Problem(where, "is nested more than 32 deep", "make it flatter")


def integer(low: int, high: int) -> Shape:
    """A whole number from low to high."""

    def check(value: Any, where: str) -> Iterator[Problem]:
        if not isinstance(value, int) or isinstance(value, bool):
            yield _wrong(where, value, "a whole number")
        elif not low <= value <= high:
            yield Problem(where, f"is {value}", f"use {low} to {high}")

    return check


def one_of(*known: str) -> Shape:
    """One of these words."""

    def check(value: Any, where: str) -> Iterator[Problem]:
        if value not in known or not isinstance(value, str):
            yield Problem(where, f"is {str(value)[:100]!r}", f"use one of {', '.join(known)}")

    return check


def nullable(shape: Shape) -> Shape:
    """null, or the shape."""
    return lambda value, where: iter(()) if value is None else shape(value, where)


def either(*shapes: tuple[type, Shape]) -> Shape:
    """The shape that goes with the value's JSON type."""

    def check(value: Any, where: str) -> Iterator[Problem]:
        for kind, shape in shapes:
            if type(value) is kind:
                return shape(value, where)
        return iter([_wrong(where, value, " or ".join(_WORDS[kind] for kind, _ in shapes))])

    return check


def items(shape: Shape, *, most: int = MAX_ITEMS) -> Shape:
    """A list of them."""

    def check(value: Any, where: str) -> Iterator[Problem]:
        if not isinstance(value, list):
            yield _wrong(where, value, "a list")
        elif len(value) > most:
            yield Problem(where, f"has {len(value):,} items", f"send at most {most:,} at a time")
        else:
            for i, item in enumerate(value):
                yield from shape(item, f"{where}[{i}]")

    return check


def mapping(shape: Shape) -> Shape:
    """An object of any members, all of one shape."""

    def check(value: Any, where: str) -> Iterator[Problem]:
        if not isinstance(value, dict):
            yield _wrong(where, value, "an object")
            return
        for name, item in value.items():
            yield from text(name, where)
            yield from shape(item, f"{where}.{name[:100]}")

    return check


def members(known: Mapping[str, Shape], required: tuple[str, ...] = ()) -> Shape:
    """An object of these members."""

    def check(value: Any, where: str) -> Iterator[Problem]:
        if not isinstance(value, dict):
            yield _wrong(where, value, "an object")
            return
        for name in required:
            if name not in value:
                yield Problem(where, f"has no {name!r}", f"add {name!r}")
        for name, item in value.items():
            if name in known:
                yield from known[name](item, f"{where}.{name}")
            else:
                near = get_close_matches(name, known, n=1)
                fix = f"did you mean {near[0]!r}?" if near else f"members: {', '.join(known)}"
                yield Problem(where, f"unknown member {name[:100]!r}", fix)

    return check


def _wrong(where: str, value: Any, wanted: str) -> Problem:
    return Problem(where, f"is {_WORDS.get(type(value), 'a number')}", f"send {wanted}")


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        below = [list(v.values()) if isinstance(v, dict) else v for v in level if isinstance(v, (dict, list))]
        level = [item for part in below for item in part]
    return depth
