"""The hot reads of Redis: MGETs of the keys that are missing, replies decoded where they lie.

fastserve/online/fetcher_py.py is the twin; flights.pxd has the keys in flight, resp_parse.pxd the grammar.

    receive buffer   …|begin: *3 $5 … |begin + at: next element|end: room for more|capacity
    asks             [MGET of slots …17, MGET of slots 17…90]    sent; replies come in this order

A reply is parsed as it arrives: each element's place is noted in its slot. With the last one the rows are
set in all batches that wait for them, pointing into the buffer, and whoever has all rows then is called. The
rows of batches that still wait are copied before the buffer is written to again. After a slice of time the
replies that are left wait for the loop's next turn, so that it reads other sockets in between.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITE
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

from buffers cimport Buffer, put, release, reserve
from flights cimport (
    Call, Flights, Slot, add_slot, add_waiter, drop_call, find_slot, free_flights, free_waiter, init_flights,
    is_wanted, new_call, reserve_slots, slot_at, slot_is_wanted, untable
)
from read_batch cimport BORROWED, CHANGED, UNKNOWN, Batch, batch_of, key_at, key_size, own_rows, set_row
from resp_parse cimport ARRAY, BROKEN, ERROR, MORE, STRING, Token, parse

import asyncio

from fastserve.errors import CodecError, StoreUnavailableError
from fastserve.online.fetcher_py import SAME_TURN_US, SLICE_US

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec* now)

cdef enum:
    MAX_KEYS = 100              # of an MGET: with more, client and server take turns instead of overlapping
    START_CAPACITY = 128 * 1024
    KEPT_CAPACITY = 1024 * 1024     # a larger receive buffer is given back when nothing is on the way
    MIN_FREE = 64 * 1024

cdef struct Ask:                # an MGET that was sent
    uint64_t end                # its slots end here
    Py_ssize_t keys
    double sent_at


cdef int64_t SAME_TURN_NS = SAME_TURN_US * 1_000


cdef inline int64_t clock_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t> now.tv_sec * 1_000_000_000 + now.tv_nsec


@cython.final
cdef class Fetcher:
    """See the twin."""

    cdef Flights flights
    cdef Ask* asks              # ring
    cdef Py_ssize_t asks_capacity, first_ask, n_asks
    cdef char* data             # the receive buffer
    cdef Py_ssize_t capacity, begin, at, end
    cdef Py_ssize_t left        # elements of the reply still to come; -1: its head is
    cdef Py_ssize_t needed      # bytes that the next element takes, if known
    cdef uint64_t cursor        # the slot of the next element
    cdef Buffer out
    cdef Call* borrowed         # calls that wait on, with rows in the receive buffer
    cdef Call* gone             # calls to let go of where any Python code may run
    cdef bint woken             # until requests() or a failure
    cdef int64_t slice_ns, over, left_at    # of this turn: see the twin
    cdef object label, wake, closed, whole

    def __cinit__(self, label, wake, int64_t slice_us=SLICE_US):
        self.label, self.wake, self.slice_ns = label, wake, slice_us * 1_000
        init_flights(&self.flights)
        self.asks_capacity = 16
        self.asks = <Ask*> malloc(self.asks_capacity * sizeof(Ask))
        self.data = <char*> malloc(START_CAPACITY)
        if self.asks == NULL or self.data == NULL:
            raise MemoryError
        self.capacity = START_CAPACITY
        self.left = -1

    def __dealloc__(self):
        if self.flights.slots != NULL and self.flights.table != NULL:
            self.take_all(self.flights.next, NULL, NULL)
        self.drop_gone()
        free_flights(&self.flights)
        free(self.asks)
        free(self.data)
        release(&self.out)

    # ---- asking ------------------------------------------------------------------------------------

    def fetch(self, batch, done, int64_t now_us):
        cdef Batch* keys = batch_of(batch)
        cdef Flights* flights = &self.flights
        cdef Call* call
        cdef Py_ssize_t i
        cdef uint64_t number
        if self.closed is not None:
            raise self.closed()
        if keys.missing == 0:
            return True
        reserve_slots(flights, keys.missing)
        call = new_call(keys, batch, done)
        try:
            for i in range(keys.n):
                if keys.rows[i].state != UNKNOWN:
                    continue
                number = find_slot(flights, keys, i)
                if number:
                    add_waiter(flights, slot_at(flights, number - 1), call, i)
                else:
                    add_slot(flights, call, i, now_us)
                call.waits += 1
                call.unanswered += 1
            if flights.unsent != flights.next and not self.woken:
                self.wake()
                self.woken = True
        except BaseException:
            call.settled = True
            raise
        finally:
            drop_call(call)
        return False

    def forget(self, changed):
        cdef Batch* keys = batch_of(changed)
        cdef Py_ssize_t i
        cdef uint64_t number
        if self.flights.tabled == 0:
            return
        for i in range(keys.n):
            number = find_slot(&self.flights, keys, i)
            if number and number <= self.flights.unsent:
                slot_at(&self.flights, number - 1).changed = True
                untable(&self.flights, number - 1)

    def requests(self, double now):
        """The MGETs of the keys that are queued; they count as sent from here on."""
        self.out.size = 0
        while self.flights.unsent != self.flights.next:
            self.add_request(now)
        self.woken = False
        self.drop_gone()
        return PyBytes_FromStringAndSize(self.out.data, self.out.size)

    cdef int add_request(self, double now) except -1:
        cdef Flights* flights = &self.flights
        cdef uint64_t number, end = flights.unsent
        cdef Py_ssize_t keys = 0, size
        cdef Slot* slot
        while end != flights.next and keys < MAX_KEYS:
            slot = slot_at(flights, end)
            if slot_is_wanted(flights, slot):
                keys += 1
            else:
                self.skip(end)
            end += 1
        if keys:
            self.push_ask(end, keys, now)
            self.put_number(c"*", keys + 1)
            put(&self.out, b"$4\r\nMGET\r\n", 10)
        for number in range(flights.unsent, end):
            slot = slot_at(flights, number)
            if not slot.skipped:
                size = key_size(slot.first.call.batch, slot.first.row)
                self.put_number(c"$", size)
                reserve(&self.out, size + 2)
                memcpy(self.out.data + self.out.size, key_at(slot.first.call.batch, slot.first.row), size)
                self.out.size += size + 2
                self.out.data[self.out.size - 2] = c"\r"
                self.out.data[self.out.size - 1] = c"\n"
        flights.unsent = end
        return 0

    cdef int put_number(self, char marker, Py_ssize_t number) except -1:
        cdef char[24] text
        cdef int i = 22
        text[22], text[23] = c"\r", c"\n"
        while True:
            i -= 1
            text[i] = <char> (c"0" + number % 10)
            number //= 10
            if number == 0:
                break
        text[i - 1] = marker
        return put(&self.out, &text[i - 1], 25 - i)

    cdef int push_ask(self, uint64_t end, Py_ssize_t keys, double now) except -1:
        cdef Py_ssize_t i
        cdef Ask* asks
        if self.n_asks == self.asks_capacity:
            asks = <Ask*> malloc(2 * self.asks_capacity * sizeof(Ask))
            if asks == NULL:
                raise MemoryError
            for i in range(self.n_asks):
                asks[i] = self.asks[(self.first_ask + i) % self.asks_capacity]
            free(self.asks)
            self.asks, self.first_ask, self.asks_capacity = asks, 0, 2 * self.asks_capacity
        i = (self.first_ask + self.n_asks) % self.asks_capacity
        self.asks[i].end, self.asks[i].keys, self.asks[i].sent_at = end, keys, now
        self.n_asks += 1
        return 0

    cdef void skip(self, uint64_t number) noexcept:
        """Nobody waits for this key any more: it is not asked for."""
        self.take(number, NULL, NULL)
        slot_at(&self.flights, number).skipped = True

    @property
    def queued(self):
        return self.flights.next - self.flights.unsent

    @property
    def waiting_since(self):
        return self.asks[self.first_ask].sent_at if self.n_asks else None

    # ---- receiving ---------------------------------------------------------------------------------

    def get_buffer(self, sizehint):
        cdef Py_ssize_t come = self.end - self.begin, wanted = self.needed - (come - self.at)
        if self.begin == self.end:
            self.begin = self.end = 0
        if wanted > come:               # twice as much as has come, whatever the peer says is to come
            wanted = come
        if wanted < MIN_FREE:
            wanted = MIN_FREE
        if self.capacity - self.end < wanted and self.begin:
            memmove(self.data, self.data + self.begin, self.end - self.begin)
            self.begin, self.end = 0, self.end - self.begin
        if self.capacity - self.end < wanted:
            self.resize(max(2 * self.capacity, self.end + wanted))
        if self.end:
            return PyMemoryView_FromMemory(self.data + self.end, self.capacity - self.end, PyBUF_WRITE)
        if self.whole is None:
            self.whole = PyMemoryView_FromMemory(self.data, self.capacity, PyBUF_WRITE)
        return self.whole

    def buffer_updated(self, Py_ssize_t size):
        cdef int64_t now = clock_ns()
        if size == 0 or now - self.left_at > SAME_TURN_NS:
            self.over = now + self.slice_ns
        self.end += size
        try:
            while self.n_asks and self.read_reply():
                if self.n_asks and self.begin != self.end and clock_ns() >= self.over:
                    return True
        finally:
            self.own_borrowed()
            self.left_at = clock_ns()
        if self.n_asks == 0:
            if self.begin != self.end:
                raise CodecError("it answers what nobody asked")
            if self.capacity > KEPT_CAPACITY:
                self.begin = self.end = 0
                self.resize(START_CAPACITY)
        return False

    cdef int resize(self, Py_ssize_t capacity) except -1:
        cdef char* data = <char*> realloc(self.data, capacity)
        if data == NULL:
            raise MemoryError
        self.data, self.capacity, self.whole = data, capacity, None
        return 0

    cdef bint read_reply(self) except -1:
        """Parse what there is of a reply, and settle it when it is whole; whether it was."""
        cdef Ask* ask = &self.asks[self.first_ask]
        cdef Token token
        cdef Slot* slot
        cdef Py_ssize_t took
        self.needed = 0
        while self.left:
            took = parse(self.data + self.begin + self.at, self.end - self.begin - self.at, &token)
            if took == MORE:
                self.needed = token.size
                return False
            if took == BROKEN or (token.kind in (ARRAY, ERROR)) != (self.left < 0):
                raise CodecError("no reply to MGET begins like this")
            self.at += took
            if token.kind == ERROR:
                self.refuse(token.data, token.size)
                return True
            if token.kind == ARRAY:
                if token.size != ask.keys:
                    raise CodecError(f"{token.size} rows for {ask.keys} keys")
                self.left, self.cursor = token.size, self.flights.oldest
                continue
            slot = slot_at(&self.flights, self.cursor)
            while slot.skipped:
                self.cursor += 1
                slot = slot_at(&self.flights, self.cursor)
            if token.kind == STRING:
                slot.at, slot.size = token.data - self.data - self.begin, <int32_t> token.size
            self.cursor += 1
            self.left -= 1
        self.deliver()
        return True

    cdef const char* end_reply(self) noexcept:
        """The reply is parsed: its MGET is done with; returns where it lies."""
        cdef const char* reply = self.data + self.begin
        self.begin += self.at
        self.at, self.left = 0, -1
        self.first_ask = (self.first_ask + 1) % self.asks_capacity
        self.n_asks -= 1
        return reply

    cdef int deliver(self) except -1:
        """Set the rows of the oldest MGET in every batch that waits for them; call who has all."""
        cdef uint64_t end = self.asks[self.first_ask].end
        cdef const char* reply = self.end_reply()
        cdef Call* ready = NULL
        self.take_all(end, reply, &ready)
        self.call_all(ready, None)
        return 0

    cdef int refuse(self, const char* text, Py_ssize_t size) except -1:
        """The server answered the oldest MGET with an error; it fails who waits for it, and no others."""
        cdef uint64_t end = self.asks[self.first_ask].end
        cdef Call* failed = NULL
        said = text[:size].decode("utf-8", "replace")
        self.end_reply()
        self.take_all(end, NULL, &failed)
        self.call_all(failed, lambda: StoreUnavailableError(f"Redis at {self.label} answered: {said}"))
        return 0

    cdef void take_all(self, uint64_t end, const char* reply, Call** last) noexcept:
        """Settle the slots up to end: with rows in the reply or, if NULL, without; last: calls to make."""
        cdef uint64_t number
        for number in range(self.flights.oldest, end):
            if not slot_at(&self.flights, number).skipped:
                last = self.take(number, reply, last)
        self.flights.oldest = end
        if self.flights.unsent < end:
            self.flights.unsent = end

    cdef Call** take(self, uint64_t number, const char* reply, Call** last) noexcept:
        """Settle a slot for all its waiters; returns the new end of the list."""
        cdef Slot* slot = slot_at(&self.flights, number)
        cdef int32_t i = slot.first.next
        untable(&self.flights, number)
        last = self.answer(slot.first.call, slot.first.row, slot, reply, last)
        while i >= 0:
            last = self.answer(self.flights.pool[i].call, self.flights.pool[i].row, slot, reply, last)
            i = free_waiter(&self.flights, i)
        return last

    cdef Call** answer(
        self, Call* call, Py_ssize_t row, Slot* slot, const char* reply, Call** last
    ) noexcept:
        """Settle one waiter, which is gone then. No Python code runs here, so slots stay where they are."""
        cdef uint8_t flags = CHANGED if slot.changed else 0
        call.unanswered -= 1
        if is_wanted(call) and last != NULL:
            if reply != NULL and slot.size < 0:
                set_row(call.batch, row, NULL, 0, flags, slot.asked_us)
            elif reply != NULL:
                flags = flags | <uint8_t> BORROWED
                set_row(call.batch, row, reply + slot.at, slot.size, flags, slot.asked_us)
            if call.unanswered == 0 or reply == NULL:
                call.settled = True
                call.waits += 1
                call.next_ready = NULL
                last[0] = call
                last = &call.next_ready
            elif not call.listed:
                call.listed = True
                call.waits += 1
                call.next_borrowed = self.borrowed
                self.borrowed = call
        if call.waits > 1:
            call.waits -= 1
        else:
            call.next_ready, self.gone = self.gone, call
        return last

    cdef int call_all(self, Call* ready, object make_error) except -1:
        cdef Call* call
        while ready != NULL:
            call, ready = ready, ready.next_ready
            if not call.batch.abandoned:
                try:
                    (<object> call.done)(None if make_error is None else make_error())
                except Exception as error:      # it must not raise; but if it does, the others must hear
                    asyncio.get_running_loop().call_exception_handler(
                        {"message": "a reader of the online store raised", "exception": error}
                    )
            drop_call(call)
        self.drop_gone()
        return 0

    cdef void drop_gone(self) noexcept:
        cdef Call* call
        while self.gone != NULL:
            call, self.gone = self.gone, self.gone.next_ready
            drop_call(call)

    cdef int own_borrowed(self) except -1:
        """Copy the rows of those who wait on out of the receive buffer."""
        cdef Call* call
        while self.borrowed != NULL:
            call, self.borrowed = self.borrowed, self.borrowed.next_borrowed
            call.listed = False
            own_rows(call.batch)
            drop_call(call)
        return 0

    # ---- failing -----------------------------------------------------------------------------------

    def fail_sent(self, make_error):
        self.fail(self.flights.unsent, make_error)

    def fail_all(self, make_error):
        self.woken = False
        self.fail(self.flights.next, make_error)

    def close(self, make_error):
        self.closed = make_error
        self.fail_all(make_error)

    cdef int fail(self, uint64_t end, object make_error) except -1:
        """No reply comes for these slots; what has come of one is dropped."""
        cdef Call* failed = NULL
        self.n_asks = self.first_ask = 0
        self.begin = self.end = self.at = self.needed = 0
        self.left = -1
        self.take_all(end, NULL, &failed)
        return self.call_all(failed, make_error)
