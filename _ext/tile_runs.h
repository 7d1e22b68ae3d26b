/* Plain states, which are counts, sums, minima and maxima, of runs of events as bytes of docs/tile-format.md.

   part     some keys' events, by key and unit of time; in columns
   run      the events of a key and a tile: nearly always one, or few
   slot     what a run of this one event is: made for all events of a part at once, and copied into each level's tile

   Sums are made in 128 bits. Where that is not enough, for an infinity or for numbers too far apart, the answer is
   NULL, and tile_states.pxd does it. */
#ifndef FS_TILE_RUNS_H
#define FS_TILE_RUNS_H

#include <stddef.h>
#include <string.h>

#include "divide.h"

#define FS_SLACK 16 /* bytes beyond what is put that may be written over */
#define FS_SUM_BITS 126

typedef __int128 fs_wide;

enum fs_plain_kind { FS_EVENTS, FS_VALUES, FS_SUM_INTS, FS_SUM_FLOATS, FS_LEAST, FS_MOST };

/* A state, and its column of the part at hand. */
typedef struct {
    int kind;
    int bytes;             /* of a minimum or maximum */
    const int64_t *keys;   /* Value.key; 0 for null */
    const int64_t *m;      /* FS_SUM_FLOATS: each value is m * 2^(e - 1075); 0 for null */
    const int16_t *e;
    int unit;              /* all m * 2^e of the part are sums of 2^unit that 126 bits hold; 0 if they are not */
    const int64_t *words;  /* FS_LEAST, FS_MOST: the values' bytes */
    const uint8_t *absent; /* 1 for null; NULL: there is none */
} fs_plain;

typedef struct {
    int n_states;
    const fs_plain *states;
    int64_t hop, span;
    int64_t first;    /* the tile that is counted from */
    uint64_t rest;    /* units from where it begins to the part's origin */
    uint64_t ratio;   /* units in a tile */
    fs_divisor by_ratio, by_hop;
    size_t width;     /* of a slot */
    const char *slots;
    const uint16_t *used; /* bytes of a slot */
} fs_plain_level;

/* ---- numbers ---- */

static inline char *fs_put_uint(char *out, uint64_t value) {
    for (; value >= 0x80; value >>= 7) *out++ = (char)(value | 0x80);
    *out++ = (char)value;
    return out;
}

static inline char *fs_put_int(char *out, int64_t value) {
    return fs_put_uint(out, (uint64_t)value << 1 ^ (uint64_t)(value >> 63));
}

static inline int fs_bytes_of(uint64_t value) { return (71 - __builtin_clzll(value | 1)) >> 3; }

/* high:low * 2^e, not 0, as put_exact of exact.pxd writes it; at most 20 bytes. */
static inline char *fs_put_words(char *out, uint64_t high, uint64_t low, int negative, int64_t e) {
    int zeros, size;
    if (!low) low = high, high = 0, e += 64;
    zeros = __builtin_ctzll(low);
    low = low >> zeros | high << 1 << (63 - zeros);
    high >>= zeros;
    size = high ? 8 + fs_bytes_of(high) : fs_bytes_of(low);
    *out++ = (char)(size << 2 | negative << 1);
    out = fs_put_int(out, e + zeros);
    memcpy(out, &low, 8);
    if (high) memcpy(out + 8, &high, 8);
    return out + size;
}

static inline char *fs_put_wide(char *out, fs_wide sum, int64_t e) {
    unsigned __int128 m = sum < 0 ? -(unsigned __int128)sum : (unsigned __int128)sum;
    if (m) return fs_put_words(out, (uint64_t)(m >> 64), (uint64_t)m, sum < 0, e);
    *out = 0;
    return out + 1;
}

/* float64s, given as bits, as m and e. A zero's e is FS_NO_E: above all as it is, and below all without that bit. */
#define FS_NO_E 0x800
static inline void fs_split(const uint64_t *restrict bits, size_t n, int64_t *restrict m, int16_t *restrict e) {
    for (size_t i = 0; i < n; i++) {
        uint64_t exponent = bits[i] >> 52 & 0x7FF, normal = exponent != 0;
        int64_t sign = (int64_t)bits[i] >> 63;
        m[i] = ((int64_t)((bits[i] & 0xFFFFFFFFFFFFF) | normal << 52) ^ sign) - sign;
        e[i] = (int16_t)((exponent + !normal) | (bits[i] << 1 ? 0 : FS_NO_E)) & (bits[i] << 1 ? 0x7FF : FS_NO_E);
    }
}

/* The unit for sums of up to n such; 0 where they are too far apart. */
static inline int fs_unit_of(const int16_t *e, size_t n) {
    int16_t least = FS_NO_E, most = 0;
    for (size_t i = 0; i < n; i++) {
        int16_t high = e[i] & (FS_NO_E - 1);
        least = e[i] < least ? e[i] : least;
        most = high > most ? high : most;
    }
    return most - least + 53 + (64 - __builtin_clzll(n | 1)) > FS_SUM_BITS ? 0 : least;
}

/* A float64 that is finite. */
static inline char *fs_put_double(char *out, int64_t m, int e) {
    uint64_t u = m < 0 ? 0 - (uint64_t)m : (uint64_t)m;
    int zeros, size;
    if (!u) {
        *out = 0;
        return out + 1;
    }
    zeros = __builtin_ctzll(u);
    u >>= zeros;
    size = fs_bytes_of(u);
    *out++ = (char)(size << 2 | (m < 0) << 1);
    out = fs_put_int(out, e - 1075 + zeros);
    memcpy(out, &u, 8);
    return out + size;
}

/* m << bits, for bits < 128: words of 64 bits take a CPU less than one of 128. */
static inline fs_wide fs_up_wide(int64_t m, int bits) {
    int some = bits & 63;
    uint64_t low = (uint64_t)m << some, high = (uint64_t)(m >> (63 - some) >> 1);
    return (fs_wide)((unsigned __int128)(bits & 64 ? low : high) << 64 | (bits & 64 ? 0 : low));
}

static inline char *fs_put_sum_of_floats(char *out, const fs_plain *state, size_t start, size_t stop) {
    int unit = state->unit ? state->unit : fs_unit_of(state->e + start, stop - start);
    fs_wide sum = 0;
    if (!unit) return NULL;
    for (size_t i = start; i < stop; i++) sum += fs_up_wide(state->m[i], (state->e[i] - unit) & 127);
    return fs_put_wide(out, sum, unit - 1075);
}

static inline char *fs_put_sum_of_ints(char *out, const int64_t *values, size_t n) {
    fs_wide sum = 0;
    for (size_t i = 0; i < n; i++) sum += values[i];
    return fs_put_wide(out, sum, 0);
}

/* ---- slots ---- */

/* The state of each event by itself, after those before it. An infinity or NaN is put as anything: its key is odd. */
static inline void fs_fill_slots(
    const fs_plain *state, size_t n, char *restrict slots, size_t width, uint16_t *restrict used
) {
    const uint8_t *absent = state->absent;
    const int64_t *words = state->words;
    int bytes = state->bytes;
    if (state->kind == FS_EVENTS || (state->kind == FS_VALUES && !absent))
        for (size_t i = 0; i < n; i++) slots[i * width + used[i]++] = 1;
    else if (state->kind == FS_VALUES)
        for (size_t i = 0; i < n; i++) slots[i * width + used[i]++] = !absent[i];
    else if (state->kind == FS_SUM_INTS)
        for (size_t i = 0; i < n; i++) {
            char *slot = slots + i * width;
            used[i] = (uint16_t)(fs_put_wide(slot + used[i], state->keys[i], 0) - slot);
        }
    else if (state->kind == FS_SUM_FLOATS)
        for (size_t i = 0; i < n; i++) {
            char *slot = slots + i * width;
            used[i] = (uint16_t)(fs_put_double(slot + used[i], state->m[i], state->e[i]) - slot);
        }
    else
        for (size_t i = 0; i < n; i++) {
            char *at = slots + i * width + used[i];
            int there = !absent || !absent[i];
            at[0] = (char)there;
            memcpy(at + 1, &words[i], 8);
            used[i] = (uint16_t)(used[i] + 1 + (there ? bytes : 0));
        }
}

/* ---- runs ---- */

/* No branch on how values compare: that cannot be foretold. */
static inline char *fs_put_extreme(char *out, const fs_plain *state, size_t start, size_t stop) {
    const int64_t *keys = state->keys;
    const uint8_t *absent = state->absent;
    int64_t way = state->kind == FS_MOST ? 0 : -1, most = INT64_MIN; /* a minimum is a maximum of complements */
    size_t best = start;
    for (; absent && best < stop && absent[best]; best++) continue;
    *out++ = best != stop;
    if (best == stop) return out;
    for (size_t i = best; i < stop; i++) {
        int64_t key = absent && absent[i] ? INT64_MIN : keys[i] ^ way;
        best = key > most ? i : best;
        most = key > most ? key : most;
    }
    memcpy(out, &state->words[best], 8);
    return out + state->bytes;
}

/* Of more than one event; NULL where a sum is not made here. */
static char *fs_put_run(char *out, const fs_plain_level *level, size_t start, size_t stop) {
    for (int s = 0; s < level->n_states && out; s++) {
        const fs_plain *state = &level->states[s];
        size_t count = stop - start;
        if (state->kind == FS_SUM_FLOATS) out = fs_put_sum_of_floats(out, state, start, stop);
        else if (state->kind == FS_SUM_INTS) out = fs_put_sum_of_ints(out, state->keys + start, count);
        else if (state->kind == FS_LEAST || state->kind == FS_MOST) out = fs_put_extreme(out, state, start, stop);
        else {
            if (state->kind == FS_VALUES && state->absent)
                for (size_t i = start; i < stop; i++) count -= state->absent[i];
            out = fs_put_uint(out, count);
        }
    }
    return out;
}

/* A level of a key, whose events are start … stop: how many tiles, and these; but for those before the longest window.
   `out` has FS_SLACK bytes of room more than they are; NULL as above. */
static inline char *fs_put_tiles(
    char *out, const fs_plain_level *level, const uint32_t *unit, size_t start, size_t stop, int64_t newest
) {
    int64_t tail = newest - level->span - level->first * level->hop;
    uint64_t before = 0, count = 0, oldest = tail > 0 ? fs_divide((uint64_t)tail, level->by_hop) : 0;
    char *head = out++;
    while (start < stop && level->rest + unit[start] < oldest * level->ratio) start++;
    while (start < stop) {
        uint64_t tile = fs_divide(level->rest + unit[start], level->by_ratio);
        uint64_t end = (tile + 1) * level->ratio - level->rest;
        size_t i = start + 1;
        while (i < stop && unit[i] < end) i++;
        if (count++) out = fs_put_uint(out, tile - before);
        else out = fs_put_int(out, level->first + (int64_t)tile);
        if (i == start + 1) {
            const char *slot = level->slots + start * level->width;
            size_t size = level->used[start];
            for (size_t at = 0; at < size; at += 16) memcpy(out + at, slot + at, 16);
            out += size;
        } else if (!(out = fs_put_run(out, level, start, i))) return NULL;
        before = tile;
        start = i;
    }
    if (count >= 0x80) {
        char number[10];
        size_t more = (size_t)(fs_put_uint(number, count) - number) - 1;
        memmove(head + 1 + more, head + 1, (size_t)(out - head - 1));
        memcpy(head, number, more + 1);
        return out + more;
    }
    *head = (char)count;
    return out;
}

#endif
