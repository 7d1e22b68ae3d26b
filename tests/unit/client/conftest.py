"""The HTTP/2 client session under test: both twins."""

from __future__ import annotations

import pytest

from fastserve.client.h2_py import Session as PySession

try:
    from fastserve._native.h2_client import Session as NativeSession
except ImportError:
    NativeSession = None  # type: ignore[assignment,misc]


@pytest.fixture(params=["py", "native"])
def impl(request: pytest.FixtureRequest) -> type:
    """The session class."""
    if request.param == "py":
        return PySession
    if NativeSession is None:
        pytest.skip("fastserve._native.h2_client is not built (libnghttp2 missing, or a pure install)")
    return NativeSession
