"""The SDK facade: the verbs users know, each one call into the part that does it."""

from __future__ import annotations

from pathlib import Path

from fastserve.config import Config


class FeatureStore:
    """One repo: its definitions, registry, stores.

    Args:
        repo_path: directory with a `fastserve.toml`.
    """

    def __init__(self, repo_path: str | Path = ".") -> None:
        self.config = Config.from_repo(repo_path)
