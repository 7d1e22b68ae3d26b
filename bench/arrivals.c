/* Requests that leave on time, whatever comes back: an HTTP/2 load generator with a schedule. bench/arrivals.py drives it.
 *
 *     arrivals PLAN RESULTS SAMPLES
 *
 * PLAN holds a Plan, then int64 due[requests] (nanoseconds from the start), the two header blocks, and the bodies, each
 * with its uint32 length. Request i goes to connection i % connections with body i % bodies. RESULTS gets an Attempt for
 * each time a request was sent and one more Attempt, whose `request` is NOBODY, that tells of the generator itself.
 * SAMPLES gets every sample_every-th answer: uint32 request, uint32 length, bytes.
 *
 * h2load sends bursts, ten milliseconds apart at --rps, and counts from when a request left, not from when it should
 * have. Here a request is due at an instant, and everything counts from there: no coordinated omission. Frames are ready
 * made but for their stream id, so that one core is enough to ask for what another one can answer; heads of answers go
 * through libnghttp2's HPACK decoder, bodies are counted, and some are kept to be checked.
 *
 * One core, one thread:   due requests -> output of their connection -> write   |   read -> frames -> Attempt, retries
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    FRAME_HEAD = 9,
    READ_BYTES = 512 * 1024,
    SLOTS = 8192,               /* stream ids apart, at most, of what one connection has in flight */
    MAX_SAMPLE = 4 * 1024 * 1024,
    DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8, CONTINUATION = 9,
    END_STREAM = 1, ACK = 1, END_HEADERS = 4,
};
static const uint32_t WINDOW = 0x3fffffff, NOBODY = 0xffffffff;
static const uint16_t TOO_LATE = 1, RESET = 2;      /* in place of a status: never sent; no answer came */

typedef struct {
    uint32_t port, connections, requests, bodies, max_streams, first_head, next_head, sample_every;
    uint32_t closed;            /* > 0: so many requests in flight at all times, and no schedule */
    uint32_t spin;              /* never sleep: nobody else needs this core */
    uint32_t attempts;          /* 1: a refusal is an answer */
    uint32_t seed;
    int64_t duration_ns;        /* when to stop sending; what is in flight may still come for deadline_ns */
    int64_t deadline_ns, room_ns, base_ns, max_pause_ns;    /* room_ns: how long a caller waits for a free stream */
    double budget, budget_per_answer;   /* retries a connection may have saved up, and what an answer adds */
} Plan;

typedef struct {
    int64_t due_ns, sent_ns, done_ns;
    uint32_t request, bytes;
    uint16_t status, attempt;   /* attempts count from 1 */
    uint32_t streams;           /* in flight on its connection when it was sent */
} Attempt;

typedef struct {
    uint32_t stream, request;
    uint16_t status, attempt;
    uint32_t retry_after_s, bytes, streams;
    int64_t due_ns, sent_ns;
    uint8_t *sample;
} Slot;

typedef struct { uint32_t request; uint16_t attempt; int64_t due_ns, end_ns; } Wanted;

typedef struct {
    int fd, watching_out, begun;
    uint32_t next_stream, in_flight, max_streams;
    uint64_t unacked;           /* received since the last WINDOW_UPDATE */
    uint8_t *out; size_t out_at, out_size, out_room;
    uint8_t rest[FRAME_HEAD + 16384 + 256]; size_t rest_size;
    Slot *slots;
    Wanted *queue; size_t queue_at, queue_size, queue_room;   /* no stream is free for these */
    nghttp2_hd_inflater *inflater;
    double tokens;
} Connection;

static Plan plan;
static int64_t *due, *end_of;   /* end_of: when the caller of a request loses interest */
static uint8_t *first_head, *next_head;
static uint8_t **body; static uint32_t *body_size;
static Connection *connections;
static int epoll_fd;
static Attempt *attempts; static size_t attempts_size, attempts_room;
static Wanted *heap; static size_t heap_size, heap_room;      /* retries, the earliest on top */
static FILE *samples;
static uint64_t random_state;
static uint32_t closed_next, finished_count;
static int64_t begun_ns, woke_ns, worst_turn_ns, asleep_ns;

static void die(const char *what) { fprintf(stderr, "arrivals: %s: %s\n", what, strerror(errno)); exit(2); }

static void *room(void *block, size_t *have, size_t want, size_t size) {
    if (want <= *have) return block;
    *have = want < 64 ? 64 : want * 2;
    block = realloc(block, *have * size);
    if (!block) die("memory");
    return block;
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec - begun_ns;
}

static double uniform(void) {   /* xorshift64* */
    random_state ^= random_state >> 12; random_state ^= random_state << 25; random_state ^= random_state >> 27;
    return (double)((random_state * 2685821657736338717ULL) >> 11) / 9007199254740992.0;
}

/* ---- retries ---- */

static void heap_push(Wanted one) {
    heap = room(heap, &heap_room, heap_size + 1, sizeof *heap);
    size_t i = heap_size++;
    for (; i && heap[(i - 1) / 2].due_ns > one.due_ns; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = one;
}

static Wanted heap_pop(void) {
    Wanted top = heap[0], last = heap[--heap_size];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < heap_size) {
        if (child + 1 < heap_size && heap[child + 1].due_ns < heap[child].due_ns) child++;
        if (heap[child].due_ns >= last.due_ns) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

/* ---- output ---- */

static void emit(Connection *c, const void *data, size_t size) {
    c->out = room(c->out, &c->out_room, c->out_size + size, 1);
    memcpy(c->out + c->out_size, data, size);
    c->out_size += size;
}

static void emit_head(Connection *c, uint32_t size, uint8_t type, uint8_t flags, uint32_t stream) {
    uint8_t head[FRAME_HEAD] = {size >> 16, size >> 8, size, type, flags, stream >> 24, stream >> 16, stream >> 8, stream};
    emit(c, head, sizeof head);
}

static void emit_window(Connection *c, uint32_t grow) {
    uint32_t big = htonl(grow);
    emit_head(c, 4, WINDOW_UPDATE, 0, 0);
    emit(c, &big, 4);
}

static void flush(Connection *c) {
    while (c->out_at < c->out_size) {
        ssize_t n = write(c->fd, c->out + c->out_at, c->out_size - c->out_at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno != EAGAIN) die("write");
        if (n < 0) break;
        c->out_at += (size_t)n;
    }
    int blocked = c->out_at < c->out_size;
    if (!blocked) c->out_at = c->out_size = 0;
    if (blocked != c->watching_out) {
        struct epoll_event event = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
        c->watching_out = blocked;
    }
}

static void record(Attempt one) {
    attempts = room(attempts, &attempts_room, attempts_size + 1, sizeof *attempts);
    attempts[attempts_size++] = one;
}

static void send_one(Connection *c, Wanted w, int64_t now) {
    uint32_t stream = c->next_stream, which = w.request % plan.bodies;
    Slot *slot = &c->slots[(stream >> 1) % SLOTS];
    if (slot->stream) { errno = 0; die("an answer is overdue for thousands of later ones"); }
    c->next_stream += 2;
    c->in_flight++;
    *slot = (Slot){.stream = stream, .request = w.request, .attempt = w.attempt, .due_ns = w.due_ns, .sent_ns = now,
                   .streams = c->in_flight};
    uint32_t size = c->begun ? plan.next_head : plan.first_head;
    emit_head(c, size, HEADERS, END_HEADERS, stream);
    emit(c, c->begun ? next_head : first_head, size);
    c->begun = 1;
    emit_head(c, body_size[which], DATA, END_STREAM, stream);
    emit(c, body[which], body_size[which]);
}

static void want(Connection *c, Wanted w, int64_t now) {
    if (c->in_flight < c->max_streams) { send_one(c, w, now); return; }
    if (c->queue_at == c->queue_size) c->queue_at = c->queue_size = 0;
    c->queue = room(c->queue, &c->queue_room, c->queue_size + 1, sizeof *c->queue);
    c->queue[c->queue_size++] = w;
}

static void send_waiting(Connection *c, int64_t now) {
    while (c->queue_at < c->queue_size && c->in_flight < c->max_streams) {
        Wanted w = c->queue[c->queue_at++];
        if (now < w.due_ns + plan.room_ns) { send_one(c, w, now); continue; }
        record((Attempt){w.due_ns, 0, now, w.request, 0, TOO_LATE, w.attempt, c->in_flight});
        finished_count++;
    }
}

/* ---- input ---- */

static void another(Connection *c, int64_t now) {
    if (!plan.closed || now >= plan.duration_ns) return;
    want(c, (Wanted){closed_next++, 1, now, INT64_MAX}, now);
}

static int again(Connection *c, Slot *s, int64_t now) {
    if (s->status != 429 && s->status != 503) { c->tokens += plan.budget_per_answer; }
    if (c->tokens > plan.budget) c->tokens = plan.budget;
    if ((s->status != 429 && s->status != 503) || s->attempt >= plan.attempts || c->tokens < 1) return 0;
    double ceiling = (double)plan.base_ns * (double)(1 << (s->attempt - 1));
    if (ceiling > (double)plan.max_pause_ns) ceiling = (double)plan.max_pause_ns;
    int64_t at = now + (int64_t)s->retry_after_s * 1000000000 + (int64_t)(uniform() * ceiling);
    if (at >= end_of[s->request]) return 0;
    c->tokens -= 1;
    heap_push((Wanted){s->request, (uint16_t)(s->attempt + 1), at, end_of[s->request]});
    return 1;
}

static void finish(Connection *c, Slot *s, int64_t now) {
    record((Attempt){s->due_ns, s->sent_ns, now, s->request, s->bytes, s->status, s->attempt, s->streams});
    if (s->sample) {
        uint32_t head[2] = {s->request, s->bytes};
        if (s->status == 200) { fwrite(head, 4, 2, samples); fwrite(s->sample, 1, s->bytes, samples); }
        free(s->sample);
    }
    c->in_flight--;
    if (plan.closed || !again(c, s, now)) finished_count++;
    s->stream = 0;
    s->sample = NULL;
    another(c, now);
    send_waiting(c, now);
}

static uint32_t decimal(const uint8_t *text, size_t size) {
    uint32_t n = 0;
    for (size_t i = 0; i < size && text[i] >= '0' && text[i] <= '9'; i++) n = n * 10 + (text[i] - '0');
    return n;
}

static void on_headers(Connection *c, Slot *s, const uint8_t *at, size_t size) {
    nghttp2_nv nv;
    int flags = 0;
    for (;;) {
        ssize_t n = nghttp2_hd_inflate_hd2(c->inflater, &nv, &flags, at, size, 1);
        if (n < 0) { errno = 0; die("a head that HPACK does not allow"); }
        at += n;
        size -= (size_t)n;
        if (flags & NGHTTP2_HD_INFLATE_EMIT && s) {
            if (nv.namelen == 7 && !memcmp(nv.name, ":status", 7)) s->status = (uint16_t)decimal(nv.value, nv.valuelen);
            else if (nv.namelen == 11 && !memcmp(nv.name, "retry-after", 11))
                s->retry_after_s = decimal(nv.value, nv.valuelen);
        }
        if (flags & NGHTTP2_HD_INFLATE_FINAL) { nghttp2_hd_inflate_end_headers(c->inflater); return; }
        if (!size && !(flags & NGHTTP2_HD_INFLATE_EMIT)) return;
    }
}

static void on_settings(Connection *c, const uint8_t *at, size_t size) {
    for (; size >= 6; at += 6, size -= 6) {
        uint32_t id = at[0] << 8 | at[1], value = (uint32_t)at[2] << 24 | at[3] << 16 | at[4] << 8 | at[5];
        if (id == NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS && value < c->max_streams) c->max_streams = value;
    }
    emit_head(c, 0, SETTINGS, ACK, 0);
}

static void on_data(Connection *c, Slot *s, const uint8_t *at, uint32_t size) {
    c->unacked += size;
    if (!s) return;
    if (plan.sample_every && s->request % plan.sample_every == 0 && s->bytes + size <= MAX_SAMPLE) {
        if (!s->sample && !(s->sample = malloc(MAX_SAMPLE))) die("memory");
        memcpy(s->sample + s->bytes, at, size);
    }
    s->bytes += size;
}

static void on_frame(Connection *c, uint8_t type, uint8_t flags, uint32_t stream, const uint8_t *at, uint32_t size,
                     int64_t now) {
    Slot *s = &c->slots[(stream >> 1) % SLOTS];
    if (!stream || s->stream != stream) s = NULL;
    if (type == DATA) on_data(c, s, at, size);
    else if (type == HEADERS) {
        if (!(flags & END_HEADERS) || flags & 0x28) { errno = 0; die("a head in parts, padded or with a priority"); }
        on_headers(c, s, at, size);
    } else if (type == SETTINGS && !(flags & ACK)) on_settings(c, at, size);
    else if (type == PING && !(flags & ACK)) { emit_head(c, 8, PING, ACK, 0); emit(c, at, 8); }
    else if (type == GOAWAY) { errno = 0; die("the server says goodbye"); }
    if (s && type == RST_STREAM) { s->status = RESET; finish(c, s, now); }
    else if (s && (type == DATA || type == HEADERS) && flags & END_STREAM) finish(c, s, now);
}

static void receive(Connection *c) {
    static uint8_t buffer[READ_BYTES + sizeof c->rest];
    memcpy(buffer, c->rest, c->rest_size);
    ssize_t n = read(c->fd, buffer + c->rest_size, READ_BYTES);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) die("the server closed the connection");
    int64_t now = now_ns();
    size_t size = c->rest_size + (size_t)n, at = 0;
    while (size - at >= FRAME_HEAD) {
        const uint8_t *h = buffer + at;
        uint32_t length = h[0] << 16 | h[1] << 8 | h[2];
        uint32_t stream = (uint32_t)(h[5] & 0x7f) << 24 | h[6] << 16 | h[7] << 8 | h[8];
        if (length > 16384) { errno = 0; die("a frame larger than was allowed"); }
        if (size - at < FRAME_HEAD + length) break;
        on_frame(c, h[3], h[4], stream, h + FRAME_HEAD, length, now);
        at += FRAME_HEAD + length;
    }
    c->rest_size = size - at;
    memcpy(c->rest, buffer + at, c->rest_size);
    if (c->unacked > WINDOW / 4) { emit_window(c, (uint32_t)c->unacked); c->unacked = 0; }
    flush(c);
}

/* ---- the run ---- */

static void connect_all(void) {
    static const uint8_t window_setting[6] = {0, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0x3f, 0xff, 0xff, 0xff};
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc(plan.connections, sizeof *connections);
    for (uint32_t i = 0; i < plan.connections; i++) {
        Connection *c = &connections[i];
        struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)plan.port),
                                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int yes = 1;
        c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(c->fd, (struct sockaddr *)&where, sizeof where)) die("connect");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        c->next_stream = 1;
        c->max_streams = plan.max_streams;
        c->tokens = plan.budget;
        c->slots = calloc(SLOTS, sizeof *c->slots);
        if (!c->slots || nghttp2_hd_inflate_new(&c->inflater)) die("memory");
        emit(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
        emit_head(c, 6, SETTINGS, 0, 0);
        emit(c, window_setting, 6);
        emit_window(c, WINDOW);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event);
        flush(c);
    }
}

static void send_due(uint32_t *next, int64_t now) {
    while (!plan.closed && *next < plan.requests && due[*next] <= now) {
        uint32_t i = (*next)++;
        want(&connections[i % plan.connections], (Wanted){i, 1, due[i], end_of[i]}, now);
    }
    while (heap_size && heap[0].due_ns <= now) {
        Wanted w = heap_pop();
        want(&connections[w.request % plan.connections], w, now);
    }
}

static void wait_and_receive(int64_t until) {
    struct epoll_event events[256];
    int64_t now = now_ns(), sleep = plan.spin ? 0 : until - now;
    struct timespec timeout = {0, 0};
    if (sleep > 0) { timeout.tv_sec = sleep / 1000000000; timeout.tv_nsec = sleep % 1000000000; }
    int n = epoll_pwait2(epoll_fd, events, 256, &timeout, NULL);
    woke_ns = now_ns();
    asleep_ns += n <= 0 || sleep > 0 ? woke_ns - now : 0;
    for (int i = 0; i < n; i++) {
        Connection *c = events[i].data.ptr;
        if (events[i].events & EPOLLOUT) flush(c);
        if (events[i].events & ~(uint32_t)EPOLLOUT) receive(c);
    }
}

static void run(void) {
    uint32_t next = 0;
    for (uint32_t i = 0; i < plan.closed; i++)
        want(&connections[i % plan.connections], (Wanted){closed_next++, 1, 0, INT64_MAX}, 0);
    for (;;) {
        int64_t now = now_ns(), until = now + 50000000;
        if (woke_ns && now - woke_ns > worst_turn_ns) worst_turn_ns = now - woke_ns;
        send_due(&next, now);
        for (uint32_t i = 0; i < plan.connections; i++) {
            Connection *c = &connections[i];
            if (c->out_size > c->out_at && !c->watching_out) flush(c);
        }
        uint32_t asked = plan.closed ? closed_next : next;
        if ((plan.closed ? now >= plan.duration_ns : next == plan.requests) && finished_count == asked) break;
        if (now > plan.duration_ns + plan.deadline_ns) break;
        if (!plan.closed && next < plan.requests && due[next] < until) until = due[next];
        if (heap_size && heap[0].due_ns < until) until = heap[0].due_ns;
        wait_and_receive(until);
    }
    for (uint32_t i = 0; i < plan.connections; i++)
        for (uint32_t k = 0; k < SLOTS; k++) {
            Slot *s = &connections[i].slots[k];
            if (s->stream) record((Attempt){s->due_ns, s->sent_ns, INT64_MAX, s->request, s->bytes, RESET, s->attempt, s->streams});
        }
}

static void must_read(void *into, size_t size, size_t count, FILE *from) {
    if (fread(into, size, count, from) != count) die("the plan is cut short");
}

static void read_plan(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    must_read(&plan, sizeof plan, 1, file);
    due = malloc((plan.requests + 1) * sizeof *due);
    end_of = malloc((plan.requests + 1) * sizeof *end_of);
    must_read(due, sizeof *due, plan.requests, file);
    for (uint32_t i = 0; i < plan.requests; i++) end_of[i] = due[i] + plan.deadline_ns;
    first_head = malloc(plan.first_head);
    next_head = malloc(plan.next_head);
    must_read(first_head, 1, plan.first_head, file);
    must_read(next_head, 1, plan.next_head, file);
    body = malloc(plan.bodies * sizeof *body);
    body_size = malloc(plan.bodies * sizeof *body_size);
    for (uint32_t i = 0; i < plan.bodies; i++) {
        must_read(&body_size[i], 4, 1, file);
        if (body_size[i] > 16384) { errno = 0; die("a body of more than one frame"); }
        body[i] = malloc(body_size[i]);
        must_read(body[i], 1, body_size[i], file);
    }
    fclose(file);
    random_state = plan.seed * 2 + 1;
}

int main(int argc, char **argv) {
    if (argc != 4) { fprintf(stderr, "arrivals PLAN RESULTS SAMPLES\n"); return 2; }
    read_plan(argv[1]);
    samples = fopen(argv[3], "wb");
    FILE *results = fopen(argv[2], "wb");
    if (!samples || !results) die("output");
    connect_all();
    begun_ns = now_ns();
    run();
    record((Attempt){now_ns(), asleep_ns, worst_turn_ns, NOBODY, 0, 0, 0, 0});
    if (fwrite(attempts, sizeof *attempts, attempts_size, results) != attempts_size) die("results");
    return fclose(results) || fclose(samples) ? 2 : 0;
}
