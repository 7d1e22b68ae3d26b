"""HTTP/1.1 connections on asyncio: httptools parses, this file frames, limits and orders.

Requests of a connection are answered one at a time and in order. What is pipelined behind an
unanswered one waits in `_queue` while reading is paused. A read is parsed in pieces; when it holds many
requests the rest waits in `_unparsed`, so that neither the queue grows nor other connections wait.
Bodies of answers leave in slices as the transport drains.
"""

from __future__ import annotations

from collections import deque

import httptools

from fastserve.http.connection import NOTICE_S, Connection, Context
from fastserve.http.frames import CREDIT_REQUEST, SMALL_DATA
from fastserve.http.message import Request, Response, split_target
from fastserve.http.replies import http_date

SLICE_BYTES = 128 * 1024
PIECE_BYTES = 8 * 1024  # parsed before it is asked whether others should have their turn
BURST = 64  # requests of one connection in one turn of the loop, and what one piece has more
REASONS = {
    100: "Continue",
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    409: "Conflict",
    411: "Length Required",
    413: "Content Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
IDLE, HEAD, BODY = range(3)  # what the parser is in the middle of


class Rejected(Exception):
    """Raised inside a parser callback to stop the parser; the status is answered."""

    def __init__(self, status: int, reason: str = "") -> None:
        super().__init__(status)
        self.status = status
        self.reason = reason or ("protocol_error" if status == 400 else "rejected")


class Job:
    """A complete request and how its answer is to be framed."""

    __slots__ = ("http10", "keep_alive", "request")

    def __init__(self, request: Request, keep_alive: bool, http10: bool) -> None:
        self.request = request
        self.keep_alive = keep_alive
        self.http10 = http10


def render_head(job: Job, response: Response, size: int, keep_alive: bool) -> bytes:
    """Status line and headers.

    Raises:
        ValueError: the response's status or a header cannot be sent.
    """
    status = response.status
    if not 200 <= status <= 599:
        raise ValueError(f"response status {status} is not within 200..599")
    parts = [b"HTTP/1.1 %d %s\r\n" % (status, REASONS.get(status, "Status").encode())]
    if response.content_type:
        parts.append(b"content-type: %b\r\n" % response.content_type)
    if status != 204:
        parts.append(b"content-length: %d\r\n" % size)
    if response.headers:
        parts += [b"%b: %b\r\n" % pair for pair in response.headers]
    if not keep_alive:
        parts.append(b"connection: close\r\n")
    elif job.http10:
        parts.append(b"connection: keep-alive\r\n")
    parts.append(b"date: %b\r\n\r\n" % http_date())
    head = b"".join(parts)
    if head.count(b"\n") != len(parts) + 1 or head.count(b"\r") != len(parts) + 1:
        raise ValueError("a response header holds a line break")
    return head


class H1Connection(Connection):
    """One HTTP/1.x connection. The on_* methods are httptools' callbacks."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Job] = deque()
        self._unparsed = b""
        self._burst = 0  # requests parsed in this turn
        self._spent = 0  # of control_frame_budget
        self._job: Job | None = None  # handed over, not answered yet
        self._out: list[bytes] = []  # small output of this callback
        self._out_size = 0
        self._body: memoryview | None = None  # rest of a large answer
        self._eof = False  # the client has ended its side
        self._last = False  # no request after the ones at hand
        self._rejected = 0  # status to answer once the queue is done
        self._in_data = False
        self._resuming = False  # a head of our own is being parsed
        self._reading_paused = False
        self._since = self.loop.time()  # when the present state began
        self._reset()

    def _reset(self) -> None:
        """Before the next request's head."""
        self._state = IDLE
        self._head_size = 0  # names and values seen
        self._raw_size = 0  # bytes read since, callbacks or not
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._n_host = 0
        self._length: bytes | None = None
        self._chunked = False
        self._method = ""
        self._keep_alive = True
        self._http10 = False
        self._upgrade_body = False
        self._received: bytes | bytearray = b""
        self._body_size = 0
        self._chunk_at = 0  # where in the body the chunk began

    # ---- input ----

    def data_received(self, data: bytes) -> None:
        size = len(data)
        self.stats.bytes_in += size
        if self.closing or self._last:
            self.swallow(size)
            return
        self._in_data = True
        try:
            if size > PIECE_BYTES or self._unparsed:
                self._parse_some(self._unparsed + data)
            else:
                self._parse(data)
        except Rejected as rejected:
            self._reject(rejected.status, rejected.reason)
        finally:
            self._in_data = False
        self._advance()

    def _go_on(self) -> None:
        if self._unparsed:
            self.data_received(b"")

    def _parse_some(self, data: bytes) -> None:
        self._burst = 0
        self._unparsed = b""
        while len(data) > PIECE_BYTES and self._state != BODY and self._burst < BURST:
            self._parse(data[:PIECE_BYTES])
            data = data[PIECE_BYTES:]
        if self._burst < BURST:
            self._parse(data)
        else:
            self._unparsed = data

    def _parse(self, data: bytes) -> None:
        self._raw_size += len(data)
        while data and not self._last:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._ignore_upgrade()
            except httptools.HttpParserCallbackError as error:
                if isinstance(error.__context__, Rejected):
                    raise error.__context__ from None
                raise
            except httptools.HttpParserError:
                raise Rejected(400) from None
        self._bound_overhead()

    def _ignore_upgrade(self) -> None:
        """Go on as if `Upgrade` were not there, as RFC 9110 7.8 allows.

        httptools takes what follows the head for another protocol. When it is a body, a fresh parser
        is told of one by a head of ours, which the callbacks skip.
        """
        self._parser = httptools.HttpRequestParser(self)
        if self._state != BODY:
            return
        framing = (
            b"transfer-encoding: chunked" if self._chunked else b"content-length: %b" % (self._length or b"0")
        )
        self._resuming = True
        self._parser.feed_data(b"POST / HTTP/1.1\r\nhost: -\r\n" + framing + b"\r\n\r\n")
        self._resuming = False

    def _bound_overhead(self) -> None:
        """What no callback shows: an endless header line, chunk extension or trailer."""
        limit = self.limits.max_header_bytes
        if self._state == HEAD and self._raw_size > 2 * limit:
            raise Rejected(431)
        if self._state == IDLE and self._raw_size > 2 * limit:  # empty lines
            raise Rejected(400)
        if self._state == BODY and self._chunked and self._raw_size > 2 * limit + 8 * self._body_size:
            raise Rejected(400)

    def _reject(self, status: int, reason: str) -> None:
        if self._last:
            return
        self._last = True
        self._rejected = status
        self._received = self._unparsed = b""
        self.note_end(reason)
        if status == 400:
            self.stats.protocol_errors += 1
        else:
            self.stats.rejected += 1

    # ---- httptools callbacks ----

    def on_message_begin(self) -> None:
        if self._resuming:
            return
        if self._last:
            raise Rejected(400)
        self._raw_size = 0  # the rest is as the last request, or the beginning, left it
        self._state = HEAD
        self._since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        if not self._resuming:
            self._target += url
        if len(self._target) > self.limits.max_target_bytes:
            raise Rejected(414)

    def on_header(self, name: bytes, value: bytes | None) -> None:
        if self._state != HEAD:
            return  # a trailer
        value = value.rstrip(b" \t") if value else b""  # llhttp only strips on the left
        name = name.lower()
        self._headers.append((name, value))
        self._head_size += len(name) + len(value) + 4
        if self._head_size > self.limits.max_header_bytes:
            raise Rejected(431)
        if name == b"content-length":
            if self._length is not None and self._length != value:
                raise Rejected(400)
            self._length = value
        elif name == b"transfer-encoding":
            if self._chunked:
                raise Rejected(400)
            if value.strip().lower() != b"chunked":
                raise Rejected(501)
            self._chunked = True
        elif name == b"host":
            self._n_host += 1

    def on_headers_complete(self) -> None:
        """Refuse what must not be read further (RFC 9112 3.2, 6.1, 6.3)."""
        if self._resuming:
            return
        has_body = self._chunked or self._length not in (None, b"0")
        method = self._method = self._parser.get_method().decode("ascii")
        self._keep_alive = self._parser.should_keep_alive()
        version = self._parser.get_http_version()
        self._http10, http11 = version == "1.0", version == "1.1"
        if not (self._http10 or http11):
            raise Rejected(400)
        if self._chunked and (self._length is not None or not http11):
            raise Rejected(400)
        if self._n_host > 1 or (http11 and self._n_host == 0):
            raise Rejected(400)
        if method == "CONNECT":
            raise Rejected(501)
        self._upgrade_body = self._parser.should_upgrade() and has_body
        if method in BODY_METHODS and not self._chunked and self._length is None:
            raise Rejected(411)
        if self._length is not None and int(self._length) > self.limits.max_body_bytes:
            raise Rejected(413)
        self._expect(has_body)
        self._state = BODY
        self._raw_size = 0
        self._since = self.loop.time()

    def _expect(self, has_body: bool) -> None:
        for name, value in self._headers:
            if name == b"expect":
                if value.lower() != b"100-continue":
                    raise Rejected(417)
                if has_body and self._job is None and not self._queue and self._body is None:
                    self._put(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, chunk: bytes) -> None:
        self._body_size += len(chunk)
        if self._body_size > self.limits.max_body_bytes:
            raise Rejected(413)
        if not self._received:
            self._received = chunk
        elif isinstance(self._received, bytes):
            self._received = bytearray(self._received) + chunk
        else:
            self._received += chunk

    def _earn(self, tokens: int) -> None:
        self._spent = max(0, self._spent - tokens)

    def on_chunk_complete(self) -> None:
        if self._body_size - self._chunk_at < SMALL_DATA:
            self._spent += 1
            if self._spent > self.limits.control_frame_budget:
                raise Rejected(400, "frame_budget")
        self._chunk_at = self._body_size

    def on_message_complete(self) -> None:
        if self._last:
            return
        if self._upgrade_body:  # not complete: see _ignore_upgrade
            self._upgrade_body = False
            return
        self._burst += 1
        path, query = split_target(self._target)
        request = Request(self._method, path, query, self._headers, bytes(self._received))
        job = Job(request, self._keep_alive, self._http10)
        if not self._keep_alive:
            self._last = True
        self._reset()
        self._since = self.loop.time()
        self._queue.append(job)
        # A draining server's last answer says so, and which one that is shows when all that was read is parsed.
        if self._job is None and self._body is None and not self.paused and not self.context.draining:
            self._next()

    # ---- answers, in order ----

    def _next(self) -> None:
        """Answer from the queue until one has to be waited for or the client is slow."""
        while self._queue and self._job is None and self._body is None and not self.paused:
            job = self._job = self._queue.popleft()
            refused = self.gate.refuses(job.request.path)
            response = self.rejections[429] if refused else self.on_request(0, job.request)
            if response is not None:
                self._answer(job, response)

    def reply(self, token: int, response: Response) -> None:
        if self._job is not None and not self.closing:
            self._answer(self._job, response)
            self._advance()

    def _answer(self, job: Job, response: Response) -> None:
        self._job = None
        if self._spent:
            self._earn(CREDIT_REQUEST + (len(job.request.body) >> 12))
        more = self._queue or self._unparsed or self._state != IDLE
        keep_alive = job.keep_alive and (bool(more) or not self.context.draining)
        try:
            body = memoryview(response.body).cast("B")
            head = render_head(job, response, len(body), keep_alive)
        except Exception as error:
            response = self.on_failure(error)
            body = memoryview(response.body)
            head = render_head(job, response, len(body), keep_alive)
        if not keep_alive:
            self._last = True
            self._unparsed = b""
            self._queue.clear()
        self._put(head)
        if job.request.method == "HEAD" or response.status in (204, 304):
            return
        if len(body) <= SLICE_BYTES:
            self._put(response.body if response.body.__class__ is bytes else bytes(body))
        else:
            self._body = body
            self.flush()

    def _put(self, data: bytes) -> None:
        self._out.append(data)
        self._out_size += len(data)
        if self._out_size > SLICE_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out = []
            self._out_size = 0
            self.write(data)
        while self._body is not None and not self.paused:
            part, rest = self._body[:SLICE_BYTES], self._body[SLICE_BYTES:]
            self._body = rest if len(rest) else None
            self.write(bytes(part))

    def eof_received(self) -> bool:
        """A client that only ends its side still gets the rest of a large answer."""
        self._last = self._eof = True
        return self._body is not None and self.transport.can_write_eof()

    def resume_writing(self) -> None:
        self.paused = False
        if not self._in_data:
            self._advance()

    def _advance(self) -> None:
        """Go on after input, an answer, or room in the transport."""
        if self.closing:
            return
        self.flush()
        self._next()
        self.flush()
        busy = self._job is not None or self._body is not None or bool(self._queue)
        if not busy and self._rejected:
            self._answer_rejection()
        if self._last and not busy and not self.closing:
            self._end()
            return
        if self._unparsed and not busy and not self.paused:
            self.loop.call_soon(self._go_on)
        self._pause_reading(busy or bool(self._unparsed))

    def _end(self) -> None:
        if self._eof:
            self.closing = True
            self.transport.close()
        else:
            self.close_gently()

    def _answer_rejection(self) -> None:
        response, self._rejected = self.rejections[self._rejected], 0
        self._answer(Job(Request("GET", ""), False, False), response)
        self.flush()

    def _pause_reading(self, pause: bool) -> None:
        # A pause would also hide a disconnect from us, so it starts only once something is queued.
        pause = pause and (bool(self._queue) or bool(self._unparsed) or self._body is not None)
        if pause != self._reading_paused and not self.transport.is_closing():
            self._reading_paused = pause
            if pause:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    # ---- time ----

    def check(self, now: float) -> None:
        if self.closing:
            self.check_closing(now)
            return
        if self.stalled(now, self._body is not None):
            self.stats.rejected += 1
            self.note_end("slow_reader")
            self.abort()
            return
        self._earn(self.tokens_of_time(now))
        if self._job is not None or self._body is not None or self._queue:
            self._since = now
            return
        limits = self.limits
        waited = now - self._since
        if self._state == IDLE:
            if waited > limits.idle_timeout_s:
                self._close_idle()
        elif waited > (limits.header_timeout_s if self._state == HEAD else limits.body_timeout_s):
            self._reject(408, "slow_head" if self._state == HEAD else "slow_body")
            self._advance()

    def drain(self, patient: bool = False) -> None:
        """A client that asked a moment ago may have the next request on its way: it gets its answer, the last."""
        if not patient and self.loop.time() - self._since > NOTICE_S:
            self.finish_drain()

    def finish_drain(self) -> None:
        if self._state == IDLE and not (self._job or self._body or self._queue or self._unparsed):
            self._close_idle()

    def _close_idle(self) -> None:
        """Nothing was asked since the last answer: there is no input to wait for."""
        if not self.context.draining:
            self.note_end("idle")
        self._last = self.closing = True
        self.transport.close()
