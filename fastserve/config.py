"""Where things are: `fastserve.toml` of a repo directory, overridden by FASTSERVE_* variables.

    project = "flights"
    registry = "sqlite:///.fastserve/registry.db"     # or postgresql://user:password@host/db
    online_store = "lmdb://.fastserve/online"         # or redis://, rediss://, unix://, memory://
    offline_store = ".fastserve/offline"              # any URL Delta Lake opens: a directory, s3://, gs://
    sql_memory = "1GiB"                               # of DuckDB, for sources that are queries

    [limits]                                          # of `fastserve serve`; fastserve.http.limits has all of them
    max_connections = 20_000                          # or FASTSERVE_LIMITS="max_connections=20000 idle_timeout_s=300"

    [streaming]                                       # of feeds of events; fastserve.streaming.settings has all of them
    shards = 8

    [answer_log]                                      # of served answers; fastserve.serving.answer_log has all of it
    dir = ".fastserve/answers"

    [spark]                                           # of --engine spark; what is not said here Spark's own files say
    master = "spark://host:7077"
    spark.executor.memory = "4g"

Relative paths are relative to the repo directory, wherever the command is started.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from fastserve.errors import ConfigError

FILE_NAME: Final = "fastserve.toml"
SQL_MEMORY: Final = "1GiB"
_TABLES: Final = ("limits", "streaming", "answer_log", "spark")
_PROJECT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one repo.

    Attributes:
        repo: the absolute repo directory.
        project: name space of all definitions in the registry and of the offline tables.
        registry: SQLAlchemy URL, absolute.
        online_store: online store URL, absolute.
        offline_store: root of the Delta tables, absolute.
        sql_memory: what DuckDB may take for the query of a source before it spills to TMPDIR.
        limits: of the server's front end: name -> number, or its text; not looked at any closer.
        streaming: of feeds of events: name -> number or text; not looked at any closer.
        answer_log: of served answers: name -> value; not looked at any closer.
        spark: of --engine spark: `spark.*` -> its text; the master is `spark.master`.
    """

    repo: Path
    project: str
    registry: str = "sqlite:///.fastserve/registry.db"
    online_store: str = "lmdb://.fastserve/online"
    offline_store: str = ".fastserve/offline"
    sql_memory: str = SQL_MEMORY
    limits: Mapping[str, Any] = field(default_factory=dict)
    streaming: Mapping[str, Any] = field(default_factory=dict)
    answer_log: Mapping[str, Any] = field(default_factory=dict)
    spark: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_repo(cls, repo: str | Path = ".", environ: Mapping[str, str] | None = None) -> Config:
        """Read `<repo>/fastserve.toml` and the environment.

        Raises:
            ConfigError: no such file, bad TOML, an unknown or mistyped setting; names file and fix.
        """
        root = Path(repo).resolve()
        path = root / FILE_NAME
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                "not found",
                where=str(path),
                hint="run `fastserve init DIR`, or name a repo by --repo",
            ) from None
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"is not valid TOML: {error}", where=str(path)) from None
        tables = {name: _table(data, name, path) for name in _TABLES}
        tables["spark"] = _spark(tables["spark"], path)
        values = _checked(data, path)
        env = os.environ if environ is None else environ
        for name in _settings():
            value = env.get(f"FASTSERVE_{name.upper()}")
            if value:
                values[name] = value
        tables["limits"] |= name_values(
            re.split(r"[,\s]+", env.get("FASTSERVE_LIMITS", "").strip()), "FASTSERVE_LIMITS"
        )
        if not _PROJECT.fullmatch(values.get("project", "")):
            raise ConfigError(
                "`project` is missing or not a name",
                where=str(path),
                hint='add a line like project = "flights" (letters, digits, _)',
            )
        settings: dict[str, Any] = {**_absolute(values, root), **tables}
        return cls(repo=root, **settings)


def name_values(texts: Iterable[str], where: str) -> dict[str, str]:
    """Name -> value of texts like ``max_connections=20000``; empty texts are left out.

    Raises:
        ConfigError: there is no ``=`` in one.
    """
    found = {}
    for text in filter(None, texts):
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(
                f"{text!r} has no value", where=where, hint="NAME=VALUE, like max_connections=20000"
            )
        found[name.strip()] = value.strip()
    return found


def _settings() -> list[str]:
    """Those that are one text each."""
    return [f.name for f in fields(Config) if f.name not in ("repo", *_TABLES)]


def _table(data: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    """A table, taken out of what the file says."""
    found = data.pop(name, {})
    if not isinstance(found, dict):
        raise ConfigError(
            f"{name!r} is no table", where=str(path), hint=f"write [{name}], and a line for each below it"
        )
    return found


def _spark(table: dict[str, Any], path: Path) -> dict[str, str]:
    """`[spark]` as Spark's own configuration has it: dotted names, texts."""
    found = {}
    for name, value in flat(table):
        if name == "master":
            name = "spark.master"
        if not name.startswith("spark.") or isinstance(value, list):
            raise ConfigError(
                f"{name!r} is no setting of Spark",
                where=f"{path} [spark]",
                hint='master = "URL", and settings with their whole name: spark.executor.memory = "4g"',
            )
        found[name] = text_of(value)
    return found


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name -> value: TOML reads a dotted name as tables in tables."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def text_of(value: object) -> str:
    """A value as settings of other programs have it: ``true``, not ``True``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _checked(data: dict[str, Any], path: Path) -> dict[str, str]:
    for name, value in data.items():
        if name not in _settings():
            near = get_close_matches(name, _settings(), n=1)
            hint = (
                f"did you mean {near[0]!r}?"
                if near
                else f"settings: {', '.join([*_settings(), *(f'[{table}]' for table in _TABLES)])}"
            )
            raise ConfigError(f"unknown setting {name!r}", where=str(path), hint=hint)
        if not isinstance(value, str):
            raise ConfigError(
                f"{name!r} is a {type(value).__name__}", where=str(path), hint="put it in quotes"
            )
    return dict(data)


def _absolute(values: dict[str, str], root: Path) -> dict[str, str]:
    defaults = {
        f.name: str(f.default) for f in fields(Config) if f.name in _settings() and f.name != "project"
    }
    full = defaults | values
    for prefix, name in (("sqlite:///", "registry"), ("lmdb://", "online_store")):
        if full[name].startswith(prefix):
            full[name] = prefix + str(root / full[name].removeprefix(prefix))
    if "://" not in full["offline_store"]:
        full["offline_store"] = str(root / full["offline_store"])
    return full
