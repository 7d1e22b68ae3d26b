"""Both codecs under the same tests."""

from __future__ import annotations

import importlib
import os
from types import ModuleType, SimpleNamespace

import pytest

NATIVE_MISSING = os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1"


def _module(name: str, request: pytest.FixtureRequest) -> ModuleType:
    if request.param == "py":
        return importlib.import_module(f"fastserve.codec.{name}_py")
    if NATIVE_MISSING:
        pytest.skip("a pure-Python install")
    return importlib.import_module(f"fastserve._native.{name}")


@pytest.fixture(params=["py", "native"], scope="module")
def keys(request: pytest.FixtureRequest) -> ModuleType:
    return _module("keys", request)


@pytest.fixture(params=["py", "native"], scope="module")
def rows(request: pytest.FixtureRequest) -> ModuleType | SimpleNamespace:
    """The decoder's module and the encoder's as one, as the twin is."""
    module = _module("rows", request)
    if request.param == "py":
        return module
    return SimpleNamespace(**vars(_module("row_encoder", request)) | vars(module))
