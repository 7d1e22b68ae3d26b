"""Both kernels under the same tests."""

from __future__ import annotations

import importlib
import os

import pytest

from tests.unit.pit.kernels import Kernel


@pytest.fixture(params=["py", "native"], scope="module")
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """The twin or the native kernel."""
    if request.param == "native" and os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
        pytest.skip("a pure-Python install")
    find, take = (
        importlib.import_module(f"materializer.pit.{name}_{request.param}") for name in ("asof", "gather")
    )
    return Kernel(find.find_rows, take.gather)
