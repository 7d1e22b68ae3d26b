"""Every input that fuzzing kept is right again; under sanitizers too (`make sanitize`)."""

from __future__ import annotations

import os

import pytest

from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS, load

pytestmark = pytest.mark.skipif(
    os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1", reason="a pure-Python install"
)


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "tokens"])
def test_kept_inputs(target):
    if target.startswith("h2"):
        pytest.importorskip(
            f"fastserve._native.{target.removesuffix('_server')}", reason="libnghttp2 missing"
        )
    run, inputs = load(target), corpus.load(target)
    assert inputs
    for data in inputs:
        run(data)


def test_kept_tokens():
    """Here tokens.pyx is needed, which only the builds with sanitizers make."""
    pytest.importorskip("tests.fuzz.tokens", reason="not a build with sanitizers")
    run, inputs = load("tokens"), corpus.load("tokens")
    assert inputs
    for data in inputs:
        run(data)
