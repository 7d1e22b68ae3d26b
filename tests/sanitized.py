"""What is different about a run with sanitizers (`make sanitize`): natives only, and fewer examples of each."""

from __future__ import annotations

import os

import hypothesis
import pytest

SANITIZED = bool(os.environ.get("FASTSERVE_SANITIZED"))

if SANITIZED:
    hypothesis.settings.register_profile(
        "sanitized",
        max_examples=25,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        derandomize=True,
    )
    hypothesis.settings.load_profile("sanitized")


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
