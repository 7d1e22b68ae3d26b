/* Sums of the first 0, 1, 2 … values, exact, so that the sum of a range is the difference of two; window_bases.pxd has them.

     values       0.5  6.25  -1     =  2  25  -4   * 2^-2
     sums      0    2    27   23    * 2^-2             the last two values:  23 - 2 = 21 * 2^-2 = 5.25

   They are integers of 128 bits, all times one power of 2: those of doubles fit if these are of about one size. */
#ifndef FS_WINDOW_SUMS_H
#define FS_WINDOW_SUMS_H

#include "exact.h"

typedef struct {
    __int128 *sums;  /* one more than there are values */
    int64_t e;       /* times 2^e */
    int low, high;   /* exponents of the doubles that are not 0, as their bits have them */
    uint64_t bits;   /* of any integer's magnitude */
} fs_sums;

static inline void fs_sums_begin(fs_sums *s) {
    s->low = 0x7FF;
    s->high = 0;
    s->bits = 0;
}

static inline uint64_t fs_double_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, 8);
    return bits;
}

static inline int fs_exponent(uint64_t bits) {
    int exponent = (int)(bits >> 52 & 0x7FF);
    return exponent ? exponent : 1;
}

static inline void fs_sums_see_double(fs_sums *s, double value) {
    uint64_t bits = fs_double_bits(value);
    int exponent = fs_exponent(bits);
    if (exponent > s->high) s->high = exponent;
    if (exponent < s->low && bits << 1) s->low = exponent;
}

static inline void fs_sums_see_int(fs_sums *s, int64_t value) {
    s->bits |= value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
}

static inline int64_t fs_length(uint64_t bits) { return bits ? 64 - __builtin_clzll(bits) : 0; }

/* Whether n values, or squares, as were seen make sums that fit; a NaN or an infinity never does. */
static inline int fs_sums_fit(fs_sums *s, int64_t n, int is_double, int squared) {
    int64_t each = is_double ? s->high - s->low + 53 : fs_length(s->bits);
    if (is_double && s->high == 0x7FF) return 0;
    if (is_double && s->low > s->high) s->low = s->high, each = 0; /* all are 0 */
    s->e = is_double ? (1 + squared) * (int64_t)(s->low - 1075) : 0;
    return (1 + squared) * each + fs_length((uint64_t)n) <= 126;
}

static inline void fs_sums_put(fs_sums *s, int64_t i, __int128 m, int squared) {
    s->sums[i + 1] = s->sums[i] + (squared ? m * m : m);
}

static inline void fs_sums_put_double(fs_sums *s, int64_t i, double value, int squared) {
    uint64_t bits = fs_double_bits(value);
    int64_t m = (int64_t)(bits & 0xFFFFFFFFFFFFF);
    if (bits >> 52 & 0x7FF) m |= (int64_t)1 << 52;
    if (!m) fs_sums_put(s, i, 0, 0);
    else fs_sums_put(s, i, fs_up(bits >> 63 ? -m : m, fs_exponent(bits) - s->low), squared);
}

static inline void fs_sums_put_int(fs_sums *s, int64_t i, int64_t value, int squared) {
    fs_sums_put(s, i, value, squared);
}

/* x becomes the sum of values first … stop - 1. */
static inline void fs_sums_take(const fs_sums *s, int64_t first, int64_t stop, fs_exact *x) {
    fs_exact_reset(x);
    x->m = s->sums[stop] - s->sums[first];
    x->e = s->e;
}

#endif
