"""The bytes of Redis writes and what their replies come to; fastserve/online/resp_write_py.py is the twin.

Keys and rows go from the batch's memory into the command, copied once. Replies are read by the line where
they lie: of each only its first byte and, of few, a number counts.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memmove

from buffers cimport Buffer, put, release, reserve
from read_batch cimport FOUND, Batch, batch_of, key_at, key_size

from fastserve.errors import CodecError

cdef enum:
    MAX_LINE = 4096
    CAPACITY = 64 * 1024
    MAX_PACKED = 0xFFFF         # bytes of a key in a change message


# ---- commands ----------------------------------------------------------------------------------


cdef inline int digits_of(uint64_t number, char* text) noexcept nogil:
    """Decimal digits, at the end of text's 20 bytes; returns how many."""
    cdef int at = 20
    while True:
        at -= 1
        text[at] = <char> (c"0" + number % 10)
        number //= 10
        if number == 0:
            return 20 - at


cdef inline int put_head(Buffer* out, char marker, uint64_t number) except -1:
    """<marker><number>\\r\\n"""
    cdef char[20] text
    cdef int n = digits_of(number, text)
    reserve(out, 23)
    out.data[out.size] = marker
    memcpy(out.data + out.size + 1, text + 20 - n, n)
    out.data[out.size + n + 1], out.data[out.size + n + 2] = c"\r", c"\n"
    out.size += n + 3
    return 0


cdef inline int put_bulk(Buffer* out, const char* data, Py_ssize_t size) except -1:
    put_head(out, c"$", size)
    reserve(out, size + 2)
    memcpy(out.data + out.size, data, size)
    out.data[out.size + size], out.data[out.size + size + 1] = c"\r", c"\n"
    out.size += size + 2
    return 0


cdef inline int put_text(Buffer* out, bytes text) except -1:
    return put_bulk(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef inline int put_number(Buffer* out, uint64_t number) except -1:
    """A number as an argument."""
    cdef char[20] text
    cdef int n = digits_of(number, text)
    return put_bulk(out, text + 20 - n, n)


cdef Py_ssize_t packed_size(const Batch* batch, Py_ssize_t start, Py_ssize_t stop) noexcept:
    """Of the change message of these keys."""
    cdef Py_ssize_t i, size, total = 0
    for i in range(start, stop):
        size = key_size(batch, i)
        if size <= MAX_PACKED:
            total += 2 + size
    return total


cdef int put_packed(Buffer* out, const Batch* batch, Py_ssize_t start, Py_ssize_t stop) except -1:
    """The change message of these keys."""
    cdef Py_ssize_t i, size
    cdef char[2] length
    for i in range(start, stop):
        size = key_size(batch, i)
        if size <= MAX_PACKED:
            length[0], length[1] = <char> (size & 0xFF), <char> (size >> 8)
            put(out, length, 2)
            put(out, key_at(batch, i), size)
    return 0


cdef int put_message(Buffer* out, const Batch* batch, Py_ssize_t start, Py_ssize_t stop) except -1:
    """The change message of these keys, as an argument."""
    put_head(out, c"$", packed_size(batch, start, stop))
    put_packed(out, batch, start, stop)
    return put(out, b"\r\n", 2)


cdef Batch* rows_of(object batch, Py_ssize_t start, Py_ssize_t stop) except NULL:
    """The Batch, its range checked: each of these keys has a row."""
    cdef Batch* rows = batch_of(batch)
    cdef Py_ssize_t i
    if not 0 <= start <= stop <= rows.n:
        raise IndexError(f"rows {start} to {stop} of {rows.n}")
    for i in range(start, stop):
        if rows.rows[i].state != FOUND:
            raise CodecError(f"row {i} is not there")
    return rows


cdef inline int reserve_rows(Buffer* out, const Batch* rows, Py_ssize_t start, Py_ssize_t stop) except -1:
    """Room for keys and rows, about, so that the buffer hardly grows."""
    cdef Py_ssize_t i, size = 1024
    for i in range(start, stop):
        size += rows.rows[i].size + 2 * key_size(rows, i) + 60
    return reserve(out, size)


cdef const int64_t[::1] lives_of(object px, Py_ssize_t n):
    cdef const int64_t[::1] lives
    if px is None:
        return None
    lives = px
    if lives.shape[0] != n:
        raise IndexError(f"{lives.shape[0]} lifetimes for {n} rows")
    return lives


def rows_end(batch, Py_ssize_t start, Py_ssize_t max_keys, Py_ssize_t max_bytes):
    cdef Batch* rows = batch_of(batch)
    cdef Py_ssize_t size = 0, end = start
    while end < rows.n and end - start < max_keys:
        size += rows.rows[end].size
        if end > start and size > max_bytes:
            break
        end += 1
    return end


def encode_script(head, batch, Py_ssize_t start, Py_ssize_t stop, px, bytes channel):
    cdef Batch* rows = rows_of(batch, start, stop)
    cdef const int64_t[::1] lives = lives_of(px, rows.n)
    cdef Py_ssize_t i, n = stop - start
    cdef Buffer out = Buffer(NULL, 0, 0)
    try:
        reserve_rows(&out, rows, start, stop)
        put_head(&out, c"*", len(head) + 1 + 2 * n + 2 + (n if lives is not None else 0))
        for text in head:
            put_text(&out, text)
        put_number(&out, n)
        for i in range(start, stop):
            put_bulk(&out, key_at(rows, i), key_size(rows, i))
        for i in range(start, stop):
            put_bulk(&out, rows.rows[i].data, rows.rows[i].size)
        put_text(&out, channel)
        put_message(&out, rows, start, stop)
        if lives is not None:
            for i in range(start, stop):
                put_number(&out, lives[i])
        return PyBytes_FromStringAndSize(out.data, out.size)
    finally:
        release(&out)


def encode_fresh(batch, Py_ssize_t start, Py_ssize_t stop, px, bytes channel):
    cdef Batch* rows = rows_of(batch, start, stop)
    cdef const int64_t[::1] lives = lives_of(px, rows.n)
    cdef Py_ssize_t i
    cdef Buffer out = Buffer(NULL, 0, 0)
    try:
        reserve_rows(&out, rows, start, stop)
        put(&out, b"*1\r\n$5\r\nMULTI\r\n", 15)
        if lives is None:
            put_head(&out, c"*", 1 + 2 * (stop - start))
            put(&out, b"$6\r\nMSETNX\r\n", 12)
        for i in range(start, stop):
            if lives is not None:
                put_head(&out, c"*", 6 if lives[i] else 4)
                put(&out, b"$3\r\nSET\r\n", 9)
            put_bulk(&out, key_at(rows, i), key_size(rows, i))
            put_bulk(&out, rows.rows[i].data, rows.rows[i].size)
            if lives is not None:
                put(&out, b"$2\r\nNX\r\n", 8)
                if lives[i]:
                    put(&out, b"$2\r\nPX\r\n", 8)
                    put_number(&out, lives[i])
        put(&out, b"*3\r\n$7\r\nPUBLISH\r\n", 17)
        put_text(&out, channel)
        put_message(&out, rows, start, stop)
        put(&out, b"*1\r\n$4\r\nEXEC\r\n", 14)
        return PyBytes_FromStringAndSize(out.data, out.size)
    finally:
        release(&out)


def encode_command(words, batches, *, bint rows):
    cdef Buffer out = Buffer(NULL, 0, 0)
    cdef Batch* batch
    cdef Py_ssize_t i, n = len(words)
    for each in batches:
        batch = batch_of(each)
        n += batch.n * (1 + rows)
        if rows:
            rows_of(each, 0, batch.n)
    try:
        put_head(&out, c"*", n)
        for word in words:
            put_text(&out, word)
        for each in batches:
            batch = batch_of(each)
            reserve_rows(&out, batch, 0, batch.n)
            for i in range(batch.n):
                put_bulk(&out, key_at(batch, i), key_size(batch, i))
                if rows:
                    put_bulk(&out, batch.rows[i].data, batch.rows[i].size)
        return PyBytes_FromStringAndSize(out.data, out.size)
    finally:
        release(&out)


def encode_publish(bytes channel, batches):
    cdef Buffer out = Buffer(NULL, 0, 0)
    cdef Batch* batch
    cdef Py_ssize_t size = 0
    for each in batches:
        batch = batch_of(each)
        size += packed_size(batch, 0, batch.n)
    try:
        put(&out, b"*3\r\n$7\r\nPUBLISH\r\n", 17)
        put_text(&out, channel)
        put_head(&out, c"$", size)
        for each in batches:
            batch = batch_of(each)
            put_packed(&out, batch, 0, batch.n)
        put(&out, b"\r\n", 2)
        return PyBytes_FromStringAndSize(out.data, out.size)
    finally:
        release(&out)


# ---- replies -----------------------------------------------------------------------------------


@cython.final
cdef class Replies:
    """See the twin."""

    cdef char[CAPACITY] data
    cdef Py_ssize_t begin, end
    cdef Py_ssize_t lines       # of the command that is being answered
    cdef int64_t done
    cdef object error           # the first one among them
    cdef bint broken

    @property
    def rest(self):
        return self.end - self.begin

    def clear(self):
        self.begin = self.end = 0
        self.start()

    cdef void start(self) noexcept:
        self.lines, self.done, self.error, self.broken = 0, 0, None, False

    def get_buffer(self, sizehint):
        memmove(self.data, self.data + self.begin, self.end - self.begin)
        self.begin, self.end = 0, self.end - self.begin
        return PyMemoryView_FromMemory(self.data + self.end, CAPACITY - self.end, PyBUF_WRITE)

    def buffer_updated(self, Py_ssize_t size):
        self.end += size

    def take(self, Py_ssize_t queued):
        cdef Py_ssize_t wanted = 2 * queued + 2 if queued else 1
        cdef Py_ssize_t size
        cdef const char* line
        while self.lines < wanted:
            size = self.next_line(&line)
            if size < 0:
                return None
            self.lines += 1
            if line[0] == c"-":
                if self.error is None:
                    self.error = line[1:size].decode("utf-8", "replace")
                if self.lines == queued + 2:
                    break       # EXEC was refused: there are no elements
            elif not self.fits(line, size, queued):
                self.broken = True
        error, done, broken = self.error, self.done, self.broken
        self.start()
        if error is not None:
            return error
        if broken:
            raise CodecError("these are no replies to what was sent")
        return done

    cdef Py_ssize_t next_line(self, const char** line) except -2:
        """The size of the next line, without its end; -1 when it is not whole."""
        cdef Py_ssize_t come = self.end - self.begin, size
        cdef char* start = self.data + self.begin
        cdef char* found = start - 1
        while True:
            found = <char*> memchr(found + 1, c"\r", start + come - found - 1)
            size = come if found == NULL else found - start
            if size > MAX_LINE:
                raise CodecError("a line has no end")
            if found == NULL or found + 1 == start + come:
                return -1
            if found[1] == c"\n":
                break
        if size == 0 or memchr(b"+-:$*", start[0], 5) == NULL:
            raise CodecError("no reply begins like this")
        line[0] = start
        self.begin += size + 2
        return size

    cdef bint fits(self, const char* line, Py_ssize_t size, Py_ssize_t queued) noexcept:
        """Count a line that is no error; whether it may stand where it does."""
        cdef int64_t number = 0
        if queued and self.lines <= queued + 1:
            return line[0] == c"+"
        if queued and self.lines == queued + 2:
            return line[0] == c"*" and parse_decimal(line, size, &number) and number == queued
        if queued and self.lines == 2 * queued + 2:
            return True         # how many PUBLISH reached
        if queued and line[0] == c"+":
            self.done += 1
            return True
        if queued and size == 3 and memcmp(line, b"$-1", 3) == 0:
            return True
        if line[0] != c":" or not parse_decimal(line, size, &number):
            return False
        self.done += number
        return True


cdef inline bint parse_decimal(const char* line, Py_ssize_t size, int64_t* number) noexcept nogil:
    """What follows a line's marker, at most ten digits."""
    cdef Py_ssize_t i
    if not 2 <= size <= 11:
        return False
    for i in range(1, size):
        if not c"0" <= line[i] <= c"9":
            return False
        number[0] = number[0] * 10 + (line[i] - c"0")
    return True
