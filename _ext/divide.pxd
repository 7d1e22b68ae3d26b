# Division by what is known before, see divide.h; header only.

from libc.stdint cimport uint64_t


cdef extern from "divide.h" nogil:
    ctypedef struct Divisor "fs_divisor":
        pass

    Divisor divisor_of "fs_divisor_of"(uint64_t by)
    uint64_t divide "fs_divide"(uint64_t number, Divisor d)
