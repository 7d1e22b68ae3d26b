"""Whether tasks on other machines can reach what they read and write."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from fastserve.config import Config
from fastserve.errors import ConfigError

log = logging.getLogger(__name__)

Use: TypeAlias = Literal["registry", "online", "offline"]

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_FILES: Final = ("lmdb", "unix", "sqlite")


def is_here(master: str) -> bool:
    """Whether all workers of a Spark master are on the driver's machine."""
    return master.startswith("local") or urlsplit(master).hostname in _LOOPBACK


def check_reach(config: Config, uses: Collection[Use], master: str) -> None:
    """Look at what tasks use, before anything is written.

    A directory may be one that all machines mount, which cannot be told from here: of that it only warns.

    Raises:
        ConfigError: a store that only this process, or only this machine, can reach.
    """
    if "online" in uses and config.online_store.startswith("memory:"):
        raise ConfigError(
            "memory:// is in one process, and tasks run in others",
            where="online_store",
            hint="take lmdb:// or redis://",
        )
    if is_here(master):
        return
    for use, name, url in (
        ("online", "online_store", config.online_store),
        ("registry", "registry", config.registry),
    ):
        if use in uses and (why := _only_here(url)):
            raise ConfigError(
                f"{why}, and the workers of {master} are others",
                where=name,
                hint="take redis:// and postgresql:// servers that they reach; or --engine local, or a master on this"
                " machine: --master 'local[*]'",
            )
    if "offline" in uses and "://" not in config.offline_store:
        log.warning("offline_store %s is a path: every worker must see it there", config.offline_store)


def _only_here(url: str) -> str:
    """Why a store is out of others' reach; '' where it is not."""
    parts = urlsplit(url)
    scheme = parts.scheme.partition("+")[0]
    if scheme in _FILES:
        return f"{scheme}:// is a file of this machine"
    if parts.hostname in _LOOPBACK:
        return f"{parts.hostname} is this machine"
    return ""
