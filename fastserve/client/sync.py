"""The client for everybody else: AsyncClient on an event loop of its own, in a thread of its own.

One implementation of deadlines, retries and HTTP/2 serves both. Any number of threads may share a Client; their
requests share its connections. A call costs two thread switches, some 50 µs.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from fastserve.client.aio import AsyncClient
from fastserve.client.features import FeatureRow, Features
from fastserve.client.options import DEFAULT_URL, Options
from fastserve.client.tensor import Tensor
from fastserve.client.wire import Health, Rows
from fastserve.errors import ConfigError

T = TypeVar("T")


class _LoopThread:
    """An event loop in a daemon thread, and the AsyncClient that lives there."""

    def __init__(self, client: AsyncClient) -> None:
        self.pid = os.getpid()
        self.client = client
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="fastserve-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine on that loop; an exception here, like KeyboardInterrupt, cancels it there."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Close the client, end the thread."""
        self.run(self.client.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Client:
    """AsyncClient's methods, blocking. Safe to share between threads, and to use in a process forked since.

    Args:
        url, options, changes: see AsyncClient.

    Raises:
        ConfigError: the URL or an option is wrong.
    """

    def __init__(self, url: str = DEFAULT_URL, options: Options | None = None, **changes: Any) -> None:
        self._made_of = (url, (options or Options()).changed(**changes))
        self._client = AsyncClient(*self._made_of)
        self._lock = threading.Lock()
        self._worker: _LoopThread | None = None
        self._closed = False

    def __repr__(self) -> str:
        return repr(self._client).replace("Async", "", 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get_online_features(
        self,
        features: Sequence[str] | None = None,
        entities: Rows = (),
        *,
        service: str | None = None,
        full_feature_names: bool = False,
        deadline_ms: int | None = None,
        format: str = "json",
        expect_fingerprint: str | None = None,
    ) -> Features:
        """Features of many entities; see AsyncClient.get_online_features."""
        worker = self._started()
        return worker.run(
            worker.client.get_online_features(
                features,
                entities,
                service=service,
                full_feature_names=full_feature_names,
                deadline_ms=deadline_ms,
                format=format,
                expect_fingerprint=expect_fingerprint,
            )
        )

    def get_online_tensor(
        self,
        features: Sequence[str] | None = None,
        entities: Rows = (),
        *,
        service: str | None = None,
        full_feature_names: bool = False,
        deadline_ms: int | None = None,
        expect_fingerprint: str | None = None,
    ) -> Tensor:
        """The same read as one matrix of floats; see AsyncClient.get_online_tensor."""
        worker = self._started()
        return worker.run(
            worker.client.get_online_tensor(
                features,
                entities,
                service=service,
                full_feature_names=full_feature_names,
                deadline_ms=deadline_ms,
                expect_fingerprint=expect_fingerprint,
            )
        )

    def get_feature_view_row(
        self, view: str, /, *, deadline_ms: int | None = None, **keys: Any
    ) -> FeatureRow:
        """All features of one entity of a view; see AsyncClient.get_feature_view_row."""
        worker = self._started()
        return worker.run(worker.client.get_feature_view_row(view, deadline_ms=deadline_ms, **keys))

    def push(self, source: str, rows: Rows, *, to: str = "online", deadline_ms: int | None = None) -> None:
        """Push rows to the views of a push source; see AsyncClient.push."""
        worker = self._started()
        worker.run(worker.client.push(source, rows, to=to, deadline_ms=deadline_ms))

    def write_to_online_store(self, view: str, rows: Rows, *, deadline_ms: int | None = None) -> None:
        """Write rows of one view to the online store; see AsyncClient.write_to_online_store."""
        worker = self._started()
        worker.run(worker.client.write_to_online_store(view, rows, deadline_ms=deadline_ms))

    def health(self, *, deadline_ms: int | None = None) -> Health:
        """Whether the server and its store answer; see AsyncClient.health."""
        worker = self._started()
        return worker.run(worker.client.health(deadline_ms=deadline_ms))

    def close(self) -> None:
        """Close the connections; calls in flight fail. Closing twice is harmless."""
        with self._lock:
            worker, self._worker, self._closed = self._worker, None, True
        if worker is not None and worker.pid == os.getpid():
            worker.stop()

    def _started(self) -> _LoopThread:
        """The thread; a forked process, which inherits none, starts its own."""
        worker = self._worker
        if worker is not None and worker.pid == os.getpid():
            return worker
        if worker is not None:
            self._lock = threading.Lock()  # another thread may have held it when we were forked
        with self._lock:
            if self._closed:
                raise ConfigError("the client is closed", where=repr(self), hint="make a new one")
            if self._worker is None or self._worker.pid != os.getpid():
                self._worker = _LoopThread(AsyncClient(*self._made_of))
            return self._worker
