"""A feed's topic by Spark's own connector, `kafka_reader = "connector"`: what it says as rows of entries.

Its checkpoint is not gone on from: it begins where the shards' states say, each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from fastserve.errors import ConfigError
from fastserve.streaming.places import parts_of

_CLASS: Final = "org.apache.spark.sql.kafka010.KafkaSourceProvider"
_SAME: Final = ("bootstrap.servers", "security.protocol", "sasl.mechanism", "client.id")
"""Settings that librdkafka and Kafka's Java client call alike."""
_LOGIN: Final = ("sasl.username", "sasl.password")
_MODULES: Final = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}
_WHERE: Final = "fastserve.toml [streaming] kafka_reader"
_IS_ARROW: Final = "exists(headers, h -> h.key = 'format' and h.value = cast('arrow' as binary))"
ROWS: Final = (
    "partition as shard",
    "concat(cast(offset + 1 as string), '-0') as id",
    "unix_millis(timestamp) * 1000 + 999 as stamped_us",
    f"array(cast(if(coalesce({_IS_ARROW}, false), 'arrow', 'json') as binary)) as names",
    "array(coalesce(value, cast('' as binary))) as bodies",
)
"""What the connector's columns are as those of tasks.ENTRIES; ids as kafka_feeds.py has them."""


def check_connector(context: Any) -> None:
    """Raise ConfigError if Spark does not have it."""
    try:
        context._jvm.java.lang.Thread.currentThread().getContextClassLoader().loadClass(_CLASS)
    except Exception:
        version = context.version
        raise ConfigError(
            "Spark has no connector to Kafka: it is not part of pyspark",
            where=_WHERE,
            hint=f'add spark.jars.packages = "org.apache.spark:spark-sql-kafka-0-10_2.13:{version}" to [spark]; or'
            ' kafka_reader = "client", which reads by confluent-kafka',
        ) from None


def connector_options(settings: Mapping[str, str], topic: str, reached: Mapping[int, str]) -> dict[str, str]:
    """What the connector is told.

    Args:
        settings: librdkafka's, of fastserve.toml.
        reached: shard -> the offset of its state.

    Raises:
        ConfigError: a setting that Kafka's Java client has under another name.
    """
    for name in settings:
        if name not in (*_SAME, *_LOGIN):
            raise ConfigError(
                f"the connector has no setting {name!r}, which is librdkafka's",
                where=_WHERE,
                hint=f'it takes {", ".join((*_SAME, *_LOGIN))}; all others need kafka_reader = "client"',
            )
    found = {f"kafka.{name}": settings[name] for name in _SAME if name in settings}
    if _LOGIN[0] in settings:
        mechanism = settings.get("sasl.mechanism", "PLAIN")
        if mechanism not in _MODULES:
            raise ConfigError(
                f"no login by {mechanism!r}", where=_WHERE, hint=f"one of {', '.join(_MODULES)}"
            )
        name, password = (settings.get(key, "").replace("\\", "\\\\").replace('"', '\\"') for key in _LOGIN)
        found["kafka.sasl.jaas.config"] = (
            f'{_MODULES[mechanism]} required username="{name}" password="{password}";'
        )
    offsets = {str(shard): parts_of(offset)[0] for shard, offset in sorted(reached.items())}
    return {
        **found,
        "assign": orjson.dumps({topic: sorted(reached)}).decode(),
        "startingOffsets": orjson.dumps({topic: offsets}).decode(),
        "includeHeaders": "true",
        "failOnDataLoss": "true",
        "maxOffsetsPerTrigger": str(4_000 * len(reached)),
    }


def topic_frame(session: Any, settings: Mapping[str, str], topic: str, reached: Mapping[int, str]) -> Any:
    """The topic as a stream of entries."""
    options = connector_options(settings, topic, reached)
    return session.readStream.format("kafka").options(**options).load().selectExpr(*ROWS)
