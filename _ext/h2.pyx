"""An HTTP/2 server session without I/O: libnghttp2 with our limits. Twin: fastserve/http/h2_py.py.

Bytes in (`feed`) -> frames are counted (`_scan`) -> libnghttp2 -> callbacks fill a `Stream` per
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
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.stdint cimport int32_t, uint8_t, uint32_t, uintptr_t
from libc.stdio cimport snprintf
from libc.stdlib cimport malloc
from libc.string cimport memchr, memcmp, memcpy

from nghttp2 cimport *

from fastserve.http.message import Request
from fastserve.http.replies import http_date

cdef enum:
    MAX_NV = 64                   # :status, content-type, content-length, date + 60 of the handler
    CACHE_SLOTS = 64              # a power of two
    CACHED_VALUE_MAX = 256        # bytes; longer header values are not kept
    OUT_CAPACITY = 256 * 1024     # bytes of one data_to_send, at most
    SLICE_FRAMES = 128            # frames fed before the budget is looked at again
    FRAME_HEAD = 9
    PREFACE = 24
    RESET_COST = 2                # a reset throws a request away
    CREDIT_REQUEST = 4            # tokens back per answered request
    CREDIT_SHIFT = 12             # ... and one per 4 KiB of body, either direction
    FLAG_END_HEADERS = 0x4
    FLAG_PADDED = 0x8
    TYPE_CONTINUATION = 0x9

cdef object new_request = Request
cdef object date_now = http_date

# Calls never overlap (one thread, no I/O inside), so all sessions share one output buffer.
cdef char *OUT = <char *>malloc(OUT_CAPACITY)
if OUT is NULL:
    raise MemoryError

# ---- requests -------------------------------------------------------------------------------------


@cython.final
@cython.freelist(256)
cdef class Stream:
    cdef int32_t id
    cdef str method
    cdef str path
    cdef str query
    cdef list headers
    cdef object body            # None | bytes (one chunk) | bytearray (more)
    cdef Py_ssize_t body_size
    cdef Py_ssize_t swallowed   # received after an early answer
    cdef Py_ssize_t header_size
    cdef double started
    cdef int reject             # status of the limit broken in the head, 0: none
    cdef bint wants_continue
    cdef bint ended             # END_STREAM was received
    cdef bint taken             # complete and handed over, or rejected: more body is ignored
    cdef bint awaited           # handed over and not answered yet
    cdef bint answered          # an answer was submitted
    cdef bint finished          # END_STREAM was sent
    cdef bint cut               # to be reset once finished
    cdef bint closed
    cdef Py_buffer view         # of the answer's body
    cdef bint has_view
    cdef Py_ssize_t offset      # into the view: bytes already sent

    def __dealloc__(self):
        if self.has_view:
            PyBuffer_Release(&self.view)


cdef inline void set_nv(
    nghttp2_nv *nv, const char *name, size_t n_name, const char *value, size_t n_value
) noexcept:
    nv.name = <uint8_t *>name
    nv.namelen = n_name
    nv.value = <uint8_t *>value
    nv.valuelen = n_value
    nv.flags = NGHTTP2_NV_FLAG_NONE


cdef inline bint equals(nghttp2_vec text, const char *literal, size_t size) noexcept:
    return text.len == size and memcmp(text.base, literal, size) == 0


cdef Py_ssize_t decimal(nghttp2_vec text) noexcept:
    """Its value; -1 when it is not 1..18 digits (libnghttp2 rejects those that are no number)."""
    cdef Py_ssize_t value = 0
    cdef size_t i
    if text.len == 0 or text.len > 18:
        return -1
    for i in range(text.len):
        if not c'0' <= text.base[i] <= c'9':
            return -1
        value = value * 10 + (text.base[i] - c'0')
    return value


cdef int add_nv(nghttp2_nv *nv, bytes name, bytes value) except -1:
    set_nv(nv, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name),
           PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if not nghttp2_check_header_name(nv.name, nv.namelen):
        raise ValueError(f"response header name {name!r} is not a token")
    if not nghttp2_check_header_value(nv.value, nv.valuelen):
        raise ValueError(f"response header {name!r} holds control characters")
    return 0


# ---- session --------------------------------------------------------------------------------------


@cython.final
cdef class Session:
    """One HTTP/2 connection, server side. See fastserve/http/session.py for the contract."""

    cdef nghttp2_session *session
    cdef object owner
    cdef object on_request
    cdef object stats
    cdef dict rejections
    cdef dict streams
    cdef list ready
    cdef list cancelled
    cdef Stream current                 # whose header block is being decoded
    cdef object error                   # raised inside a callback, re-raised by feed/data_to_send
    cdef readonly bint terminated
    cdef int draining                   # 0 no, 1 first GOAWAY sent, 2 last GOAWAY sent
    cdef double now
    # limits
    cdef Py_ssize_t max_header, max_target, max_body, max_buffered, max_pending
    cdef double header_timeout, body_timeout
    cdef int budget_max
    # accounts
    cdef readonly Py_ssize_t budget
    cdef readonly Py_ssize_t buffered_body_bytes
    cdef readonly Py_ssize_t pending_bytes
    cdef Py_ssize_t credit_bytes
    cdef int invalid_frames             # RST_STREAMs charged before they are sent
    # frame scanner
    cdef int preface_left
    cdef uint8_t head[FRAME_HEAD]
    cdef int head_size
    cdef Py_ssize_t payload_left
    cdef double head_since              # when the unfinished header block began; 0: none
    # output
    cdef size_t out_size
    cdef size_t out_limit
    # (name rcbuf, value rcbuf) -> (bytes, bytes): repeated headers cost no objects
    cdef nghttp2_rcbuf *cache_names[CACHE_SLOTS]
    cdef nghttp2_rcbuf *cache_values[CACHE_SLOTS]
    cdef list cache_pairs

    def __cinit__(self, owner, limits, double now):
        self.owner = owner
        self.on_request = owner.on_request
        self.stats = owner.stats
        self.rejections = owner.rejections
        self.streams = {}
        self.ready = []
        self.cancelled = []
        self.cache_pairs = [None] * CACHE_SLOTS
        self.preface_left = PREFACE
        self.head_since = now
        self.now = now
        self.max_header = limits.max_header_bytes
        self.max_target = limits.max_target_bytes
        self.max_body = limits.max_body_bytes
        self.max_buffered = limits.max_buffered_body_bytes
        self.max_pending = limits.max_pending_response_bytes
        self.header_timeout = limits.header_timeout_s
        self.body_timeout = limits.body_timeout_s
        self.budget = self.budget_max = limits.control_frame_budget
        cdef int rc = nghttp2_session_server_new2(&self.session, CALLBACKS, <void *>self, OPTIONS)
        if rc != 0:
            raise MemoryError(nghttp2_strerror(rc))
        self._announce(limits)

    def __dealloc__(self):
        cdef int i
        if self.session is not NULL:
            nghttp2_session_del(self.session)
        for i in range(CACHE_SLOTS):
            if self.cache_names[i] is not NULL:
                nghttp2_rcbuf_decref(self.cache_names[i])
                nghttp2_rcbuf_decref(self.cache_values[i])

    cdef int _announce(self, limits) except -1:
        cdef nghttp2_settings_entry iv[4]
        iv[0].settings_id = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
        iv[0].value = limits.max_concurrent_streams
        iv[1].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
        iv[1].value = limits.stream_window_bytes
        iv[2].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
        iv[2].value = limits.max_header_bytes
        iv[3].settings_id = NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES
        iv[3].value = 1
        nghttp2_submit_settings(self.session, NGHTTP2_FLAG_NONE, iv, 4)
        nghttp2_session_set_local_window_size(
            self.session, NGHTTP2_FLAG_NONE, 0, limits.connection_window_bytes)
        return 0

    # ---- input ----

    def feed(self, data, double now):
        """Take received bytes; complete requests go to the owner before it returns."""
        cdef Py_buffer view
        cdef Py_ssize_t at = 0, n
        cdef ssize_t rc
        self.now = now
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            while at < view.len and not self.terminated:
                n = self._scan(<const uint8_t *>view.buf + at, view.len - at)
                rc = nghttp2_session_mem_recv(self.session, <const uint8_t *>view.buf + at, n)
                at += n
                self._raise_parked()
                if rc < 0:
                    self.terminate(NGHTTP2_PROTOCOL_ERROR)
                self._dispatch()
                if self.budget < 0:
                    self.terminate(NGHTTP2_ENHANCE_YOUR_CALM)
        finally:
            PyBuffer_Release(&view)
            self._tell_cancelled()

    cdef Py_ssize_t _scan(self, const uint8_t *data, Py_ssize_t size) noexcept:
        """Count frames; returns the bytes to feed: to the end of a slice, or to budget's end."""
        cdef Py_ssize_t i = 0, n
        cdef int frames = 0
        if self.preface_left:
            i = min(<Py_ssize_t>self.preface_left, size)
            self.preface_left -= <int>i
            if self.preface_left == 0:
                self.head_since = 0
        while i < size:
            if self.payload_left:
                n = min(self.payload_left, size - i)
                i += n
                self.payload_left -= n
            else:
                if self.head_size == 0 and frames == SLICE_FRAMES:
                    return i
                n = min(<Py_ssize_t>(FRAME_HEAD - self.head_size), size - i)
                memcpy(self.head + self.head_size, data + i, n)
                i += n
                self.head_size += <int>n
                if self.head_size < FRAME_HEAD:
                    return i
                self.head_size = 0
                frames += 1
                self._charge_frame()
                if self.budget < 0:
                    return i
            if self.payload_left == 0 and self.head_since and self.head[4] & FLAG_END_HEADERS:
                self.head_since = 0
        return i

    cdef void _charge_frame(self) noexcept:
        cdef Py_ssize_t length = (self.head[0] << 16) | (self.head[1] << 8) | self.head[2]
        cdef uint8_t kind = self.head[3], flags = self.head[4]
        self.payload_left = length
        if kind == NGHTTP2_HEADERS:
            self.head_since = self.now
            return
        if kind == NGHTTP2_DATA:
            if flags & NGHTTP2_FLAG_END_STREAM or (length and not flags & FLAG_PADDED):
                return
        elif kind != TYPE_CONTINUATION:
            self.head_since = 0
        self.budget -= RESET_COST if kind == NGHTTP2_RST_STREAM else 1

    cdef void _credit(self, Py_ssize_t n_bytes, int tokens) noexcept:
        self.credit_bytes += n_bytes
        self.budget += tokens + (self.credit_bytes >> CREDIT_SHIFT)
        self.credit_bytes &= (1 << CREDIT_SHIFT) - 1
        if self.budget > self.budget_max:
            self.budget = self.budget_max

    cdef int _raise_parked(self) except -1:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return 0

    cdef int _dispatch(self) except -1:
        cdef Stream stream
        cdef Py_ssize_t i = 0
        if not self.ready:
            return 0
        while i < len(self.ready):
            stream = <Stream>self.ready[i]
            i += 1
            if stream.closed:
                continue
            body = stream.body
            if body is None:
                body = b""
            elif type(body) is not bytes:
                body = bytes(body)
            stream.body = None
            stream.awaited = True
            response = self.on_request(
                stream.id,
                new_request(stream.method, stream.path, stream.query, stream.headers, body))
            if response is not None:
                self._answer_safely(stream, response)
        self.ready.clear()
        return 0

    cdef int _tell_cancelled(self) except -1:
        while self.cancelled:
            self.owner.on_cancel(self.cancelled.pop())
        return 0

    # ---- answers ----

    def submit(self, int32_t stream_id, response):
        """Answer a request whose `on_request` returned None; nothing happens if it is gone."""
        stream = self.streams.get(stream_id)
        if stream is not None and not self.terminated:
            self._answer_safely(<Stream>stream, response)

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
        cdef nghttp2_data_provider provider
        cdef nghttp2_extpri fair
        cdef char status[4]
        cdef char length[24]
        cdef int n = 1, code = response.status, n_length
        cdef bint bodiless = code == 204 or code == 304 or stream.method == "HEAD"
        cdef bytes content_type = response.content_type, date = date_now()
        if not 200 <= code <= 599:
            raise ValueError(f"response status {code} is not within 200..599")
        if len(response.headers) > MAX_NV - 4:
            raise ValueError(f"more than {MAX_NV - 4} response headers")
        snprintf(status, 4, "%d", code)
        set_nv(&nva[0], ":status", 7, status, 3)
        if content_type:
            n += 1
            add_nv(&nva[1], b"content-type", content_type)
        for pair in response.headers:
            name, value = pair
            add_nv(&nva[n], name, value)
            n += 1
        set_nv(&nva[n], "date", 4, PyBytes_AS_STRING(date), PyBytes_GET_SIZE(date))
        n += 1
        PyObject_GetBuffer(response.body, &stream.view, PyBUF_SIMPLE)
        stream.has_view = True
        if code != 204:
            n_length = snprintf(length, 24, "%zd", stream.view.len)
            set_nv(&nva[n], "content-length", 14, length, n_length)
            n += 1
        stream.answered = True
        if bodiless or stream.view.len == 0:
            self._release(stream)
            nghttp2_submit_response(self.session, stream.id, nva, n, NULL)
            return 0
        provider.source.ptr = <void *>stream
        provider.read_callback = on_read
        self.pending_bytes += stream.view.len
        nghttp2_submit_response(self.session, stream.id, nva, n, &provider)
        if stream.view.len > 16384:         # several frames: take turns with the other streams
            fair.urgency = NGHTTP2_EXTPRI_DEFAULT_URGENCY
            fair.inc = 1
            nghttp2_session_change_extpri_stream_priority(self.session, stream.id, &fair, 1)
        return 0

    cdef void _release(self, Stream stream) noexcept:
        if stream.has_view:
            stream.has_view = False
            PyBuffer_Release(&stream.view)

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
        if stream.ended or stream.wants_continue:
            self._answer(stream, self.rejections[status])
        return 0

    cdef int _cut(self, Stream stream) except -1:
        """Enough swallowed, or for long enough: answer now and reset after it (RFC 9113 8.1)."""
        if stream.cut:
            return 0
        stream.cut = True
        if stream.finished:
            nghttp2_submit_rst_stream(
                self.session, NGHTTP2_FLAG_NONE, stream.id, NGHTTP2_NO_ERROR)
        elif stream.reject and not stream.answered:
            self._answer(stream, self.rejections[stream.reject])
        return 0

    def data_to_send(self, size_t max_bytes):
        """The next output, about `max_bytes` (at most a frame more); b"" when there is none."""
        self.out_size = 0
        self.out_limit = min(max_bytes, <size_t>(OUT_CAPACITY - 32768))
        cdef int rc = nghttp2_session_send(self.session)
        self._raise_parked()
        if self.cancelled:
            self._tell_cancelled()
        if rc < 0:
            self.terminated = True
        return PyBytes_FromStringAndSize(OUT, self.out_size)

    # ---- life cycle ----

    @property
    def in_flight(self):
        """Requests begun and not fully answered."""
        return len(self.streams)

    @property
    def closed(self):
        """Nothing is left to read or write: close the transport."""
        return not (nghttp2_session_want_read(self.session)
                    or nghttp2_session_want_write(self.session))

    def expire(self, double now):
        """Answer 408 where a body is overdue; end the connection when a head is."""
        cdef Stream stream
        if self.head_since and now - self.head_since > self.header_timeout:
            self.stats.rejected += 1
            self.terminate(NGHTTP2_ENHANCE_YOUR_CALM)
            return
        for item in list(self.streams.values()):
            stream = <Stream>item
            if not stream.ended and now - stream.started > self.body_timeout:
                if not stream.taken:
                    self._reject(stream, 408)
                self._cut(stream)

    def grant(self, int tokens):
        """Give back tokens of the control frame budget for time passed."""
        self._credit(0, tokens)

    def start_drain(self):
        """First GOAWAY (any stream id) and a PING; its answer brings the last GOAWAY."""
        if self.draining == 0 and not self.terminated:
            self.draining = 1
            nghttp2_submit_shutdown_notice(self.session)
            nghttp2_submit_ping(self.session, NGHTTP2_FLAG_NONE, NULL)

    def finish_drain(self):
        """Last GOAWAY: streams above the last one seen are refused, the others finish."""
        if self.draining < 2 and not self.terminated:
            self.draining = 2
            nghttp2_submit_goaway(
                self.session, NGHTTP2_FLAG_NONE,
                nghttp2_session_get_last_proc_stream_id(self.session), NGHTTP2_NO_ERROR, NULL, 0)

    def terminate(self, uint32_t error_code):
        """GOAWAY with `error_code`, then nothing more is read or written."""
        if not self.terminated:
            self.terminated = True
            nghttp2_session_terminate_session(self.session, error_code)

    def close(self):
        """The connection is gone: forget requests and answers, break the cycle with the owner."""
        self.terminated = True
        self.owner = self.on_request = None
        self.ready.clear()
        self.cancelled.clear()


# ---- libnghttp2 callbacks: `user_data` is the Session; Python errors are parked in it --------------


cdef inline int park(Session self, object error) noexcept:
    self.error = error
    return NGHTTP2_ERR_CALLBACK_FAILURE


cdef int on_begin_headers(
    nghttp2_session *session, const nghttp2_frame *frame, void *user_data
) noexcept:
    cdef Session self = <Session>user_data
    cdef Stream stream
    if frame.headers.cat != NGHTTP2_HCAT_REQUEST:
        self.current = None                         # trailers: checked by libnghttp2, not kept
        return 0
    try:
        stream = Stream.__new__(Stream)
        stream.id = frame.hd.stream_id
        stream.headers = []
        stream.started = self.now
        stream.query = ""
        self.streams[stream.id] = stream
        self.current = stream
        nghttp2_session_set_stream_user_data(session, stream.id, <void *>stream)
    except BaseException as error:
        return park(self, error)
    return 0


cdef int on_header(
    nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name,
    nghttp2_rcbuf *value, uint8_t flags, void *user_data
) noexcept:
    cdef Session self = <Session>user_data
    cdef Stream stream = self.current
    cdef nghttp2_vec key = nghttp2_rcbuf_get_buf(name), text = nghttp2_rcbuf_get_buf(value)
    if stream is None:
        return 0
    stream.header_size += <Py_ssize_t>(key.len + text.len + 32)
    if stream.header_size > self.max_header:
        stream.reject = 431
        if stream.header_size > 16 * self.max_header:       # a bomb, not a mistake
            self.budget = -1
            return NGHTTP2_ERR_CALLBACK_FAILURE
        return 0
    try:
        if key.base[0] == c':':
            on_pseudo_header(self, stream, key, text)
            return 0
        if equals(key, "content-length", 14) and decimal(text) > self.max_body:
            stream.reject = 413
        elif equals(key, "expect", 6):
            stream.wants_continue = True
        stream.headers.append(pair_of(self, name, value, key, text))
    except BaseException as error:
        return park(self, error)
    return 0


cdef int on_pseudo_header(
    Session self, Stream stream, nghttp2_vec key, nghttp2_vec text
) except -1:
    cdef const char *mark
    cdef const char *start = <const char *>text.base
    cdef Py_ssize_t size = <Py_ssize_t>text.len
    if equals(key, ":path", 5):
        if size > self.max_target:
            stream.reject = 414
            return 0
        mark = <const char *>memchr(start, c'?', size)
        if mark is not NULL:
            stream.query = PyUnicode_DecodeLatin1(mark + 1, start + size - mark - 1, NULL)
            size = mark - start
        stream.path = PyUnicode_DecodeLatin1(start, size, NULL)
    elif equals(key, ":method", 7):
        if equals(text, "POST", 4):
            stream.method = "POST"
        elif equals(text, "GET", 3):
            stream.method = "GET"
        else:
            stream.method = PyUnicode_DecodeLatin1(start, size, NULL)
    return 0


cdef tuple pair_of(
    Session self, nghttp2_rcbuf *name, nghttp2_rcbuf *value, nghttp2_vec key, nghttp2_vec text
):
    """The (name, value) tuple; the same one while HPACK's table yields the same two buffers."""
    cdef uintptr_t mixed = (<uintptr_t>name >> 4) ^ ((<uintptr_t>value >> 4) * 31)
    cdef size_t slot = (mixed ^ (mixed >> 8)) & (CACHE_SLOTS - 1)
    if self.cache_names[slot] == name and self.cache_values[slot] == value:
        return <tuple>self.cache_pairs[slot]
    cdef tuple pair = (
        PyBytes_FromStringAndSize(<char *>key.base, key.len),
        PyBytes_FromStringAndSize(<char *>text.base, text.len),
    )
    if key.len + text.len <= CACHED_VALUE_MAX:
        nghttp2_rcbuf_incref(name)
        nghttp2_rcbuf_incref(value)
        if self.cache_names[slot] is not NULL:
            nghttp2_rcbuf_decref(self.cache_names[slot])
            nghttp2_rcbuf_decref(self.cache_values[slot])
        self.cache_names[slot] = name
        self.cache_values[slot] = value
        self.cache_pairs[slot] = pair
    return pair


cdef int on_data_chunk(
    nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t size,
    void *user_data
) noexcept:
    cdef Session self = <Session>user_data
    cdef void *found = nghttp2_session_get_stream_user_data(session, stream_id)
    cdef Stream stream
    if found is NULL:
        return 0
    stream = <Stream>found
    try:
        if stream.taken:
            stream.swallowed += size
            if stream.swallowed > self.max_body:
                self._cut(stream)
            return 0
        stream.body_size += size
        self.buffered_body_bytes += size
        if stream.body_size > self.max_body or self.buffered_body_bytes > self.max_buffered:
            self._reject(stream, 413)
        elif stream.body is None:
            stream.body = PyBytes_FromStringAndSize(<const char *>data, size)
        else:
            if type(stream.body) is bytes:
                stream.body = bytearray(stream.body)
            (<bytearray>stream.body).extend(PyBytes_FromStringAndSize(<const char *>data, size))
        self._credit(size, 0)
    except BaseException as error:
        return park(self, error)
    return 0


cdef int on_frame_recv(
    nghttp2_session *session, const nghttp2_frame *frame, void *user_data
) noexcept:
    cdef Session self = <Session>user_data
    cdef void *found
    if frame.hd.type == NGHTTP2_PING and frame.hd.flags & NGHTTP2_FLAG_ACK:
        if self.draining == 1:
            self.finish_drain()
        return 0
    if frame.hd.type != NGHTTP2_HEADERS and frame.hd.type != NGHTTP2_DATA:
        return 0
    found = nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
    if found is NULL:
        return 0
    try:
        on_request_part(
            self, <Stream>found, frame.hd.type == NGHTTP2_HEADERS,
            frame.hd.flags & NGHTTP2_FLAG_END_STREAM)
    except BaseException as error:
        return park(self, error)
    return 0


cdef int on_request_part(Session self, Stream stream, bint is_head, bint end) except -1:
    cdef nghttp2_nv status
    if end:
        stream.ended = True
    if stream.taken:
        if end and stream.reject and not stream.answered:
            self._answer(stream, self.rejections[stream.reject])
        return 0
    if is_head and self.pending_bytes > self.max_pending:
        stream.taken = True
        self.stats.rejected += 1
        nghttp2_submit_rst_stream(
            self.session, NGHTTP2_FLAG_NONE, stream.id, NGHTTP2_REFUSED_STREAM)
    elif stream.reject:
        self._reject(stream, stream.reject)
    elif stream.path is None:               # CONNECT
        self._reject(stream, 501)
    elif end:
        stream.taken = True
        self.ready.append(stream)
    elif is_head and stream.wants_continue:
        set_nv(&status, ":status", 7, "100", 3)
        nghttp2_submit_headers(
            self.session, NGHTTP2_FLAG_NONE, stream.id, NULL, &status, 1, NULL)
    return 0


cdef int on_invalid_frame(
    nghttp2_session *session, const nghttp2_frame *frame, int code, void *user_data
) noexcept:
    # Most lead to an RST_STREAM of ours, which is only sent later: charge now, not twice.
    cdef Session self = <Session>user_data
    self.budget -= 1
    self.invalid_frames += 1
    return 0


cdef int on_frame_send(
    nghttp2_session *session, const nghttp2_frame *frame, void *user_data
) noexcept:
    cdef Session self = <Session>user_data
    cdef Stream stream
    cdef void *found
    if frame.hd.type == NGHTTP2_RST_STREAM:
        if self.invalid_frames:
            self.invalid_frames -= 1
        else:
            self.budget -= 1
    elif frame.hd.type == NGHTTP2_GOAWAY:
        if frame.goaway.error_code != NGHTTP2_NO_ERROR:
            try:
                self.stats.protocol_errors += 1
            except BaseException as error:
                return park(self, error)
    elif frame.hd.flags & NGHTTP2_FLAG_END_STREAM and (
            frame.hd.type == NGHTTP2_DATA or frame.hd.type == NGHTTP2_HEADERS):
        found = nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
        if found is not NULL:
            stream = <Stream>found
            stream.finished = True
            if stream.cut and not stream.ended:
                nghttp2_submit_rst_stream(
                    session, NGHTTP2_FLAG_NONE, stream.id, NGHTTP2_NO_ERROR)
    return 0


cdef int on_stream_close(
    nghttp2_session *session, int32_t stream_id, uint32_t error_code, void *user_data
) noexcept:
    cdef Session self = <Session>user_data
    cdef Stream stream
    try:
        stream = <Stream?>self.streams.pop(stream_id, None)
    except TypeError:
        return 0
    stream.closed = True
    self.buffered_body_bytes -= stream.body_size
    if stream.has_view:
        self.pending_bytes -= stream.view.len - stream.offset
        self._release(stream)
    if stream.finished and error_code == NGHTTP2_NO_ERROR:
        self._credit(0, CREDIT_REQUEST)
    if stream.awaited:
        self.cancelled.append(stream_id)
    return 0


cdef ssize_t on_read(
    nghttp2_session *session, int32_t stream_id, uint8_t *buf, size_t length,
    uint32_t *data_flags, nghttp2_data_source *source, void *user_data
) noexcept:
    # Only says how much; on_send_data copies from the answer straight to the output.
    cdef Stream stream = <Stream>source.ptr
    cdef size_t left = <size_t>(stream.view.len - stream.offset)
    data_flags[0] = NGHTTP2_DATA_FLAG_NO_COPY
    if left <= length:
        data_flags[0] |= NGHTTP2_DATA_FLAG_EOF
        return <ssize_t>left
    return <ssize_t>length


cdef int on_send_data(
    nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t length,
    nghttp2_data_source *source, void *user_data
) noexcept:
    cdef Session self = <Session>user_data
    cdef Stream stream = <Stream>source.ptr
    if self.out_size >= self.out_limit or self.out_size + FRAME_HEAD + length > OUT_CAPACITY:
        return NGHTTP2_ERR_WOULDBLOCK
    memcpy(OUT + self.out_size, head, FRAME_HEAD)
    memcpy(OUT + self.out_size + FRAME_HEAD, <char *>stream.view.buf + stream.offset, length)
    self.out_size += FRAME_HEAD + length
    stream.offset += <Py_ssize_t>length
    self.pending_bytes -= <Py_ssize_t>length
    self._credit(<Py_ssize_t>length, 0)
    return 0


cdef ssize_t on_send(
    nghttp2_session *session, const uint8_t *data, size_t length, int flags, void *user_data
) noexcept:
    cdef Session self = <Session>user_data
    if self.out_size >= self.out_limit or self.out_size + length > OUT_CAPACITY:
        return NGHTTP2_ERR_WOULDBLOCK
    memcpy(OUT + self.out_size, data, length)
    self.out_size += length
    return <ssize_t>length


cdef nghttp2_session_callbacks *CALLBACKS = NULL
cdef nghttp2_option *OPTIONS = NULL


cdef int _set_up() except -1:
    if nghttp2_session_callbacks_new(&CALLBACKS) != 0 or nghttp2_option_new(&OPTIONS) != 0:
        raise MemoryError
    nghttp2_option_set_no_closed_streams(OPTIONS, 1)
    nghttp2_session_callbacks_set_send_callback(CALLBACKS, on_send)
    nghttp2_session_callbacks_set_send_data_callback(CALLBACKS, on_send_data)
    nghttp2_session_callbacks_set_on_begin_headers_callback(CALLBACKS, on_begin_headers)
    nghttp2_session_callbacks_set_on_header_callback2(CALLBACKS, on_header)
    nghttp2_session_callbacks_set_on_frame_recv_callback(CALLBACKS, on_frame_recv)
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(CALLBACKS, on_invalid_frame)
    nghttp2_session_callbacks_set_on_frame_send_callback(CALLBACKS, on_frame_send)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(CALLBACKS, on_data_chunk)
    nghttp2_session_callbacks_set_on_stream_close_callback(CALLBACKS, on_stream_close)
    return 0


_set_up()
