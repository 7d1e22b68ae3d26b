"""What is fuzzed: a name -> a function of bytes. It returns None, or raises: AssertionError says what is wrong."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable

TARGETS = {
    "tokens": "resp.tokens",  # replies of Redis: the grammar
    "resp": "resp.fetcher",  # ... and what the fetcher makes of them
    "writes": "writes.replies",  # ... to writes
    "h2_server": "h2_server.conversation",
    "h2_client": "h2_client.conversation",
    "rows": "rows.decode",  # rows to columns and to a matrix
    "answers": "answers.render",  # ... to JSON and Arrow
    "shapes": "shapes.body",  # bodies of requests that are known by their skeleton
    "tiles": "tiles.fold",  # tile rows to values, and into more tile rows
    "changes": "changes.message",  # what writers publish
}


def load(name: str) -> Callable[[bytes], None]:
    """The function; its natives come from FASTSERVE_FUZZ_NATIVES where that is set."""
    if natives := os.environ.get("FASTSERVE_FUZZ_NATIVES"):
        package = importlib.import_module("fastserve._native")
        package.__path__.insert(0, f"{natives}/fastserve/_native")
        importlib.import_module("tests.fuzz").__path__.insert(0, f"{natives}/tests/fuzz")
    module, function = TARGETS[name].split(".")
    found: Callable[[bytes], None] = getattr(importlib.import_module(f"tests.fuzz.{module}"), function)
    return found
