"""An HTTP/2 server session without I/O: libnghttp2 with our limits. Twin: fastserve/http/h2_py.py.

Bytes in (`feed`) -> frames are counted (h2_frames) -> libnghttp2 -> callbacks fill a `Stream` per
request -> finished ones go to `owner.on_request(stream_id, Request)` -> `Response | None`.
Answers (`submit`) -> header block by libnghttp2, DATA read from the response's own buffer
-> `data_to_send`: one copy, buffer to output bytes, with the frame heads between.

One connection's state:
    streams    {stream id: Stream}, from the head of a request to the close of its stream
    ready      [Stream], complete requests of the slice being fed, handed over after it
    cancelled  [stream id], closed while their answer was awaited, told to the owner after the call
    budget     tokens left for control frames (Limits.control_frame_budget)
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.time cimport time, time_t

from h2_frames cimport CREDIT_REQUEST, frames_credit, frames_init, frames_scan, frames_settle
from h2_headers cimport (
    BOMB_FACTOR, MAX_NV, PairCache, cached_pair, check_value, clear_cache, decimal, equals, fill_head,
    method_of, split_target
)
from h2_output cimport (
    Body, Core, charge_reset, claim, extended, fill_output, hold, new_callbacks, new_output, on_invalid_frame,
    release, submit_answer, submit_continue, submit_head, submit_last_goaway, submit_notice, submit_reset,
    submit_settings
)
from nghttp2 cimport *

from fastserve.http.message import CheckedHeaders, Request
from fastserve.http.replies import http_date

cdef object new_request = Request
cdef type CHECKED = CheckedHeaders
cdef char *OUT = new_output()
cdef bytes DATE = b""
cdef time_t DATE_SECOND = 0


cdef bytes date_now():
    """The value of Date; asked for once a second."""
    global DATE, DATE_SECOND
    cdef time_t second = time(NULL)
    if second != DATE_SECOND:
        DATE, DATE_SECOND = http_date(), second
    return DATE


# ---- requests -------------------------------------------------------------------------------------


@cython.final
@cython.freelist(256)
cdef class Stream:
    """A request from its head to the close of its stream, and the answer to it."""
    cdef int32_t id
    cdef str method, path, query
    cdef list headers
    cdef object body            # None | bytes (one chunk) | bytearray (more)
    cdef Py_ssize_t header_size, body_size
    cdef Py_ssize_t swallowed   # bytes received after the request was rejected
    cdef double started
    cdef int reject             # status of the limit it breaks, 0: none
    cdef bint wants_continue    # expect: 100-continue
    cdef bint ended             # END_STREAM was received
    cdef bint taken             # complete and handed over, or rejected: more body is swallowed
    cdef bint awaited           # handed over and not answered yet
    cdef bint answered          # an answer was submitted
    cdef bint finished          # END_STREAM was sent
    cdef bint cut               # to be reset once finished
    cdef bint closed
    cdef Body answer

    def __dealloc__(self):
        release(&self.answer)


# ---- session --------------------------------------------------------------------------------------


@cython.final
cdef class Session:
    """One HTTP/2 connection, server side. See fastserve/http/session.py for the contract."""

    cdef nghttp2_session *session
    cdef Core core                  # what callbacks need: scanner, budget, clock, output
    cdef PairCache cache
    cdef object owner, on_request, stats, gate
    cdef dict rejections, streams
    cdef list ready, cancelled
    cdef bytes content_type         # of the last answer: it was checked
    cdef Stream current             # whose header block is being decoded
    cdef int draining               # 0 no, 1 first GOAWAY sent, 2 last GOAWAY sent
    cdef readonly bint terminated
    cdef readonly str end_reason    # fastserve/http/endings.py; "" while it goes on
    cdef readonly Py_ssize_t buffered_body_bytes
    cdef Py_ssize_t max_header, max_target, max_body, max_buffered, max_pending
    cdef double header_timeout, body_timeout

    def __cinit__(self, owner, limits, double now):
        self.owner, self.on_request = owner, owner.on_request
        self.stats = owner.stats
        self.rejections, self.gate = owner.rejections, owner.gate
        self.streams, self.ready, self.cancelled = {}, [], []
        self.end_reason, self.content_type = "", b""
        self.max_header, self.max_target = limits.max_header_bytes, limits.max_target_bytes
        self.max_body, self.max_buffered = limits.max_body_bytes, limits.max_buffered_body_bytes
        self.max_pending = limits.max_pending_response_bytes
        self.header_timeout, self.body_timeout = limits.header_timeout_s, limits.body_timeout_s
        self.core.session = <void *>self
        self.core.out = OUT
        frames_init(&self.core.frames, limits.control_frame_budget, now)
        cdef int rc = nghttp2_session_server_new2(&self.session, CALLBACKS, <void *>&self.core, OPTIONS)
        if rc != 0:
            raise MemoryError(nghttp2_strerror(rc))
        submit_settings(
            self.session, limits.max_concurrent_streams, limits.stream_window_bytes,
            limits.max_header_bytes, limits.connection_window_bytes)

    def __dealloc__(self):
        if self.session is not NULL:
            nghttp2_session_del(self.session)
        clear_cache(&self.cache)

    # ---- input ----

    def feed(self, data, double now):
        """Take received bytes; complete requests go to the owner before it returns."""
        cdef Py_buffer view
        cdef Py_ssize_t at = 0, n
        cdef ssize_t rc
        self.core.frames.now = now
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            while at < view.len and not self.terminated:
                n = frames_scan(&self.core.frames, <const uint8_t *>view.buf + at, view.len - at)
                rc = nghttp2_session_mem_recv(self.session, <const uint8_t *>view.buf + at, n)
                at += n
                frames_settle(&self.core.frames)
                if rc < 0:
                    self.terminate(NGHTTP2_PROTOCOL_ERROR, "protocol_error")
                self._dispatch()
                if self.core.frames.budget < 0:
                    self.terminate(NGHTTP2_ENHANCE_YOUR_CALM, "frame_budget")
        finally:
            PyBuffer_Release(&view)
            self._tell_cancelled()

    cdef int _dispatch(self) except -1:
        cdef Stream stream
        cdef Py_ssize_t i = 0
        while i < len(self.ready):
            stream = <Stream>self.ready[i]
            i += 1
            if stream.closed:
                continue
            body = b"" if stream.body is None else bytes(stream.body)
            stream.body = None
            stream.awaited = True
            response = self.on_request(
                stream.id,
                new_request(stream.method, stream.path, stream.query, stream.headers, body))
            if response is not None:
                self._answer_safely(stream, response)
        if i:
            self.ready.clear()
        return 0

    cdef int _tell_cancelled(self) except -1:
        while self.cancelled and self.owner is not None:
            self.owner.on_cancel(self.cancelled.pop())
        return 0

    # ---- answers ----

    def submit(self, int32_t stream_id, response):
        """Answer a request that waits for it; nothing happens when it is gone or answered."""
        cdef Stream stream = self.streams.get(stream_id)
        if stream is not None and stream.awaited and not self.terminated:
            self._answer_safely(stream, response)

    cdef int _answer_safely(self, Stream stream, response) except -1:
        stream.awaited = False
        try:
            self._answer(stream, response)
        except Exception as error:
            self._answer(stream, self.owner.on_failure(error))
        return 0

    cdef int _answer(self, Stream stream, response) except -1:
        """Submit head and body of `response`; its body stays borrowed until the stream closes."""
        cdef nghttp2_nv nva[MAX_NV]
        cdef char scratch[32]
        cdef bytes date = date_now()
        cdef bytes content_type = response.content_type
        cdef Py_ssize_t n, size
        if content_type is not self.content_type:   # most answers have that of the last
            check_value(b"content-type", content_type)
            self.content_type = content_type
        hold(&stream.answer, response.body)
        try:
            size = stream.answer.view.len
            n = fill_head(nva, response, content_type, date, size, scratch, CHECKED)
            if response.status in (204, 304) or stream.method == "HEAD" or size == 0:
                release(&stream.answer)
                submit_head(self.session, stream.id, nva, n)
            else:
                submit_answer(self.session, stream.id, nva, n, &stream.answer)
                self.core.pending_bytes += size
        except Exception:
            release(&stream.answer)
            raise
        stream.answered = True
        return 0

    cdef int _reject(self, Stream stream, int status) except -1:
        """Answer with `status` once the client has sent all; what still comes is swallowed.

        Many clients (curl 7 for one) lose an answer that is complete before their request is.
        """
        stream.taken = True
        stream.reject = status
        stream.body = None
        self.buffered_body_bytes -= stream.body_size
        stream.body_size = 0
        self.stats.rejected += 1
        self.core.frames.budget -= 1
        if stream.ended or stream.wants_continue:
            self._answer(stream, self.rejections[status])
        return 0

    cdef int _cut(self, Stream stream) except -1:
        """Enough swallowed, or for long enough: answer now and reset after it (RFC 9113 8.1)."""
        if stream.cut:
            return 0
        stream.cut = True
        if stream.finished:
            submit_reset(self.session, stream.id, NGHTTP2_NO_ERROR)
        elif stream.reject and not stream.answered:
            self._answer(stream, self.rejections[stream.reject])
        return 0

    def data_to_send(self, size_t max_bytes):
        """The next output, about `max_bytes` (at most a frame more); b"" when there is none."""
        cdef int rc = fill_output(&self.core, self.session, max_bytes)
        self._tell_cancelled()
        if rc < 0:
            self.terminated = True
        return PyBytes_FromStringAndSize(OUT, self.core.out_size)

    # ---- life cycle (session.py says what each is) ----

    @property
    def in_flight(self):
        return len(self.streams)

    @property
    def pending_bytes(self):
        return self.core.pending_bytes

    @property
    def budget(self):
        return self.core.frames.budget

    @property
    def closed(self):
        return not (nghttp2_session_want_read(self.session) or nghttp2_session_want_write(self.session))

    def expire(self, double now):
        """Answer 408 where a body is overdue; end the connection when a head is."""
        cdef Stream stream
        if self.core.frames.head_since and now - self.core.frames.head_since > self.header_timeout:
            self.stats.rejected += 1
            self.terminate(NGHTTP2_ENHANCE_YOUR_CALM, "slow_head")
            return
        for item in list(self.streams.values()):
            stream = <Stream>item
            if not stream.ended and now - stream.started > self.body_timeout:
                if not stream.taken:
                    self._reject(stream, 408)
                self._cut(stream)

    def grant(self, int tokens):
        """Give back tokens of the control frame budget for time passed."""
        frames_credit(&self.core.frames, 0, tokens)

    def start_drain(self):
        """First GOAWAY (any stream id) and a PING; its answer brings the last GOAWAY."""
        if self.draining == 0 and not self.terminated:
            self.draining = 1
            submit_notice(self.session)

    def finish_drain(self):
        """Last GOAWAY: streams above the last one seen are refused, the others finish."""
        if self.draining < 2 and not self.terminated:
            self.draining = 2
            submit_last_goaway(self.session)

    def terminate(self, uint32_t error_code, str reason=""):
        """GOAWAY with `error_code`, then nothing more is read or written."""
        if not self.terminated:
            self.terminated = True
            self.end_reason = self.end_reason or reason
            nghttp2_session_terminate_session(self.session, error_code)

    def close(self):
        """The connection is gone: forget requests and answers, break the cycle with the owner."""
        self.terminated = True
        self.owner = self.on_request = None
        self.ready.clear()
        self.cancelled.clear()


# ---- libnghttp2 callbacks: `user_data` is the Core, -902 an exception (nghttp2.pxd) --------------


cdef inline Stream stream_of(nghttp2_session *session, int32_t stream_id):
    cdef void *found = nghttp2_session_get_stream_user_data(session, stream_id)
    return None if found is NULL else <Stream>found


cdef int on_begin_headers(
    nghttp2_session *session, const nghttp2_frame *frame, void *user_data
) except? -902:
    cdef Session self = <Session>(<Core *>user_data).session
    cdef Stream stream
    if frame.headers.cat != NGHTTP2_HCAT_REQUEST:
        self.current = None                         # trailers: checked by libnghttp2, not kept
        return 0
    stream = Stream.__new__(Stream)
    stream.id = frame.hd.stream_id
    stream.headers = []
    stream.started = self.core.frames.now
    stream.query = ""
    self.streams[stream.id] = stream
    self.current = stream
    nghttp2_session_set_stream_user_data(session, stream.id, <void *>stream)
    return 0


cdef int on_header(
    nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name,
    nghttp2_rcbuf *value, uint8_t flags, void *user_data
) except? -902:
    cdef Session self = <Session>(<Core *>user_data).session
    cdef Stream stream = self.current
    cdef nghttp2_vec key = nghttp2_rcbuf_get_buf(name), text = nghttp2_rcbuf_get_buf(value)
    if stream is None:
        return 0
    stream.header_size += <Py_ssize_t>(key.len + text.len + 32)
    if stream.header_size > self.max_header:
        stream.reject = 431
        if stream.header_size > BOMB_FACTOR * self.max_header:       # a bomb, not a mistake
            self.core.frames.budget = -1
            self.end_reason = "header_bomb"
            return NGHTTP2_ERR_CALLBACK_FAILURE
        return 0
    if key.base[0] != c':':
        if equals(key, "content-length", 14) and decimal(text) > self.max_body:
            stream.reject = 413
        elif equals(key, "expect", 6):
            stream.wants_continue = True
        if stream.reject != 429:                # nobody will read them
            stream.headers.append(cached_pair(&self.cache, name, value))
    elif equals(key, ":method", 7):
        stream.method = method_of(text)
    elif equals(key, ":path", 5):
        if text.len > <size_t>self.max_target:
            stream.reject = 414
        else:
            stream.path, stream.query = split_target(text)
            if self.gate.shut and stream.path in self.gate.paths:   # as gate.refuses, at a third of its cost
                self.gate.refused += 1
                stream.reject = 429
    return 0


cdef int on_data_chunk(
    nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t size,
    void *user_data
) except? -902:
    cdef Session self = <Session>(<Core *>user_data).session
    cdef Stream stream = stream_of(session, stream_id)
    if stream is None:
        return 0
    if stream.taken:
        stream.swallowed += size
        if stream.swallowed > self.max_body:
            self._cut(stream)
        return 0
    stream.body_size += size
    self.buffered_body_bytes += size
    if stream.body_size > self.max_body or self.buffered_body_bytes > self.max_buffered:
        self._reject(stream, 413)
    else:
        stream.body = extended(stream.body, data, size)
    frames_credit(&self.core.frames, size, 0)
    return 0


cdef int on_frame_recv(
    nghttp2_session *session, const nghttp2_frame *frame, void *user_data
) except? -902:
    cdef Session self = <Session>(<Core *>user_data).session
    if frame.hd.type == NGHTTP2_PING and frame.hd.flags & NGHTTP2_FLAG_ACK:
        if self.draining == 1:
            self.finish_drain()
    elif frame.hd.type == NGHTTP2_HEADERS or frame.hd.type == NGHTTP2_DATA:
        stream = stream_of(session, frame.hd.stream_id)
        if stream is not None:
            claim(&self.core, frame)
            on_request_part(
                self, <Stream>stream, frame.hd.type == NGHTTP2_HEADERS,
                frame.hd.flags & NGHTTP2_FLAG_END_STREAM)
    return 0


cdef int on_request_part(Session self, Stream stream, bint is_head, bint end) except -1:
    if end:
        stream.ended = True
    if stream.taken:
        if end and stream.reject and not stream.answered:
            self._answer(stream, self.rejections[stream.reject])
        return 0
    if is_head and self.core.pending_bytes > self.max_pending:
        stream.taken = True
        self.stats.rejected += 1
        submit_reset(self.session, stream.id, NGHTTP2_REFUSED_STREAM)
    elif stream.reject:
        self._reject(stream, stream.reject)
    elif stream.path is None:               # CONNECT
        self._reject(stream, 501)
    elif end:
        stream.taken = True
        self.ready.append(stream)
    elif is_head and stream.wants_continue:
        submit_continue(self.session, stream.id)
    return 0


cdef int on_frame_send(
    nghttp2_session *session, const nghttp2_frame *frame, void *user_data
) except? -902:
    cdef Session self = <Session>(<Core *>user_data).session
    cdef Stream stream
    if frame.hd.type == NGHTTP2_RST_STREAM:
        charge_reset(&self.core)
    elif frame.hd.type == NGHTTP2_GOAWAY:
        if frame.goaway.error_code != NGHTTP2_NO_ERROR:
            self.stats.protocol_errors += 1
            self.end_reason = self.end_reason or "protocol_error"
    elif frame.hd.flags & NGHTTP2_FLAG_END_STREAM and (
            frame.hd.type == NGHTTP2_DATA or frame.hd.type == NGHTTP2_HEADERS):
        stream = stream_of(session, frame.hd.stream_id)
        if stream is not None:
            stream.finished = True
            if stream.cut and not stream.ended:
                submit_reset(self.session, stream.id, NGHTTP2_NO_ERROR)
    return 0


cdef int on_stream_close(
    nghttp2_session *session, int32_t stream_id, uint32_t error_code, void *user_data
) except? -902:
    cdef Session self = <Session>(<Core *>user_data).session
    cdef Stream stream = self.streams.pop(stream_id, None)
    if stream is None:
        return 0
    stream.closed = True
    self.buffered_body_bytes -= stream.body_size
    if stream.answer.held:
        self.core.pending_bytes -= stream.answer.view.len - stream.answer.offset
        release(&stream.answer)
    if stream.finished and error_code == NGHTTP2_NO_ERROR and stream.reject in (0, 429):
        frames_credit(&self.core.frames, 0, CREDIT_REQUEST)
    if stream.awaited:
        self.cancelled.append(stream_id)
    return 0


cdef nghttp2_session_callbacks *CALLBACKS = NULL
cdef nghttp2_option *OPTIONS = NULL


cdef int _set_up() except -1:
    new_callbacks(&CALLBACKS, &OPTIONS)
    nghttp2_session_callbacks_set_on_begin_headers_callback(CALLBACKS, on_begin_headers)
    nghttp2_session_callbacks_set_on_header_callback2(CALLBACKS, on_header)
    nghttp2_session_callbacks_set_on_frame_recv_callback(CALLBACKS, on_frame_recv)
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(CALLBACKS, on_invalid_frame)
    nghttp2_session_callbacks_set_on_frame_send_callback(CALLBACKS, on_frame_send)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(CALLBACKS, on_data_chunk)
    nghttp2_session_callbacks_set_on_stream_close_callback(CALLBACKS, on_stream_close)
    return 0


_set_up()
