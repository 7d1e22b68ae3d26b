"""How memory is written, and that the least that is named is enough."""

from __future__ import annotations

import itertools
import re

import pytest

from fastserve.errors import RequestError
from materializer.budget import Budget, Need, parse_memory, resident

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1.5GiB", 3 << 29),
        ("800MB", 800_000_000),
        ("2g", 2 * 10**9),
        (" 64 mib ", 64 * MIB),
        ("123456789", 123456789),
        (123456789, 123456789),
        (None, None),
    ],
)
def test_sizes(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "1.5 GiBit", "0", 0, -3, True, "1e9", "GiB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(RequestError, match="no size of memory"):
        parse_memory(text)


NEEDS = [Need(0, 0, 9, 1), Need(1000, 8, 90, 1), Need(5_000_000, 8, 90, 3), Need(10**9, 30, 2_000, 10)]


@pytest.mark.parametrize("need", NEEDS)
def test_too_little_says_the_least_that_works(need):
    with pytest.raises(RequestError, match="is too little") as caught:
        Budget.of(1, need, 2)
    least = int(re.search(r"give ([\d,]+)MiB", caught.value.hint)[1].replace(",", ""))
    made = Budget.of((least + 8) * MIB, need, 2)  # what the process holds has moved a little
    assert made.threads == 1 and made.labels >= min(need.labels, 1 << 17)
    with pytest.raises(RequestError):
        Budget.of((least - 8) * MIB, need, 2)


@pytest.mark.parametrize("need", NEEDS)
def test_more_memory_is_never_less_of_anything(need):
    held = resident()
    parts = []
    for more in (8 << 30, 32 << 30, 128 << 30):
        made = Budget.of(held + more, need, 2)
        parts.append((made.threads, made.labels, made.group_rows, made.found_bytes))
    assert all(a <= b for one, other in itertools.pairwise(parts) for a, b in zip(one, other, strict=True))
    assert Budget.of(None, need, 2).found_bytes is None


def test_labels_that_nearly_fit_are_joined_in_one_go():
    need = Need(5_000_000, 8, 90, 1)
    sizes = range(128, 1_536, 32)
    labels = [Budget.of(resident() + size * MIB, need, 2).labels for size in sizes]
    assert labels == sorted(labels)
    at_once = next(size for size, n in zip(sizes, labels, strict=True) if n == need.labels)
    fewer = max(n for n in labels if n < need.labels)
    assert fewer < 0.9 * need.labels, "a few labels that are left over read all rows again"
    assert Budget.of(resident() + at_once * MIB, need, 2).found_bytes >= 8 * MIB
