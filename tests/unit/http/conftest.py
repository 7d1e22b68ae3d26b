"""The HTTP/2 session under test: both twins."""

import pytest

from fastserve.http.h2_py import Session as PySession

try:
    from fastserve._native.h2 import Session as NativeSession
except ImportError:
    NativeSession = None


@pytest.fixture(params=["py", "native"])
def impl(request):
    """The session class."""
    if request.param == "py":
        return PySession
    if NativeSession is None:
        pytest.skip("fastserve._native.h2 is not built (libnghttp2 missing, or a pure install)")
    return NativeSession
