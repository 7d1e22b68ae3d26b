/* Division by what is known before: a multiplication. */
#ifndef FS_DIVIDE_H
#define FS_DIVIDE_H

#include <stdint.h>

typedef struct {
    uint64_t magic;
    int shift;
} fs_divisor;

/* 1 <= by <= 2^62. */
static inline fs_divisor fs_divisor_of(uint64_t by) {
    fs_divisor d;
    d.shift = by > 1 ? 64 - __builtin_clzll(by - 1) : 0;
    d.magic = (uint64_t)((((unsigned __int128)1 << (63 + d.shift)) + by - 1) / by);
    return d;
}

/* Of a number below 2^63: exact, for magic * by is less than 2^shift more than 2^(63 + shift). */
static inline uint64_t fs_divide(uint64_t number, fs_divisor d) {
    return (uint64_t)((unsigned __int128)(number << 1) * d.magic >> 64) >> d.shift;
}

#endif
