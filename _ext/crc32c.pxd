# CRC-32C and what it covers in a row; header only.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t


cdef extern from "crc32c.h" nogil:
    uint32_t fs_crc32c(uint32_t crc, const char* data, size_t size)
    uint32_t fs_crc32c_portable(uint32_t crc, const char* data, size_t size)
    void fs_crc32c_choose()


cdef inline uint32_t row_crc(bytes key, const char* row, Py_ssize_t size) noexcept:
    """Over key ++ row[0:4] ++ row[8:]."""
    cdef uint32_t crc = fs_crc32c(0, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
    return fs_crc32c(fs_crc32c(crc, row, 4), row + 8, size - 8)
