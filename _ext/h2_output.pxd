# What HTTP/2 sessions share, the server's (h2.pyx) and the client's (h2_client.pyx); header-only.
#
# libnghttp2 asks on_read how much of an answer goes into the next DATA frame and hands the frame
# head to on_send_data, which copies head and body straight to the output: one copy in all.
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy

from h2_frames cimport COST_SHIFT, FRAME_HEAD, RESET_COST, SMALL_DATA, Frames, frames_credit
from h2_headers cimport set_nv
from nghttp2 cimport *

cdef enum:
    OUT_CAPACITY = 256 * 1024       # bytes of one data_to_send, at most
    MAX_FRAME = 16384               # bytes of DATA in a frame: libnghttp2 sends no larger ones
    OUT_SPARE = 32 * 1024           # room for the frame that passes the limit

# The answer's body: borrowed until the stream closes.
ctypedef struct Body:
    Py_buffer view
    bint held
    Py_ssize_t offset               # bytes already sent

# What every callback gets as user_data.
ctypedef struct Core:
    void *session                   # the Session (borrowed: it owns the Core)
    Frames frames
    char *out                       # shared by all sessions: calls never overlap
    size_t out_size, out_limit
    Py_ssize_t pending_bytes        # of answers, not yet output
    int invalid_frames              # RST_STREAMs charged before they are sent


cdef inline int hold(Body *self, object buffer) except -1:
    PyObject_GetBuffer(buffer, &self.view, PyBUF_SIMPLE)
    self.held = True
    return 0


cdef inline void release(Body *self) noexcept:
    if self.held:
        self.held = False
        PyBuffer_Release(&self.view)


cdef inline char *new_output() except NULL:
    cdef char *out = <char *>malloc(OUT_CAPACITY)
    if out is NULL:
        raise MemoryError
    return out


cdef inline ssize_t on_read(
    nghttp2_session *session, int32_t stream_id, uint8_t *buf, size_t length,
    uint32_t *data_flags, nghttp2_data_source *source, void *user_data
) noexcept:
    cdef Body *body = <Body *>source.ptr
    cdef size_t left = <size_t>(body.view.len - body.offset)
    data_flags[0] = NGHTTP2_DATA_FLAG_NO_COPY
    if left <= length:
        data_flags[0] |= NGHTTP2_DATA_FLAG_EOF
        return <ssize_t>left
    return <ssize_t>length


cdef inline int on_send_data(
    nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t length,
    nghttp2_data_source *source, void *user_data
) noexcept:
    cdef Core *core = <Core *>user_data
    cdef Body *body = <Body *>source.ptr
    if core.out_size >= core.out_limit or core.out_size + FRAME_HEAD + length > OUT_CAPACITY:
        return NGHTTP2_ERR_WOULDBLOCK
    memcpy(core.out + core.out_size, head, FRAME_HEAD)
    memcpy(core.out + core.out_size + FRAME_HEAD, <char *>body.view.buf + body.offset, length)
    core.out_size += FRAME_HEAD + length
    body.offset += <Py_ssize_t>length
    core.pending_bytes -= <Py_ssize_t>length
    frames_credit(&core.frames, <Py_ssize_t>length, 0)
    return 0


cdef inline ssize_t on_send(
    nghttp2_session *session, const uint8_t *data, size_t length, int flags, void *user_data
) noexcept:
    cdef Core *core = <Core *>user_data
    if core.out_size >= core.out_limit or core.out_size + length > OUT_CAPACITY:
        return NGHTTP2_ERR_WOULDBLOCK
    memcpy(core.out + core.out_size, data, length)
    core.out_size += length
    return <ssize_t>length


cdef inline int fill_output(Core *core, nghttp2_session *session, size_t max_bytes) except? -902:
    """Have libnghttp2 write about `max_bytes` to `core.out`; below zero when it gave up."""
    core.out_size = 0
    core.out_limit = min(max_bytes, <size_t>(OUT_CAPACITY - OUT_SPARE))
    return nghttp2_session_send(session)


cdef inline object extended(object body, const uint8_t *data, size_t size):
    """`body` (None | bytes, one chunk | bytearray, more) and the next chunk of it."""
    cdef bytes chunk = PyBytes_FromStringAndSize(<const char *>data, size)
    if body is None:
        return chunk
    if type(body) is bytes:
        body = bytearray(body)
    (<bytearray>body).extend(chunk)
    return body


cdef inline int new_callbacks(nghttp2_session_callbacks **callbacks, nghttp2_option **options) except -1:
    """Options, and the callbacks that write."""
    if nghttp2_session_callbacks_new(callbacks) != 0 or nghttp2_option_new(options) != 0:
        raise MemoryError
    nghttp2_option_set_no_closed_streams(options[0], 1)
    nghttp2_session_callbacks_set_send_callback(callbacks[0], on_send)
    nghttp2_session_callbacks_set_send_data_callback(callbacks[0], on_send_data)
    return 0


cdef inline int on_invalid_frame(
    nghttp2_session *session, const nghttp2_frame *frame, int code, void *user_data
) except? -902:
    # Most lead to an RST_STREAM of ours, which is only sent later: charge now, not twice.
    cdef Core *core = <Core *>user_data
    core.frames.budget -= RESET_COST
    core.invalid_frames += 1
    if frame.hd.type == NGHTTP2_HEADERS:
        core.frames.unclaimed -= 1
        core.frames.budget -= frame.hd.length >> COST_SHIFT
    return 0


cdef inline void charge_reset(Core *core) noexcept:
    """An RST_STREAM of ours went out."""
    if core.invalid_frames:
        core.invalid_frames -= 1
    else:
        core.frames.budget -= RESET_COST


cdef inline void claim(Core *core, const nghttp2_frame *frame) noexcept:
    """HEADERS or DATA of a stream that is open: of use, unless it is next to no DATA."""
    if (frame.hd.type == NGHTTP2_HEADERS or frame.hd.flags & NGHTTP2_FLAG_END_STREAM
            or frame.hd.length - frame.data.padlen >= SMALL_DATA):
        core.frames.unclaimed -= 1


cdef inline void submit_reset(
    nghttp2_session *session, int32_t stream_id, uint32_t error_code
) noexcept:
    nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream_id, error_code)


cdef inline void submit_settings(
    nghttp2_session *session, uint32_t max_streams, uint32_t stream_window, uint32_t max_header,
    int32_t connection_window
) noexcept:
    """Our SETTINGS and receive windows. RFC 7540 priorities are off: streams take turns instead."""
    cdef nghttp2_settings_entry iv[4]
    iv[0].settings_id = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
    iv[0].value = max_streams
    iv[1].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
    iv[1].value = stream_window
    iv[2].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
    iv[2].value = max_header
    iv[3].settings_id = NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES
    iv[3].value = 1
    nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, iv, 4)
    nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, connection_window)


cdef inline void submit_notice(nghttp2_session *session) noexcept:
    """GOAWAY that still takes any stream, and a PING whose answer says that the client has read it."""
    nghttp2_submit_shutdown_notice(session)
    nghttp2_submit_ping(session, NGHTTP2_FLAG_NONE, NULL)


cdef inline void submit_last_goaway(nghttp2_session *session) noexcept:
    nghttp2_submit_goaway(
        session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session),
        NGHTTP2_NO_ERROR, NULL, 0)


cdef inline void submit_continue(nghttp2_session *session, int32_t stream_id) noexcept:
    """100: the client may send its body."""
    cdef nghttp2_nv status
    set_nv(&status, ":status", 7, "100", 3)
    nghttp2_submit_headers(session, NGHTTP2_FLAG_NONE, stream_id, NULL, &status, 1, NULL)


cdef inline int submit_head(
    nghttp2_session *session, int32_t stream_id, const nghttp2_nv *nva, size_t n
) except -1:
    if nghttp2_submit_response(session, stream_id, nva, n, NULL) != 0:
        raise RuntimeError("libnghttp2 does not take the response")
    return 0


cdef inline int submit_answer(
    nghttp2_session *session, int32_t stream_id, const nghttp2_nv *nva, size_t n, Body *body
) except -1:
    """Head and body; answers of several frames take turns (RFC 9218 incremental)."""
    cdef nghttp2_data_provider provider
    cdef nghttp2_extpri fair
    provider.source.ptr = <void *>body
    provider.read_callback = on_read
    if nghttp2_submit_response(session, stream_id, nva, n, &provider) != 0:
        raise RuntimeError("libnghttp2 does not take the response")
    if body.view.len > MAX_FRAME:
        fair.urgency = NGHTTP2_EXTPRI_DEFAULT_URGENCY
        fair.inc = 1
        nghttp2_session_change_extpri_stream_priority(session, stream_id, &fair, 1)
    return 0
