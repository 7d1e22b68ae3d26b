"""The client for asyncio. What a call does stands in `_call`, top to bottom; the methods only say what is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fastserve.client import wire
from fastserve.client.faults import error_of, retry_after_s
from fastserve.client.features import FeatureRow, Features
from fastserve.client.options import DEFAULT_URL, Endpoint, Options, RetryBudget
from fastserve.client.tensor import Tensor
from fastserve.client.wire import Answer, Call, Health, Rows
from fastserve.errors import ClientError, ConfigError, DeadlineError, FastserveError, UnreachableError

if TYPE_CHECKING:
    from fastserve.client.transport import Transport

T = TypeVar("T")


class AsyncClient:
    """Talks to one fastserve server, or to the address that many share. Connections are made at the first call.

    An AsyncClient belongs to the event loop of its first call. Keep it: a new one has to connect.

    Args:
        url: ``http://host:port`` or ``https://host``.
        options: how to behave; see Options.
        changes: single options by name: ``AsyncClient(url, token="…", deadline_ms=50)``.

    Raises:
        ConfigError: the URL or an option is wrong.
    """

    def __init__(self, url: str = DEFAULT_URL, options: Options | None = None, **changes: Any) -> None:
        self._endpoint = Endpoint.parse(url)
        self._options = (options or Options()).changed(**changes)
        self._transport: Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._budget = RetryBudget(self._options.retry)
        self._headers = {"user-agent": "fastserve-client"}
        if self._options.token:
            self._headers["authorization"] = f"Bearer {self._options.token}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._endpoint}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---- what can be asked ----

    async def get_online_features(
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
        """Features of many entities, in the order asked for.

        Args:
            features: references ``view:feature`` or ``view@v2:feature``; or a `service` instead.
            entities: join keys: columns ``{"user_id": [1, 2]}``, a list of rows, or a table.
            service: name of a feature service.
            full_feature_names: names like ``view__feature``.
            deadline_ms: for all of it, retries included; None for the client's.
            format: "json", or "arrow" (needs pyarrow), which is smaller and faster for many rows.
            expect_fingerprint: `Features.fingerprint` of what the model was trained with.

        Raises:
            SchemaMismatchError: the features served have another fingerprint than expected.
            UnknownObjectError, InvalidEntityError, TooLargeError, RequestError: what the server says is wrong.
            DeadlineError, UnreachableError, OverloadedError, StoreError, ServerError: no answer could be had.
        """
        return await self._call(
            wire.online_features(
                features,
                entities,
                service=service,
                full_feature_names=full_feature_names,
                deadline_ms=deadline_ms,
                format=format,
                expect_fingerprint=expect_fingerprint,
            )
        )

    async def get_online_tensor(
        self,
        features: Sequence[str] | None = None,
        entities: Rows = (),
        *,
        service: str | None = None,
        full_feature_names: bool = False,
        deadline_ms: int | None = None,
        expect_fingerprint: str | None = None,
    ) -> Tensor:
        """The same read as one matrix of floats: the least work for both sides. Arguments as get_online_features.

        Raises:
            RequestError: a feature is of a type that a float64 does not hold exactly, or of no fixed width.
            SchemaMismatchError: the features served have another fingerprint than expected.
            UnknownObjectError, InvalidEntityError, TooLargeError: what the server says is wrong.
            DeadlineError, UnreachableError, OverloadedError, StoreError, ServerError: no answer could be had.
        """
        return await self._call(
            wire.online_tensor(
                features,
                entities,
                service=service,
                full_feature_names=full_feature_names,
                deadline_ms=deadline_ms,
                expect_fingerprint=expect_fingerprint,
            )
        )

    async def get_feature_view_row(
        self, view: str, /, *, deadline_ms: int | None = None, **keys: Any
    ) -> FeatureRow:
        """All features of one entity of a view.

        Args:
            view: its name, or ``view@v2``.
            deadline_ms: for all of it, retries included; None for the client's.
            keys: the join keys by name: ``user_id=1``.

        Raises:
            UnknownObjectError, InvalidEntityError: there is no such view, or the keys do not fit it.
            DeadlineError, UnreachableError, OverloadedError, StoreError, ServerError: no answer could be had.
        """
        return await self._call(wire.feature_view_row(view, keys, deadline_ms))

    async def push(
        self, source: str, rows: Rows, *, to: str = "online", deadline_ms: int | None = None
    ) -> None:
        """Push rows to the views of a push source. It may be sent twice: pushed rows are idempotent.

        Args:
            source: name of the push source.
            rows: columns, a list of rows, or a table: join keys, event timestamp, features.
            to: "online", "offline" or "online_and_offline".
            deadline_ms: for all of it, retries included; None for the client's.

        Raises:
            UnknownObjectError, InvalidDataError, TooLargeError, RequestError: what the server says is wrong.
            DeadlineError, UnreachableError, OverloadedError, StoreError, ServerError: no answer could be had; the
                rows may or may not have been taken.
        """
        await self._call(wire.push(source, rows, to, deadline_ms))

    async def write_to_online_store(self, view: str, rows: Rows, *, deadline_ms: int | None = None) -> None:
        """Write rows of one view to the online store; the newest wins, as always.

        Args:
            view: its name.
            rows: columns, a list of rows, or a table: join keys, event timestamp, features.
            deadline_ms: for all of it, retries included; None for the client's.

        Raises:
            UnknownObjectError, InvalidDataError, TooLargeError, RequestError: what the server says is wrong.
            DeadlineError, UnreachableError, OverloadedError, StoreError, ServerError: no answer could be had; the
                rows may or may not have been taken.
        """
        await self._call(wire.write_to_online_store(view, rows, deadline_ms))

    async def health(self, *, deadline_ms: int | None = None) -> Health:
        """Whether the server and its store answer. A server that says no is an answer, not an error.

        Raises:
            DeadlineError, UnreachableError, ServerError: no answer could be had.
        """
        return await self._call(wire.health(deadline_ms))

    async def close(self) -> None:
        """Close the connections; calls in flight fail. Closing twice is harmless."""
        self._closed = True
        if self._transport is not None:
            transport, self._transport = self._transport, None
            await transport.close()

    # ---- how it is asked ----

    async def _call(self, call: Call[T]) -> T:
        """Send, and send again where that helps, until there is an answer or the deadline is over."""
        loop = self._bind()
        limit_ms = call.deadline_ms if call.deadline_ms is not None else self._options.deadline_ms
        end = loop.time() + limit_ms / 1_000
        attempt = 0
        last: FastserveError | None = None
        while True:
            attempt += 1
            try:
                async with asyncio.timeout_at(end):
                    outcome = await self._attempt(call, end - loop.time())
            except TimeoutError:
                raise DeadlineError(
                    f"no answer within {limit_ms} ms" + (f" and {attempt} attempts" if attempt > 1 else ""),
                    where=str(self._endpoint),
                    hint=f"the last failure was: {last}"
                    if last
                    else "raise deadline_ms, or look at the server",
                ) from last
            pause_s = self._pause_s(call, outcome, attempt)
            if pause_s is not None and loop.time() + pause_s < end and self._budget.take():
                last = outcome if isinstance(outcome, FastserveError) else _error(outcome)
                await asyncio.sleep(pause_s)
            elif isinstance(outcome, ClientError):
                raise outcome
            else:
                return call.parse(outcome)

    def _pause_s(self, call: Call[Any], outcome: Answer | ClientError, attempt: int) -> float | None:
        """Seconds until the next attempt; None when this outcome stands."""
        if isinstance(outcome, UnreachableError):
            return self._options.retry.pause_s(attempt)
        if isinstance(outcome, ClientError) or outcome.status not in (429, 503):
            self._budget.answered()
            return None
        if not call.retry_busy:
            return None
        return self._options.retry.pause_s(attempt, retry_after_s(outcome.headers))

    async def _attempt(self, call: Call[Any], left_s: float) -> Answer | ClientError:
        """One request. The server is told of nine tenths of the time left: the answer has to travel."""
        headers = {"accept": call.accept, **self._headers}
        headers[wire.DEADLINE] = str(min(999_999_999, max(1, int(left_s * 900))))
        if call.body:
            headers["content-type"] = wire.JSON
        try:
            return await (await self._opened()).send(call.method, call.path, headers, call.body)
        except ClientError as error:
            return error

    def _bind(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise ConfigError("the client is closed", where=repr(self), hint="make a new one")
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ConfigError(
                "the client belongs to another event loop",
                where=repr(self),
                hint="make one per loop, or use fastserve.client.Client, which any thread may call",
            )
        return loop

    async def _opened(self) -> Transport:
        """The transport; made at the first call, where its libraries are imported and a loop runs."""
        if self._transport is None:
            self._transport = open_transport(self._endpoint, self._options)
        return self._transport


def _error(answer: Answer) -> FastserveError:
    return error_of(answer.status, answer.headers, answer.body)


def open_transport(endpoint: Endpoint, options: Options) -> Transport:
    """The transport for `options.http`.

    Raises:
        ConfigError: the libraries that it needs are not installed.
    """
    if options.http == "1.1":
        return _http1(endpoint, options)
    try:
        from fastserve.client.h2 import H2Transport  # noqa: PLC0415
    except ImportError as error:
        if options.http == "auto":
            return _http1(endpoint, options)
        raise ConfigError(
            "HTTP/2 needs the h2 library or fastserve built with libnghttp2", hint="pip install h2"
        ) from error
    if options.http == "auto" and endpoint.tls:
        from fastserve.client.negotiate import Negotiated  # noqa: PLC0415

        return Negotiated(H2Transport(endpoint, options), lambda: _http1(endpoint, options))
    return H2Transport(endpoint, options)


def _http1(endpoint: Endpoint, options: Options) -> Transport:
    try:
        from fastserve.client.h1 import H1Transport  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "HTTP/1.1 needs aiohttp", where="fastserve.client", hint="pip install aiohttp"
        ) from error
    return H1Transport(endpoint, options)
