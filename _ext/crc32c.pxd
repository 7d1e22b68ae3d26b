# CRC-32C and what it covers in a row; header only.

from libc.stdint cimport uint32_t


cdef extern from "crc32c.h" nogil:
    uint32_t fs_crc32c(uint32_t crc, const char* data, size_t size)
    uint32_t fs_crc32c_portable(uint32_t crc, const char* data, size_t size)
    void fs_crc32c_choose()


cdef inline uint32_t row_crc(
    const char* key, Py_ssize_t key_size, const char* row, Py_ssize_t size
) noexcept nogil:
    """Over key ++ row[0:4] ++ row[8:]."""
    cdef uint32_t crc = fs_crc32c(0, key, key_size)
    return fs_crc32c(fs_crc32c(crc, row, 4), row + 8, size - 8)
