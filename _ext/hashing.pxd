# The hash of keys' bytes, for every table of them; header only.
from libc.stdint cimport uint64_t

cdef extern from * nogil:
    """
    #include <stdint.h>
    #include <string.h>
    /* Multiply and fold, 8 bytes a step (wyhash's idea); never stored or sent. The last step brings
       middle bits down to the low ones, where tables look: those of one fold alone crowd for some seeds, since the
       changing digits of short keys are the upper bytes of a word. */
    static inline uint64_t fs_fold(uint64_t a, uint64_t b) {
        __uint128_t p = (__uint128_t) a * b;
        return (uint64_t) p ^ (uint64_t) (p >> 64);
    }
    static inline uint64_t fs_hash(uint64_t seed, const char *data, size_t size) {
        uint64_t h = seed ^ size, w;
        while (size > 8) {
            memcpy(&w, data, 8);
            h = fs_fold(h ^ w, 0x9E3779B97F4A7C15u);
            data += 8;
            size -= 8;
        }
        /* The rest, 0 to 8 bytes, without a call: two words that overlap, or its first, middle and last byte. */
        if (size >= 4) {
            uint32_t first, last;
            memcpy(&first, data, 4);
            memcpy(&last, data + size - 4, 4);
            w = (uint64_t) first << 32 | last;
        } else if (size) {
            const uint8_t *bytes = (const uint8_t *) data;
            w = (uint64_t) bytes[0] << 16 | bytes[size >> 1] << 8 | bytes[size - 1];
        } else {
            w = 0;
        }
        h = fs_fold(h ^ w ^ 0xA0761D6478BD642Fu, 0xE7037ED1A0B428DBu);
        return h ^ h >> 24;
    }
    """
    uint64_t fs_hash(uint64_t seed, const char* data, size_t size)
