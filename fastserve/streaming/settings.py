"""`[streaming]` of fastserve.toml.

shards = 4             # of a feed that has none yet; how many workers can share it. It stays so for ever
retention = "1d"       # how long entries that were applied stay in the logs
archive = "30s"        # how often events are appended to the offline store, for training; "off": never
cache_mb = 64          # of a worker's memory for the rows of a shard: what is there need not be read
kafka = "host:9092"    # the logs are Kafka topics; without it they are in the online store
trigger = "500ms"      # of --engine spark: how often it begins a batch, at most
checkpoint = ".fastserve/spark"    # likewise: where Spark has its notes; a directory, or a URL that Spark opens
kafka_reader = "client"            # likewise: topics are read by confluent-kafka; or by Spark's own "connector"

or, for a cluster that wants more than an address, any of librdkafka's settings:

[streaming.kafka]
bootstrap.servers = "host:9093"
security.protocol = "SASL_SSL"
sasl.mechanism = "SCRAM-SHA-512"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from fastserve.config import flat, text_of
from fastserve.errors import ConfigError
from fastserve.timeutil import DAY_US, MICROS, parse_duration

MAX_SHARDS: Final = 1_024
_SHARDS: Final = 4
_CACHE_MB: Final = 64
_SERVERS: Final = "bootstrap.servers"
_CHECKPOINT: Final = ".fastserve/spark"
_READERS: Final = ("client", "connector")


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """See the module's docstring."""

    shards: int = _SHARDS
    retention_us: int = DAY_US
    archive_us: int | None = 30 * MICROS
    cache_mb: int = _CACHE_MB
    kafka: Mapping[str, str] = field(default_factory=dict)
    trigger_us: int = MICROS // 2
    checkpoint: str = _CHECKPOINT
    kafka_reader: str = _READERS[0]

    @property
    def cache_bytes(self) -> int:
        """Of the rows that are kept of a shard."""
        return self.cache_mb << 20

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> StreamSettings:
        """The settings that a table says.

        Raises:
            ConfigError: an unknown setting, or a value that none can have.
        """
        where = "fastserve.toml [streaming]"
        known = [f.name.removesuffix("_us") for f in fields(cls)]
        for name in table:
            if name not in known:
                raise ConfigError(f"unknown setting {name!r}", where=where, hint=f"one of {', '.join(known)}")
        shards = table.get("shards", _SHARDS)
        if not isinstance(shards, int) or isinstance(shards, bool) or not 1 <= shards <= MAX_SHARDS:
            raise ConfigError(f"shards is a number from 1 to {MAX_SHARDS:,}, not {shards!r}", where=where)
        cache_mb = table.get("cache_mb", _CACHE_MB)
        if not isinstance(cache_mb, int) or isinstance(cache_mb, bool) or cache_mb < 1:
            raise ConfigError(f"cache_mb is a number of megabytes, 1 or more, not {cache_mb!r}", where=where)
        archive = table.get("archive", "30s")
        kafka = _kafka(table.get("kafka", {}), where)
        return cls(
            shards,
            _duration("retention", table.get("retention", "1d"), where),
            None if archive == "off" else max(_duration("archive", archive, where), MICROS // 10),
            cache_mb,
            kafka,
            max(_duration("trigger", table.get("trigger", "500ms"), where), 1_000),
            _checkpoint(table.get("checkpoint", _CHECKPOINT), where),
            _reader(table.get("kafka_reader", _READERS[0]), bool(kafka), where),
        )


def _checkpoint(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"checkpoint is a path or a URL, not {value!r}", where=where)
    return value


def _reader(value: object, reads_kafka: bool, where: str) -> str:
    for reader in _READERS:
        if value == reader and (reads_kafka or reader == _READERS[0]):
            return reader
    hint = "it reads topics: set kafka" if value in _READERS else f"one of {', '.join(_READERS)}"
    raise ConfigError(f"kafka_reader cannot be {value!r}", where=where, hint=hint)


def _kafka(value: object, where: str) -> dict[str, str]:
    table = {_SERVERS: value} if isinstance(value, str) else value
    found = dict(flat(table)) if isinstance(table, dict) else {}
    if not value:
        return {}
    if not found.get(_SERVERS):
        raise ConfigError(
            f"kafka needs {_SERVERS}", where=where, hint='kafka = "host:9092", or several with commas'
        )
    return {name: text_of(one) for name, one in found.items()}


def _duration(name: str, value: object, where: str) -> int:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}", where=where) from None
