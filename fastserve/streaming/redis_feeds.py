"""Feeds in Redis 6.2 or newer, beside the rows: a stream a shard, and one transaction for all that an entry changes.

    <feed>:shards        how many shards, text
    <feed>:log:<s>       stream; the fields of an entry are entries.py's
    <feed>:state:<s>     the shard's state
    <feed>:corrected:<s> how often runs have put rows of the shard right
    <feed>:archived:<s>  the last entry that the offline store has
    <feed>:ids:<s>:<b>   8 bytes little-endian for each id of bucket b
    <feed>:dead          stream of dead letters, the last 10,000
    !stream:<project>:workers    sorted set: worker -> when it was last heard of, milliseconds of Redis' clock

A transaction is WATCH of the state and the guards, a read of them and of the rows, and MULTI … EXEC: so a worker that
lost its shard cannot write. Rows are not watched, for Redis looks through all keys a client watches for each more: they
have one other writer than the shard's owner, a run, which puts them right (corrections.py); how often it did is watched
too, so that a transaction which read one of them before is done again. It publishes the keys it wrote (changes.py). In
a cluster these keys lie on different nodes; it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fastserve.batch import ReadBatch
from fastserve.errors import ConfigError, StoreError, StoreTimeoutError, StoreUnavailableError
from fastserve.hashes.mixing import Words
from fastserve.online.changes import channel_of
from fastserve.online.redis import check_url
from fastserve.online.resp_write import encode_command, encode_publish
from fastserve.streaming.base import DEAD_LETTERS, Changes, Correction, MovedError, Place, Work, check_held
from fastserve.streaming.corrections import CORRECT, correction_calls
from fastserve.streaming.entries import DeadLetter, Entry
from fastserve.streaming.feeds import Feed, workers_key
from fastserve.streaming.places import earliest, place_at, stamped_us
from fastserve.streaming.seen import packed_words, unpacked_words
from fastserve.streaming.state import START

_TIMEOUT_S: Final = 10.0
_READ_KEYS: Final = 1_000
"""Of one MGET: between two of them others are served."""
_MULTI: Final = b"*1\r\n$5\r\nMULTI\r\n"
_EXEC: Final = b"*1\r\n$4\r\nEXEC\r\n"
_BEAT: Final = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""


class RedisFeeds:
    """A FeedStore; see the module's docstring.

    Args:
        url: as of the online store.

    Raises:
        ConfigError: for a malformed URL, or a cluster.
        StoreError: the server does not answer.
    """

    lanes = 4  # while Redis does what one of them asked for, the next ones are computed

    def __init__(self, url: str) -> None:
        self._label = check_url(url)
        self._client = redis.Redis.from_url(url, socket_timeout=_TIMEOUT_S, retry=Retry(NoBackoff(), 0))
        self._channel = channel_of(int(self._client.get_connection_kwargs().get("db") or 0))
        self._beat = self._client.register_script(_BEAT)
        self._correct: Any = self._client.register_script(CORRECT)
        with self._translated():
            if self._client.info("cluster").get("cluster_enabled"):
                self.close()
                raise ConfigError(
                    "streams need a Redis that is no cluster: rows and state of a shard move in one transaction",
                    where=self._label,
                    hint="use one server with replicas",
                )

    def shard_count(self, feed: Feed, wanted: int) -> int:
        """See FeedStore."""
        key = feed.key("shards")
        with self._translated():
            self._client.set(key, wanted, nx=True)
            return int(self._client.get(key) or wanted)

    def append(self, entries: Sequence[tuple[Feed, int, Mapping[bytes, bytes]]]) -> None:
        """See FeedStore."""
        with self._translated(), self._client.pipeline(transaction=False) as pipe:
            for feed, shard, fields in entries:
                pipe.xadd(feed.key("log", shard), dict(fields.items()))
            pipe.execute()

    def entries(self, feed: Feed, shard: int, after: str, count: int) -> list[Entry]:
        """See FeedStore."""
        with self._translated():
            found: Any = self._client.xrange(feed.key("log", shard), min=f"({after}", count=count)
        return [Entry(name.decode(), stamped_us(name.decode()), fields) for name, fields in found]

    def wait(self, places: Mapping[Place, str], seconds: float) -> None:
        """See FeedStore."""
        streams: dict[Any, Any] = {feed.key("log", shard): after for (feed, shard), after in places.items()}
        with self._translated():
            self._client.xread(streams, count=1, block=max(int(seconds * 1_000), 1))

    def states(self, places: Sequence[Place]) -> list[bytes | None]:
        """See FeedStore."""
        return self.values([feed.key("state", shard) for feed, shard in places])

    def swap(self, feed: Feed, shard: int, held: bytes | None, state: bytes) -> bool:
        """See FeedStore."""
        key = feed.key("state", shard)
        return self.exchange({key: held}, {key: state})

    def exchange(self, held: Mapping[bytes, bytes | None], new: Mapping[bytes, bytes]) -> bool:
        """See FeedStore."""
        with self._translated(), self._client.pipeline() as pipe:
            pipe.watch(*held)  # type: ignore[no-untyped-call]
            found: list[Any] = pipe.mget(list(held))
            if found != list(held.values()):
                return False
            pipe.multi()
            pipe.mset(dict(new.items()))
            try:
                pipe.execute()
            except redis.WatchError:
                return False
        return True

    def ids(self, feed: Feed, shard: int, buckets: Sequence[int]) -> dict[int, Words]:
        """See FeedStore."""
        held = self.values([_ids_key(feed, shard, bucket) for bucket in buckets])
        return {
            bucket: unpacked_words(words)
            for bucket, words in zip(buckets, held, strict=True)
            if words is not None
        }

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See FeedStore."""
        with self._translated():
            found: list[Any] = self._client.mget(keys) if keys else []
        return found

    def apply(
        self,
        feed: Feed,
        shard: int,
        held: bytes,
        guards: Mapping[bytes, bytes | None],
        keys: ReadBatch,
        work: Work,
    ) -> Changes:
        """See FeedStore."""
        looked, wanted = [feed.key("state", shard), *guards], [held, *guards.values()]
        reads = [_packed(b"WATCH", feed.key("corrected", shard), *looked), _packed(b"MGET", *looked)]
        missing = keys.missing_keys()
        for start in range(0, len(missing), _READ_KEYS):
            reads.append(_packed(b"MGET", *missing[start : start + _READ_KEYS]))
        with self._translated(), self._line() as line:
            _, found, *rows = line.ask(reads, len(reads))
            check_held(feed, shard, wanted, found)
            keys.fill([row for part in rows for row in part], 0)
            changes = work()
            commands = self._writes(feed, shard, changes)
            if line.ask(commands, len(commands))[-1] is None:
                raise MovedError("somebody came between", where=f"{feed.name}, shard {shard}")
        return changes

    def _writes(self, feed: Feed, shard: int, changes: Changes) -> list[bytes]:
        """The transaction's commands."""
        state = [b"MSET", feed.key("state", shard), changes.state]
        found = [_MULTI, encode_command(state, changes.rows, rows=True)]
        for bucket, words in changes.ids.items():
            found.append(_packed(b"APPEND", _ids_key(feed, shard, bucket), packed_words(words)))
        if changes.let_go:
            found.append(_packed(b"UNLINK", *(_ids_key(feed, shard, bucket) for bucket in changes.let_go)))
        most = (b"MAXLEN", b"~", b"%d" % DEAD_LETTERS, b"*")
        for letter in changes.dead:
            found.append(_packed(b"XADD", feed.key("dead"), *most, *_fields(shard, letter)))
        if changes.rows:
            found.append(encode_publish(self._channel, changes.rows))
        return [*found, _EXEC]

    @contextmanager
    def _line(self) -> Iterator[_Line]:
        """A connection for one transaction; it is given up where that ends half-way, and with it what it watches."""
        pool = self._client.connection_pool
        connection = pool.get_connection()
        try:
            yield _Line(connection)
        except BaseException:
            connection.disconnect()  # type: ignore[no-untyped-call]
            raise
        finally:
            pool.release(connection)

    def correct(self, feed: Feed, shard: int, rows: Sequence[Correction]) -> list[bool]:
        """See FeedStore."""
        count = feed.key("corrected", shard)
        with self._translated(), self._client.pipeline(transaction=False) as pipe:
            for keys, words in correction_calls(rows):
                self._correct(keys=[count, *keys], args=[self._channel, *words], client=pipe)
            done: list[list[int]] = pipe.execute()
        return [bool(one) for part in done for one in part]

    def beat(self, project: str, worker: str, alive_s: float) -> list[str]:
        """See FeedStore."""
        with self._translated():
            found: Any = self._beat(keys=[workers_key(project)], args=[worker, int(alive_s * 1_000)])
        return sorted(name.decode() for name in found)

    def leave(self, project: str, worker: str) -> None:
        """See FeedStore."""
        with self._translated():
            self._client.zrem(workers_key(project), worker)

    def trim(self, feed: Feed, shard: int, before: str, older_than_us: int, *, archived: bool) -> int:
        """See FeedStore."""
        first = earliest(before, place_at(older_than_us))
        if archived:
            (place,) = self.values([feed.key("archived", shard)])
            first = earliest(first, (place or START.encode()).decode())
        with self._translated():
            dropped: Any = self._client.xtrim(feed.key("log", shard), minid=first, approximate=True)
        return int(dropped)

    def note_archived(self, feed: Feed, places: Mapping[int, str]) -> None:
        """See FeedStore."""
        with self._translated():
            self._client.mset({feed.key("archived", shard): place for shard, place in places.items()})

    def last(self, feed: Feed, shard: int) -> str:
        """See FeedStore."""
        about = self._about_log(feed, shard)
        return START if about is None else str(about["last-generated-id"].decode())

    def added(self, feed: Feed, shard: int) -> int | None:
        """See FeedStore: Redis 7 knows."""
        about = self._about_log(feed, shard)
        if about is None:
            return 0
        added = about.get("entries-added")
        return None if added is None else int(added)

    def _about_log(self, feed: Feed, shard: int) -> Mapping[str, Any] | None:
        with self._translated():
            try:
                about: Any = self._client.xinfo_stream(feed.key("log", shard))
            except redis.ResponseError:  # there is none yet
                return None
        found: Mapping[str, Any] = about
        return found

    def close(self) -> None:
        """See FeedStore."""
        self._client.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise StoreError for whatever redis-py raises."""
        try:
            yield
        except redis.TimeoutError as error:
            raise StoreTimeoutError(f"Redis at {self._label} did not answer in time") from error
        except redis.ConnectionError as error:
            raise StoreUnavailableError(
                f"Redis at {self._label} cannot be reached: {error}", hint="is redis-server running?"
            ) from error
        except redis.RedisError as error:
            raise StoreError(f"Redis at {self._label} answered: {error}") from error


def _ids_key(feed: Feed, shard: int, bucket: int) -> bytes:
    return feed.key("ids", shard) + b":%d" % bucket


def _fields(shard: int, letter: DeadLetter) -> tuple[bytes, ...]:
    row = b"" if letter.row is None else b"%d" % letter.row
    return (b"shard", b"%d" % shard, b"entry", letter.entry.encode(), b"row", row,
            b"reason", letter.reason.encode(), b"body", letter.body)  # fmt: skip


def _packed(*words: bytes) -> bytes:
    return encode_command(words, [], rows=False)


class _Line:
    """A connection on which several commands are sent at once."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def ask(self, commands: list[bytes], n: int) -> list[Any]:
        """The n replies. Raises redis-py's error for the first that is one."""
        self._connection.send_packed_command(commands)
        return [self._connection.read_response() for _ in range(n)]
