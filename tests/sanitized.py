"""What is different about a run with sanitizers, or of a debug build: natives only, and fewer examples of each."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import hypothesis
import pytest

SANITIZED = bool(os.environ.get("FASTSERVE_SANITIZED"))
NATIVES_ONLY = SANITIZED or bool(os.environ.get("FASTSERVE_NATIVES_ONLY"))

_make_settings = hypothesis.settings.__init__


def fewer_examples(self: hypothesis.settings, *parents: Any, **given: Any) -> None:
    """A test that asks for hundreds gets 25 too."""
    if "max_examples" in given:
        given["max_examples"] = min(given["max_examples"], 25)
    _make_settings(self, *parents, **given)


if NATIVES_ONLY:
    hypothesis.settings.register_profile(
        "natives only",
        max_examples=25,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        derandomize=True,
    )
    hypothesis.settings.load_profile("natives only")
    hypothesis.settings.__init__ = fewer_examples  # type: ignore[method-assign]  # test modules come later


def is_twin(item: pytest.Item) -> bool:
    """Whether a test is of a Python twin: its parameter is "py", or a class of a module that ends so."""
    params = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return any(
        value == "py"
        if isinstance(value, str)
        else isinstance(value, type) and value.__module__.endswith("_py")
        for value in params
    )


def leave_out_twins(config: pytest.Config, items: list[pytest.Item]) -> None:
    twins = [item for item in items if is_twin(item)]
    if twins:
        config.hook.pytest_deselected(items=twins)
        items[:] = [item for item in items if item not in twins]


PROGRAMS = ("curl", "h2load", "nghttp", "openssl", "redis-server")


def spare_programs(folder: Path) -> None:
    """Programs of others run as they are: some hang with a sanitizer's library in them, and all are slow."""
    for program in PROGRAMS:
        if found := shutil.which(program):
            shim = folder / program
            shim.write_text(f'#!/bin/sh\nunset LD_PRELOAD\nexec {found} "$@"\n')
            shim.chmod(0o755)
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
