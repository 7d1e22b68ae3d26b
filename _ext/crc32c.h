/* CRC-32C (Castagnoli): the SSE4.2 instruction where the CPU has it, else eight tables (slicing-by-8).
   Chainable: fs_crc32c(fs_crc32c(0, a), b) is the CRC of a ++ b. */
#ifndef FS_CRC32C_H
#define FS_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the native codec needs a little-endian machine; install with FASTSERVE_NO_EXTENSIONS=1"
#endif

static uint32_t fs_crc_table[8][256];

static void fs_crc32c_init(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
        fs_crc_table[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int t = 1; t < 8; t++)
            fs_crc_table[t][i] =
                fs_crc_table[t - 1][i] >> 8 ^ fs_crc_table[0][fs_crc_table[t - 1][i] & 0xFF];
}

static uint32_t fs_crc32c_portable(uint32_t crc, const char *data, size_t size) {
    const uint8_t *p = (const uint8_t *)data;
    crc = ~crc;
    for (; size >= 8; size -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        word ^= crc;
        crc = fs_crc_table[7][word & 0xFF] ^ fs_crc_table[6][word >> 8 & 0xFF] ^
              fs_crc_table[5][word >> 16 & 0xFF] ^ fs_crc_table[4][word >> 24 & 0xFF] ^
              fs_crc_table[3][word >> 32 & 0xFF] ^ fs_crc_table[2][word >> 40 & 0xFF] ^
              fs_crc_table[1][word >> 48 & 0xFF] ^ fs_crc_table[0][word >> 56];
    }
    while (size--) crc = crc >> 8 ^ fs_crc_table[0][(crc ^ *p++) & 0xFF];
    return ~crc;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <nmmintrin.h>

__attribute__((target("sse4.2")))
static uint32_t fs_crc32c_sse42(uint32_t crc, const char *data, size_t size) {
    uint64_t state = ~crc;
    for (; size >= 8; size -= 8, data += 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        state = _mm_crc32_u64(state, word);
    }
    if (size & 4) {
        uint32_t word;
        memcpy(&word, data, 4);
        state = _mm_crc32_u32((uint32_t)state, word);
        data += 4;
    }
    for (size &= 3; size; size--) state = _mm_crc32_u8((uint32_t)state, (uint8_t)*data++);
    return ~(uint32_t)state;
}
#endif

static uint32_t (*fs_crc32c)(uint32_t, const char *, size_t) = fs_crc32c_portable;

/* Once, at import, before the first use. */
static void fs_crc32c_choose(void) {
    fs_crc32c_init();
#if defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("sse4.2")) fs_crc32c = fs_crc32c_sse42;
#endif
}

#endif
