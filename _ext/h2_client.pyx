"""An HTTP/2 client session without I/O: libnghttp2. Twin: fastserve/client/h2_py.py.

Requests (`request`) -> libnghttp2, body read from the caller's own buffer -> `data_to_send`
Bytes in (`feed`) -> libnghttp2 -> callbacks fill an `Exchange` per request -> `told` -> the owner.

    streams    {stream id: Exchange}, from `request` to the close of the stream, for libnghttp2 reads
               the body from it
    live       how many of them wait for an answer
    told       [(stream id, status, headers, body) | (stream id, error code, processed)], handed to the
               owner once libnghttp2 is off the stack, so that it may call back
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t, uint32_t

from h2_frames cimport frames_init
from h2_headers cimport MAX_NV, PairCache, cached_pair, clear_cache, decimal, equals, set_checked, set_nv
from h2_output cimport (
    Body, Core, extended, fill_output, hold, new_callbacks, new_output, on_read, release
)
from nghttp2 cimport *

cdef enum:
    TOO_LARGE = -1
    STREAM_WINDOW = 4 * 1024 * 1024         # fastserve/client/session.py has the same
    CONNECTION_WINDOW = 32 * 1024 * 1024
    MAX_HEADER_BYTES = 64 * 1024

cdef char *OUT = new_output()


@cython.final
@cython.freelist(256)
cdef class Exchange:
    """A request and what came of its answer."""
    cdef int status
    cdef list headers
    cdef object body            # b"" | bytes (one chunk) | bytearray (more)
    cdef Py_ssize_t size
    cdef Py_ssize_t header_size
    cdef bint in_trailers
    cdef bint done              # told, or cancelled
    cdef Body request

    def __dealloc__(self):
        release(&self.request)


@cython.final
cdef class Session:
    """One HTTP/2 connection, client side."""

    cdef nghttp2_session *session
    cdef Core core
    cdef PairCache cache
    cdef object owner
    cdef dict streams
    cdef list told
    cdef Py_ssize_t live
    cdef readonly bint draining
    cdef bint failed            # libnghttp2 gave up
    cdef Py_ssize_t max_answer

    def __cinit__(self, owner, Py_ssize_t max_answer_bytes):
        cdef nghttp2_settings_entry iv[3]
        self.owner = owner
        self.streams, self.told = {}, []
        self.max_answer = max_answer_bytes
        self.core.session = <void *>self
        self.core.out = OUT
        frames_init(&self.core.frames, 1, 0)        # not scanned: it is our own server we talk to
        cdef int rc = nghttp2_session_client_new2(
            &self.session, CALLBACKS, <void *>&self.core, OPTIONS)
        if rc != 0:
            raise MemoryError(nghttp2_strerror(rc))
        iv[0].settings_id = NGHTTP2_SETTINGS_ENABLE_PUSH
        iv[0].value = 0
        iv[1].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
        iv[1].value = STREAM_WINDOW
        iv[2].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
        iv[2].value = MAX_HEADER_BYTES
        nghttp2_submit_settings(self.session, NGHTTP2_FLAG_NONE, iv, 3)
        nghttp2_session_set_local_window_size(self.session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW)

    def __dealloc__(self):
        if self.session is not NULL:
            nghttp2_session_del(self.session)
        clear_cache(&self.cache)

    # ---- requests ----

    def request(self, headers, bytes body):
        """Begin a request; its stream id."""
        cdef nghttp2_nv nva[MAX_NV]
        cdef nghttp2_data_provider provider
        cdef Exchange exchange = Exchange.__new__(Exchange)
        cdef size_t n = 0
        cdef int32_t stream_id
        if len(headers) > MAX_NV:
            raise ValueError(f"more than {MAX_NV} request headers")
        for name, value in headers:
            if name.startswith(b":"):
                set_nv(&nva[n], PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name),
                       PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
            else:
                set_checked(&nva[n], name, value)
            n += 1
        exchange.headers, exchange.body = [], b""
        if body:
            hold(&exchange.request, body)
            provider.source.ptr = <void *>&exchange.request
            provider.read_callback = on_read
            self.core.pending_bytes += exchange.request.view.len
        stream_id = nghttp2_submit_request(
            self.session, NULL, nva, n, &provider if body else NULL, NULL)
        if stream_id < 0:
            raise RuntimeError("the connection takes no more requests")
        self.streams[stream_id] = exchange
        self.live += 1
        return stream_id

    def cancel(self, int32_t stream_id):
        """RST_STREAM(CANCEL), and neither callback."""
        cdef Exchange exchange = self._waiting(stream_id)
        if exchange is not None:
            self._finish(exchange)
            self._reset(stream_id)

    cdef Exchange _waiting(self, int32_t stream_id):
        """The exchange that still waits for its answer, or None."""
        cdef Exchange exchange = self.streams.get(stream_id)
        return None if exchange is None or exchange.done else exchange

    cdef int _finish(self, Exchange exchange) except -1:
        exchange.done = True
        self.live -= 1
        return 0

    cdef int _reset(self, int32_t stream_id) except -1:
        nghttp2_submit_rst_stream(self.session, NGHTTP2_FLAG_NONE, stream_id, NGHTTP2_CANCEL)
        return 0

    def ping(self):
        """Ask for a sign of life."""
        nghttp2_submit_ping(self.session, NGHTTP2_FLAG_NONE, NULL)

    # ---- bytes ----

    def feed(self, data):
        """Take received bytes."""
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if self.owner is not None and not self.failed and nghttp2_session_mem_recv(
                    self.session, <const uint8_t *>view.buf, view.len) < 0:
                self.failed = True
        finally:
            PyBuffer_Release(&view)
        self._tell()

    def data_to_send(self, size_t max_bytes):
        """The next output, about `max_bytes` (at most a frame more)."""
        self.core.out_size = 0
        if self.owner is not None and fill_output(&self.core, self.session, max_bytes) < 0:
            self.failed = True
        cdef bytes out = PyBytes_FromStringAndSize(OUT, self.core.out_size)
        self._tell()
        return out

    cdef int _tell(self) except -1:
        while self.told and self.owner is not None:
            told, self.told = self.told, []
            for item in told:
                if len(item) == 4:
                    self.owner.on_answer(*item)
                else:
                    self.owner.on_failed(*item)
        return 0

    # ---- life cycle ----

    @property
    def in_flight(self):
        return self.live

    @property
    def broken(self):
        # After an error of the server's libnghttp2 says GOAWAY itself, and wants no more then.
        return self.failed or not (
            self.draining
            or nghttp2_session_want_read(self.session) or nghttp2_session_want_write(self.session))

    @property
    def max_streams(self):
        cdef uint32_t found = nghttp2_session_get_remote_settings(
            self.session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)
        return min(found, <uint32_t>100) if found == 0xffffffff else found

    def close(self):
        """The transport is gone."""
        self.owner = None
        self.failed = True
        self.live = 0
        self.told.clear()


# ---- libnghttp2 callbacks: `user_data` is the Core, -902 an exception (nghttp2.pxd) --------------


cdef inline Session session_of(void *user_data):
    return <Session>(<Core *>user_data).session


cdef int on_begin_headers(
    nghttp2_session *session, const nghttp2_frame *frame, void *user_data
) except? -902:
    cdef Exchange exchange = session_of(user_data)._waiting(frame.hd.stream_id)
    if exchange is not None:
        exchange.in_trailers = exchange.status >= 200
        if not exchange.in_trailers:            # the head, or the one after a 1xx
            exchange.headers.clear()
    return 0


cdef int on_header(
    nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name,
    nghttp2_rcbuf *value, uint8_t flags, void *user_data
) except? -902:
    cdef Session self = session_of(user_data)
    cdef Exchange exchange = self._waiting(frame.hd.stream_id)
    cdef nghttp2_vec key = nghttp2_rcbuf_get_buf(name), text = nghttp2_rcbuf_get_buf(value)
    if exchange is None or exchange.in_trailers:
        return 0
    exchange.header_size += <Py_ssize_t>(key.len + text.len + 32)
    if exchange.header_size > MAX_HEADER_BYTES:
        return give_up(self, frame.hd.stream_id)
    if equals(key, ":status", 7):
        exchange.status = <int>decimal(text)
    else:
        exchange.headers.append(cached_pair(&self.cache, name, value))
    return 0


cdef int on_data_chunk(
    nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t size,
    void *user_data
) except? -902:
    cdef Session self = session_of(user_data)
    cdef Exchange exchange = self._waiting(stream_id)
    if exchange is None:
        return 0
    exchange.size += <Py_ssize_t>size
    if exchange.size > self.max_answer:
        return give_up(self, stream_id)
    exchange.body = extended(None if exchange.size == <Py_ssize_t>size else exchange.body, data, size)
    return 0


cdef int give_up(Session self, int32_t stream_id) except? -902:
    """The answer is longer than is wanted."""
    self.cancel(stream_id)
    self.told.append((stream_id, TOO_LARGE, True))
    return 0


cdef int on_frame_recv(
    nghttp2_session *session, const nghttp2_frame *frame, void *user_data
) except? -902:
    cdef Session self = session_of(user_data)
    cdef Exchange exchange
    cdef int32_t stream_id = frame.hd.stream_id
    if frame.hd.type == NGHTTP2_GOAWAY:
        self.draining = True
    elif frame.hd.flags & NGHTTP2_FLAG_END_STREAM and (
            frame.hd.type == NGHTTP2_HEADERS or frame.hd.type == NGHTTP2_DATA):
        exchange = self._waiting(stream_id)
        if exchange is None:
            return 0
        self._finish(exchange)
        self.told.append((stream_id, exchange.status, exchange.headers, exchange.body))
        if exchange.request.held and exchange.request.offset < exchange.request.view.len:
            self._reset(stream_id)              # answered before it had read all (RFC 9113 8.1)
    return 0


cdef int on_stream_close(
    nghttp2_session *session, int32_t stream_id, uint32_t error_code, void *user_data
) except? -902:
    cdef Session self = session_of(user_data)
    cdef Exchange exchange = self.streams.pop(stream_id, None)
    if exchange is not None and not exchange.done:
        self._finish(exchange)
        self.told.append((stream_id, error_code, error_code != NGHTTP2_REFUSED_STREAM))
    return 0


cdef nghttp2_session_callbacks *CALLBACKS = NULL
cdef nghttp2_option *OPTIONS = NULL


cdef int _set_up() except -1:
    new_callbacks(&CALLBACKS, &OPTIONS)
    nghttp2_session_callbacks_set_on_begin_headers_callback(CALLBACKS, on_begin_headers)
    nghttp2_session_callbacks_set_on_header_callback2(CALLBACKS, on_header)
    nghttp2_session_callbacks_set_on_frame_recv_callback(CALLBACKS, on_frame_recv)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(CALLBACKS, on_data_chunk)
    nghttp2_session_callbacks_set_on_stream_close_callback(CALLBACKS, on_stream_close)
    return 0


_set_up()
