"""URLs, options and the pauses between attempts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.client.options import Endpoint, Options, Retry, RetryBudget
from fastserve.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "shown", "prefix"),
    [
        ("http://127.0.0.1:6566", "http://127.0.0.1:6566", ""),
        ("http://features", "http://features:6566", ""),
        ("https://features/fs/", "https://features:443/fs", "/fs"),
        ("http://[::1]:7000", "http://[::1]:7000", ""),
    ],
)
def test_urls(url: str, shown: str, prefix: str) -> None:
    endpoint = Endpoint.parse(url)
    assert (str(endpoint), endpoint.prefix) == (shown, prefix)


@pytest.mark.parametrize(
    "url",
    ["", "features:6566", "ftp://x", "http://", "http://x:99999", "http://x?a=1", "http://x#a", "http://[x"],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint.parse(url)
    assert caught.value.hint


def test_credentials_are_neither_taken_from_a_url_nor_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint.parse("http://me:s3cret@features:1")
    assert "s3cret" not in str(caught.value) and "features:1" in str(caught.value)
    assert "s3cret" not in repr(Options(token="s3cret"))


@pytest.mark.parametrize(
    "changes",
    [
        {"http": "3"},
        {"token": "a b"},
        {"token": "a\r\nx: y"},
        {"token": "ą"},
        {"key": "k.pem"},
        {"deadline_ms": 0},
        {"max_connections": -1},
        {"deadline": 5},
        {"retry": "often"},
    ],
)
def test_options_that_are_wrong(changes: dict[str, object]) -> None:
    if "retry" in changes:
        with pytest.raises(ConfigError):
            Retry(attempts=0)
        return
    with pytest.raises(ConfigError):
        Options().changed(**changes)


def test_an_unknown_option_says_what_was_meant() -> None:
    with pytest.raises(ConfigError, match="did you mean 'deadline_ms'"):
        Options().changed(deadlin_ms=5)


def test_tls_files_that_are_missing(tmp_path: object) -> None:
    with pytest.raises(ConfigError, match="cannot load the TLS files"):
        Options(ca=f"{tmp_path}/none.pem").ssl_context("h2")


@given(st.integers(1, 30), st.floats(0, 5), st.floats(0, 100))
def test_pauses_are_bounded_and_grow(attempt: int, base: float, asked: float) -> None:
    pause = Retry(attempts=20, base_s=base, max_s=2.0).pause_s(attempt, asked)
    if attempt >= 20:
        assert pause is None
    else:
        assert pause is not None and asked <= pause <= asked + min(2.0, base * 2 ** (attempt - 1)) + 1e-9


def test_pauses_are_random() -> None:
    assert len({Retry().pause_s(3) for _ in range(10)}) == 10


def test_the_budget_of_retries_is_a_share_of_what_is_answered_and_some_to_spare() -> None:
    budget = RetryBudget(Retry(share=0.5, spare=2))
    assert [budget.take() for _ in range(3)] == [True, True, False]
    budget.answered()
    assert not budget.take()
    budget.answered()
    assert budget.take() and not budget.take()
    for _ in range(100):
        budget.answered()
    assert [budget.take() for _ in range(3)] == [True, True, False], (
        "no more is saved up than there was to spare"
    )
