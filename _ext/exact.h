/* Sums of doubles, integers and their squares that are exact; fastserve/aggregations/exact_py.py is the twin.

     m * 2^e                       what lately came, while it fits 126 bits
     digits[lo … hi] base 2^32     all that did not: digit i is worth 2^(32 i - 2176), signed, carried only now and then
     nans, plus, minus             how many values were NaN, +inf, -inf

   The sum is all of it together. Digits go from 2^-2176, beyond the square of the least double, to
   2^2944, beyond what variance works with where tiles are as large as a reader lets them be. */
#ifndef FS_EXACT_H
#define FS_EXACT_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FS_DIGITS 160
#define FS_LOWEST (-2176)

typedef struct {
    __int128 m;
    int64_t e;
    int64_t nans, plus, minus;
    int64_t *digits;    /* FS_DIGITS of them; 0 outside lo … hi */
    int lo, hi;         /* lo > hi: all are 0 */
    uint32_t uncarried; /* additions since digits were below 2^32 */
} fs_exact;

/* A magnitude: the sum of d[i] * 2^(32 i + e), d[n - 1] not 0. */
typedef struct {
    int negative, n;
    int64_t e;
    uint32_t d[FS_DIGITS + 4];
} fs_big;

/* ---- adding ---- */

static inline int fs_exact_init(fs_exact *x) {
    memset(x, 0, sizeof *x);
    x->lo = FS_DIGITS;
    x->hi = -1;
    x->digits = (int64_t *)calloc(FS_DIGITS, sizeof(int64_t));
    return x->digits ? 0 : -1;
}

static inline void fs_exact_reset(fs_exact *x) {
    x->m = 0;
    x->nans = x->plus = x->minus = 0;
    if (x->hi >= x->lo) {
        memset(x->digits + x->lo, 0, (size_t)(x->hi - x->lo + 1) * sizeof(int64_t));
        x->lo = FS_DIGITS;
        x->hi = -1;
        x->uncarried = 0;
    }
}

static inline unsigned __int128 fs_magnitude(__int128 m) {
    return m < 0 ? -(unsigned __int128)m : (unsigned __int128)m;
}

static inline int fs_bits(__int128 m) {
    unsigned __int128 u = fs_magnitude(m);
    uint64_t high = (uint64_t)(u >> 64), low = (uint64_t)u;
    return high ? 128 - __builtin_clzll(high) : low ? 64 - __builtin_clzll(low) : 0;
}

static inline __int128 fs_up(__int128 m, int64_t bits) { return (__int128)((unsigned __int128)m << bits); }

/* Every digit but the highest becomes 0 … 2^32 - 1, that one less than 2^32 in magnitude. */
static inline void fs_carry(fs_exact *x) {
    int i = x->lo;
    for (; i < x->hi || (i == x->hi && i < FS_DIGITS - 1 && llabs(x->digits[i]) >> 32); i++) {
        int64_t over = x->digits[i] >> 32;
        x->digits[i] &= 0xFFFFFFFF;
        x->digits[i + 1] += over;
        if (i == x->hi) x->hi++;
    }
    x->uncarried = 1;
}

/* Put m * 2^e into the digits. */
static inline void fs_spill(fs_exact *x, __int128 m, int64_t e) {
    if (!m) return;
    int at = (int)((e - FS_LOWEST) >> 5), shift = (int)((e - FS_LOWEST) & 31), negative = m < 0, top = at;
    unsigned __int128 u = fs_magnitude(m);
    uint64_t part = ((uint64_t)u & 0xFFFFFFFF) << shift; /* u << shift, 32 bits at a time */
    for (int i = at; part || u; i++) {
        int64_t digit = (int64_t)(part & 0xFFFFFFFF);
        x->digits[i] += negative ? -digit : digit;
        top = i;
        u >>= 32;
        part = (part >> 32) + (((uint64_t)u & 0xFFFFFFFF) << shift);
    }
    if (at < x->lo) x->lo = at;
    if (top > x->hi) x->hi = top;
    if (++x->uncarried >= 1u << 30) fs_carry(x);
}

static inline void fs_exact_add(fs_exact *x, __int128 m, int64_t e) {
    int64_t up = e - x->e;
    if (!m) return;
    if (x->m) {
        if (up >= 0 && up + fs_bits(m) <= 126)
            m = x->m + fs_up(m, up);
        else if (up < 0 && fs_bits(x->m) - up <= 126)
            m = fs_up(x->m, -up) + m, x->e = e;
        else {
            fs_spill(x, x->m, x->e);
            x->e = e;
        }
        e = x->e;
    }
    x->e = e;
    if (fs_bits(m) > 126) {
        fs_spill(x, m, e);
        m = 0;
    }
    x->m = m;
}

/* high:low, less than 2^126. */
static inline void fs_exact_add_words(fs_exact *x, uint64_t high, uint64_t low, int negative, int64_t e) {
    __int128 m = (__int128)((unsigned __int128)high << 64 | low);
    fs_exact_add(x, negative ? -m : m, e);
}

/* Add a value, or its square, `times` times: once, or -1 times what was added before. */
static inline void fs_exact_put_double(fs_exact *x, double value, int squared, int times) {
    uint64_t bits;
    memcpy(&bits, &value, 8);
    int exponent = (int)(bits >> 52 & 0x7FF);
    int64_t m = (int64_t)(bits & 0xFFFFFFFFFFFFF);
    if (exponent == 0x7FF) {
        if (m) x->nans += times;
        else if (squared || !(bits >> 63)) x->plus += times;
        else x->minus += times;
        return;
    }
    if (exponent) m |= (int64_t)1 << 52;
    else exponent = 1;
    if (bits >> 63) m = -m;
    if (squared) fs_exact_add(x, times * ((__int128)m * m), 2 * (exponent - 1075));
    else fs_exact_add(x, times * m, exponent - 1075);
}

static inline void fs_exact_put_int(fs_exact *x, int64_t value, int squared, int times) {
    fs_exact_add(x, times * (squared ? (__int128)value * value : (__int128)value), 0);
}

static inline void fs_exact_add_double(fs_exact *x, double value, int squared) {
    fs_exact_put_double(x, value, squared, 1);
}

static inline void fs_exact_add_int(fs_exact *x, int64_t value, int squared) {
    fs_exact_put_int(x, value, squared, 1);
}

static inline void fs_exact_merge(fs_exact *x, const fs_exact *y) {
    x->nans += y->nans;
    x->plus += y->plus;
    x->minus += y->minus;
    fs_exact_add(x, y->m, y->e);
    if (y->hi < y->lo) return;
    if (x->uncarried + (uint64_t)y->uncarried >= 1u << 30) fs_carry(x);
    for (int i = y->lo; i <= y->hi; i++) x->digits[i] += y->digits[i];
    if (y->lo < x->lo) x->lo = y->lo;
    if (y->hi > x->hi) x->hi = y->hi;
    x->uncarried += y->uncarried;
}

/* ---- looking at it ---- */

static inline int fs_exact_finite(const fs_exact *x) { return !(x->nans | x->plus | x->minus); }

/* The finite values' sum; x stays the same sum. */
static inline void fs_exact_big(fs_exact *x, fs_big *big) {
    big->n = 0;
    big->negative = 0;
    if (x->hi < x->lo) {
        unsigned __int128 u = fs_magnitude(x->m);
        big->e = x->e;
        big->negative = x->m < 0;
        for (; u; u >>= 32) big->d[big->n++] = (uint32_t)u;
        return;
    }
    fs_spill(x, x->m, x->e);
    x->m = 0;
    fs_carry(x);
    int top = x->hi;
    while (top >= x->lo && !x->digits[top]) top--;
    if (top < x->lo) return;
    big->negative = x->digits[top] < 0;
    big->e = FS_LOWEST + 32 * (int64_t)x->lo;
    int64_t over = 0;
    for (int i = x->lo; i <= top; i++) {
        over += big->negative ? -x->digits[i] : x->digits[i];
        big->d[big->n++] = (uint32_t)over;
        over >>= 32;
    }
    while (big->n && !big->d[big->n - 1]) big->n--;
}

/* Whether the finite values' sum is m * 2^e with m in 128 bits, odd or 0: it nearly always is. */
static inline int fs_exact_small(const fs_exact *x, uint64_t m[2], int64_t *e, int *size, int *negative) {
    unsigned __int128 u = fs_magnitude(x->m);
    int zeros;
    if (x->hi >= x->lo) return 0;
    m[0] = m[1] = 0;
    *size = *negative = 0;
    if (!u) return 1;
    zeros = (uint64_t)u ? __builtin_ctzll((uint64_t)u) : 64 + __builtin_ctzll((uint64_t)(u >> 64));
    u >>= zeros;
    m[0] = (uint64_t)u;
    m[1] = (uint64_t)(u >> 64);
    *e = x->e + zeros;
    *size = (fs_bits((__int128)u) + 7) >> 3;
    *negative = x->m < 0;
    return 1;
}

/* `count` bits from bit `from` up, at most 64; bits beyond the number are 0. */
static inline uint64_t fs_big_bits(const fs_big *big, int64_t from, int count) {
    uint64_t out = 0;
    int have = 0;
    while (have < count && (from >> 5) < big->n) {
        int shift = (int)(from & 31);
        out |= (uint64_t)(big->d[from >> 5] >> shift) << have;
        have += 32 - shift;
        from += 32 - shift;
    }
    return count < 64 ? out & (((uint64_t)1 << count) - 1) : out;
}

static inline int64_t fs_big_length(const fs_big *big) {
    return big->n ? 32 * (int64_t)big->n - __builtin_clz(big->d[big->n - 1]) : 0;
}

static inline int64_t fs_big_zeros(const fs_big *big) {
    int i = 0;
    while (!big->d[i]) i++;
    return 32 * (int64_t)i + __builtin_ctz(big->d[i]);
}

/* The nearest double, ties to even. */
static inline double fs_big_round(const fs_big *big) {
    int64_t length = fs_big_length(big), exponent = big->e + length - 1;
    if (!length) return 0.0;
    if (exponent > 1023) return big->negative ? -INFINITY : INFINITY;
    int64_t kept = exponent >= -1022 ? 53 : exponent + 1075, shift = length - kept;
    double out;
    if (kept < 0) out = 0.0;
    else if (shift <= 0) out = ldexp((double)fs_big_bits(big, 0, 64), (int)big->e);
    else {
        uint64_t m = kept ? fs_big_bits(big, shift, (int)kept) : 0;
        uint64_t half = fs_big_bits(big, shift - 1, 1);
        if (half && (m & 1 || fs_big_zeros(big) < shift - 1)) m++;
        out = ldexp((double)m, (int)(big->e + shift));
    }
    return big->negative ? -out : out;
}

static inline double fs_canonical_nan(void) {
    uint64_t bits = 0x7FF8000000000000u;
    double out;
    memcpy(&out, &bits, 8);
    return out;
}

/* Likewise of m * 2^e, if that is known to be far from where doubles are subnormal or infinite. */
static inline int fs_small_round(__int128 m, int64_t e, double *out) {
    unsigned __int128 u = fs_magnitude(m);
    int length = fs_bits(m), shift = length - 53;
    uint64_t kept = (uint64_t)u, scale;
    double power;
    if (!m) return *out = 0.0, 1;
    if (e + length < -900 || e + length > 1000) return 0;
    if (shift > 0) {
        unsigned __int128 below = u & (((unsigned __int128)1 << shift) - 1), half = (unsigned __int128)1 << (shift - 1);
        kept = (uint64_t)(u >> shift);
        kept += below > half || (below == half && (kept & 1));
        e += shift;
    }
    scale = (uint64_t)(e + 1023) << 52;
    memcpy(&power, &scale, 8);
    *out = (m < 0 ? -(double)kept : (double)kept) * power;
    return 1;
}

static inline double fs_exact_round(fs_exact *x) {
    fs_big big;
    double small;
    if (x->nans || (x->plus && x->minus)) return fs_canonical_nan();
    if (x->plus || x->minus) return x->plus ? INFINITY : -INFINITY;
    if (x->hi < x->lo && fs_small_round(x->m, x->e, &small)) return small;
    fs_exact_big(x, &big);
    return fs_big_round(&big);
}

/* The sum of integers, if an int64 can hold it. */
static inline int fs_exact_int64(fs_exact *x, int64_t *out) {
    fs_big big;
    fs_exact_big(x, &big);
    int64_t length = fs_big_length(&big);
    *out = 0;
    if (!length) return 1;
    if (length + big.e > 64) return 0;
    uint64_t u = fs_big_bits(&big, 0, 64) << big.e; /* of integers e is not negative */
    if (u > (uint64_t)INT64_MAX + (big.negative ? 1 : 0)) return 0;
    *out = (int64_t)(big.negative ? 0 - u : u);
    return 1;
}

/* (n * squares - sum^2) / n^2, the numerator rounded once; work is any sum, and lost. */
static inline double fs_variance(fs_exact *squares, fs_exact *sum, int64_t n, fs_exact *work) {
    fs_big q, s;
    if (!fs_exact_finite(sum)) return fs_canonical_nan();
    fs_exact_reset(work);
    fs_exact_big(squares, &q);
    fs_exact_big(sum, &s);
    for (int i = 0; i < q.n; i++) {
        __int128 part = (__int128)q.d[i] * n;
        fs_spill(work, q.negative ? -part : part, q.e + 32 * i);
    }
    for (int i = 0; i < s.n; i++)
        for (int j = 0; j < s.n; j++)
            fs_spill(work, -(__int128)((uint64_t)s.d[i] * s.d[j]), 2 * s.e + 32 * (i + j));
    double numerator = fs_exact_round(work);
    return numerator / (double)((unsigned __int128)n * (unsigned __int128)n);
}

#endif
