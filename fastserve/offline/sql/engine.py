"""A DuckDB that reaches nothing but what is registered with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fastserve.errors import ConfigError

_SETTINGS: Final = (
    "SET TimeZone = 'UTC'",
    "SET threads = 1",  # sums of floats, and first() of a group, depend on the order in which rows come
    "SET default_null_order = 'nulls_first'",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET python_enable_replacements = false",  # or a query would find our variables
    "SET enable_external_access = false",
)


def load_duckdb() -> Any:
    """The module.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import duckdb  # noqa: PLC0415  (an extra)
    except ImportError:
        raise ConfigError(
            "queries need DuckDB, which is not installed", hint="pip install 'fastserve[sql]'"
        ) from None
    return duckdb


@contextmanager
def connected(memory: str, directory: Path) -> Iterator[Any]:
    """A connection to an empty database in memory; register inputs, then `lock` it.

    Args:
        memory: DuckDB's limit, as ``"1GiB"``.
        directory: where it spills.

    Raises:
        ConfigError: no DuckDB, or the limit is none.
    """
    duckdb = load_duckdb()
    connection = duckdb.connect(":memory:")
    try:
        try:
            connection.execute(f"SET memory_limit = {quoted(memory, mark=chr(39))}")
        except duckdb.Error as error:
            raise ConfigError(str(error), where="sql_memory", hint='write it like "1GiB"') from None
        connection.execute(f"SET temp_directory = {quoted(str(directory), mark=chr(39))}")
        for setting in _SETTINGS:
            connection.execute(setting)
        yield connection
    finally:
        connection.close()


def lock(connection: Any) -> None:
    """No setting can change from now on."""
    connection.execute("SET lock_configuration = true")


def quoted(text: str, mark: str = '"') -> str:
    """As an SQL identifier, or with ``'`` as a text."""
    return mark + text.replace(mark, mark * 2) + mark
