# The part of libnghttp2 (>= 1.50) that _ext/h2.pyx and _ext/h2_client.pyx use.
#
# A callback that raises returns -902, NGHTTP2_ERR_CALLBACK_FAILURE, with the Python exception set.
# libnghttp2 then runs no other callback and passes -902 up, where it is an exception again.
from libc.stdint cimport int32_t, uint8_t, uint32_t

cdef extern from "nghttp2/nghttp2.h":
    ctypedef struct nghttp2_session:
        pass
    ctypedef struct nghttp2_session_callbacks:
        pass
    ctypedef struct nghttp2_option:
        pass
    ctypedef struct nghttp2_rcbuf:
        pass

    ctypedef struct nghttp2_vec:
        uint8_t *base
        size_t len

    ctypedef struct nghttp2_nv:
        uint8_t *name
        uint8_t *value
        size_t namelen
        size_t valuelen
        uint8_t flags

    ctypedef struct nghttp2_frame_hd:
        size_t length
        int32_t stream_id
        uint8_t type
        uint8_t flags

    ctypedef struct nghttp2_headers:
        int cat

    ctypedef struct nghttp2_goaway:
        uint32_t error_code

    ctypedef struct nghttp2_frame_data "nghttp2_data":
        size_t padlen

    ctypedef union nghttp2_frame:
        nghttp2_frame_hd hd
        nghttp2_headers headers
        nghttp2_goaway goaway
        nghttp2_frame_data data

    ctypedef union nghttp2_data_source:
        int fd
        void *ptr

    ctypedef ssize_t (*nghttp2_data_source_read_callback)(
        nghttp2_session *session, int32_t stream_id, uint8_t *buf, size_t length,
        uint32_t *data_flags, nghttp2_data_source *source, void *user_data) noexcept

    ctypedef struct nghttp2_data_provider:
        nghttp2_data_source source
        nghttp2_data_source_read_callback read_callback

    ctypedef struct nghttp2_settings_entry:
        int32_t settings_id
        uint32_t value

    ctypedef struct nghttp2_extpri:
        uint32_t urgency
        int inc

    int NGHTTP2_DATA, NGHTTP2_HEADERS, NGHTTP2_RST_STREAM, NGHTTP2_PING, NGHTTP2_GOAWAY
    int NGHTTP2_FLAG_NONE, NGHTTP2_FLAG_END_STREAM, NGHTTP2_FLAG_ACK
    int NGHTTP2_HCAT_REQUEST
    int NGHTTP2_NO_ERROR, NGHTTP2_PROTOCOL_ERROR, NGHTTP2_INTERNAL_ERROR
    int NGHTTP2_CANCEL, NGHTTP2_SETTINGS_ENABLE_PUSH
    int NGHTTP2_REFUSED_STREAM, NGHTTP2_ENHANCE_YOUR_CALM
    int NGHTTP2_ERR_WOULDBLOCK, NGHTTP2_ERR_CALLBACK_FAILURE
    int NGHTTP2_DATA_FLAG_EOF, NGHTTP2_DATA_FLAG_NO_COPY
    int NGHTTP2_NV_FLAG_NONE
    int NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
    int NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES
    int NGHTTP2_EXTPRI_DEFAULT_URGENCY

    nghttp2_vec nghttp2_rcbuf_get_buf(nghttp2_rcbuf *rcbuf)
    void nghttp2_rcbuf_incref(nghttp2_rcbuf *rcbuf)
    void nghttp2_rcbuf_decref(nghttp2_rcbuf *rcbuf)
    const char *nghttp2_strerror(int code)
    int nghttp2_check_header_name(const uint8_t *name, size_t size)
    int nghttp2_check_header_value(const uint8_t *value, size_t size)

    int nghttp2_session_callbacks_new(nghttp2_session_callbacks **callbacks)
    void nghttp2_session_callbacks_del(nghttp2_session_callbacks *callbacks)
    void nghttp2_session_callbacks_set_send_callback(
        nghttp2_session_callbacks *callbacks,
        ssize_t (*callback)(nghttp2_session *, const uint8_t *, size_t, int, void *) noexcept)
    void nghttp2_session_callbacks_set_send_data_callback(
        nghttp2_session_callbacks *callbacks,
        int (*callback)(nghttp2_session *, nghttp2_frame *, const uint8_t *, size_t,
                        nghttp2_data_source *, void *) noexcept)
    void nghttp2_session_callbacks_set_on_begin_headers_callback(
        nghttp2_session_callbacks *callbacks,
        int (*callback)(nghttp2_session *, const nghttp2_frame *, void *) except? -902)
    void nghttp2_session_callbacks_set_on_header_callback2(
        nghttp2_session_callbacks *callbacks,
        int (*callback)(nghttp2_session *, const nghttp2_frame *, nghttp2_rcbuf *,
                        nghttp2_rcbuf *, uint8_t, void *) except? -902)
    void nghttp2_session_callbacks_set_on_frame_recv_callback(
        nghttp2_session_callbacks *callbacks,
        int (*callback)(nghttp2_session *, const nghttp2_frame *, void *) except? -902)
    void nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(
        nghttp2_session_callbacks *callbacks,
        int (*callback)(nghttp2_session *, const nghttp2_frame *, int, void *) except? -902)
    void nghttp2_session_callbacks_set_on_frame_send_callback(
        nghttp2_session_callbacks *callbacks,
        int (*callback)(nghttp2_session *, const nghttp2_frame *, void *) except? -902)
    void nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        nghttp2_session_callbacks *callbacks,
        int (*callback)(nghttp2_session *, uint8_t, int32_t, const uint8_t *, size_t,
                        void *) except? -902)
    void nghttp2_session_callbacks_set_on_stream_close_callback(
        nghttp2_session_callbacks *callbacks,
        int (*callback)(nghttp2_session *, int32_t, uint32_t, void *) except? -902)

    int nghttp2_option_new(nghttp2_option **option)
    void nghttp2_option_del(nghttp2_option *option)
    void nghttp2_option_set_no_closed_streams(nghttp2_option *option, int val)

    int nghttp2_session_server_new2(
        nghttp2_session **session, const nghttp2_session_callbacks *callbacks,
        void *user_data, const nghttp2_option *option)
    int nghttp2_session_client_new2(
        nghttp2_session **session, const nghttp2_session_callbacks *callbacks,
        void *user_data, const nghttp2_option *option)
    void nghttp2_session_del(nghttp2_session *session)
    ssize_t nghttp2_session_mem_recv(
        nghttp2_session *session, const uint8_t *data, size_t size) except? -902
    int nghttp2_session_send(nghttp2_session *session) except? -902
    int nghttp2_session_want_read(nghttp2_session *session)
    int nghttp2_session_want_write(nghttp2_session *session)
    void *nghttp2_session_get_stream_user_data(nghttp2_session *session, int32_t stream_id)
    int nghttp2_session_set_stream_user_data(
        nghttp2_session *session, int32_t stream_id, void *user_data)
    int nghttp2_session_set_local_window_size(
        nghttp2_session *session, uint8_t flags, int32_t stream_id, int32_t window_size)
    uint32_t nghttp2_session_get_remote_settings(nghttp2_session *session, int id)
    int32_t nghttp2_session_get_last_proc_stream_id(nghttp2_session *session)
    int nghttp2_session_terminate_session(nghttp2_session *session, uint32_t error_code)
    int nghttp2_session_change_extpri_stream_priority(
        nghttp2_session *session, int32_t stream_id, const nghttp2_extpri *extpri,
        int ignore_client_signal)

    int nghttp2_submit_shutdown_notice(nghttp2_session *session)
    int nghttp2_submit_goaway(
        nghttp2_session *session, uint8_t flags, int32_t last_stream_id, uint32_t error_code,
        const uint8_t *data, size_t size)
    int nghttp2_submit_ping(nghttp2_session *session, uint8_t flags, const uint8_t *data)
    int nghttp2_submit_settings(
        nghttp2_session *session, uint8_t flags, const nghttp2_settings_entry *iv, size_t niv)
    int nghttp2_submit_rst_stream(
        nghttp2_session *session, uint8_t flags, int32_t stream_id, uint32_t error_code)
    int nghttp2_submit_headers(
        nghttp2_session *session, uint8_t flags, int32_t stream_id, const void *pri_spec,
        const nghttp2_nv *nva, size_t nvlen, void *user_data)
    int nghttp2_submit_response(
        nghttp2_session *session, int32_t stream_id, const nghttp2_nv *nva, size_t nvlen,
        const nghttp2_data_provider *provider)
    int32_t nghttp2_submit_request(
        nghttp2_session *session, const void *pri_spec, const nghttp2_nv *nva, size_t nvlen,
        const nghttp2_data_provider *provider, void *stream_user_data)
