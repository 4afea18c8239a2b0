/* AVX-512 without the processor: SIMDe's portable intrinsics, and those that it lacks. Included by force before the
 * AVX-512 kernels with GLAUBER_EMULATE_AVX512, so that tests run their code on any machine. Far slower than the plain
 * kernels, and only the values are the same.
 */
#ifndef GLAUBER_EMULATE_AVX512_H
#define GLAUBER_EMULATE_AVX512_H

#pragma GCC diagnostic ignored "-Wpedantic"

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/gfni.h>
#include <stdint.h>
#include <string.h>

/* A function of one vector or two, element by element. */
#define EMULATE(name, Result, result_type, A, a_type, n, expression)                                                   \
    static inline Result name(A a) {                                                                                   \
        a_type x[n];                                                                                                   \
        result_type r[n];                                                                                              \
        Result out;                                                                                                    \
        memcpy(x, &a, sizeof x);                                                                                       \
        for (int i = 0; i < (n); i++) {                                                                                \
            r[i] = (result_type)(expression);                                                                          \
        }                                                                                                              \
        memcpy(&out, r, sizeof out);                                                                                   \
        return out;                                                                                                    \
    }

EMULATE(emulated_cvtepi32_epi64, __m512i, int64_t, __m256i, int32_t, 8, x[i])
EMULATE(emulated_cvtepu32_epi64, __m512i, uint64_t, __m256i, uint32_t, 8, x[i])
EMULATE(emulated_cvtepu8_epi16, __m512i, uint16_t, __m256i, uint8_t, 32, x[i])
EMULATE(emulated_cvtepu8_epi32, __m512i, uint32_t, __m128i, uint8_t, 16, x[i])
EMULATE(emulated_cvtepi16_epi32, __m512i, int32_t, __m256i, int16_t, 16, x[i])
EMULATE(emulated_cvtepi32_epi16, __m256i, int16_t, __m512i, int32_t, 16, x[i])
EMULATE(emulated_cvtepi32_epi8, __m128i, int8_t, __m512i, int32_t, 16, x[i])
EMULATE(emulated_cvtepu64_pd, __m512d, double, __m512i, uint64_t, 8, x[i])
EMULATE(emulated_cvttpd_epu64, __m512i, uint64_t, __m512d, double, 8, x[i])
/* A processor's own is off by up to 2^-14; so is this. */
EMULATE(emulated_rcp14_pd, __m512d, double, __m512d, double, 8, (i % 2 ? 1 - 0x1p-14 : 1 + 0x1p-14) / x[i])

static inline __m512i emulated_maskz_loadu_epi32(uint16_t mask, const void *from) {
    __m512i r;
    int32_t x[16] = {0};
    for (int i = 0; i < 16; i++) { /* lanes outside the mask may not be readable */
        if ((mask >> i) & 1) {
            memcpy(x + i, (const uint8_t *)from + 4 * i, 4);
        }
    }
    memcpy(&r, x, sizeof r);
    return r;
}

static inline __m512i emulated_mulhi_epu16(__m512i a, __m512i b) {
    uint16_t x[32];
    uint16_t y[32];
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    for (int i = 0; i < 32; i++) {
        x[i] = (uint16_t)(((uint32_t)x[i] * y[i]) >> 16);
    }
    memcpy(&a, x, sizeof x);
    return a;
}

static inline __m512i emulated_mask_sub_epi16(__m512i src, uint32_t mask, __m512i a, __m512i b) {
    uint16_t s[32];
    uint16_t x[32];
    uint16_t y[32];
    memcpy(s, &src, sizeof s);
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    for (int i = 0; i < 32; i++) {
        s[i] = (mask >> i) & 1 ? (uint16_t)(x[i] - y[i]) : s[i];
    }
    memcpy(&src, s, sizeof s);
    return src;
}

static inline __m512i emulated_sll(__m512i a, __m128i by, int bits) {
    uint16_t x[32];
    uint64_t count;
    memcpy(x, &a, sizeof x);
    memcpy(&count, &by, sizeof count);
    for (int i = 0; i < 32; i++) {
        x[i] = (uint16_t)(count >= (uint64_t)bits ? 0 : x[i] << count);
    }
    memcpy(&a, x, sizeof x);
    return a;
}

static inline __m512i emulated_srl_epi32(__m512i a, __m128i by) {
    uint32_t x[16];
    uint64_t count;
    memcpy(x, &a, sizeof x);
    memcpy(&count, &by, sizeof count);
    for (int i = 0; i < 16; i++) {
        x[i] = count >= 32 ? 0 : x[i] >> count;
    }
    memcpy(&a, x, sizeof x);
    return a;
}

static inline uint8_t emulated_cmplt_epu64_mask(__m512i a, __m512i b) {
    uint64_t x[8];
    uint64_t y[8];
    uint8_t mask = 0;
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    for (int i = 0; i < 8; i++) {
        mask = (uint8_t)(mask | (x[i] < y[i]) << i);
    }
    return mask;
}

static inline uint16_t emulated_cmple_epi32_mask(__m512i a, __m512i b) {
    int32_t x[16];
    int32_t y[16];
    uint16_t mask = 0;
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    for (int i = 0; i < 16; i++) {
        mask = (uint16_t)(mask | (x[i] <= y[i]) << i);
    }
    return mask;
}

static inline uint16_t emulated_test_epi8_mask(__m128i a, __m128i b) {
    uint8_t x[16];
    uint8_t y[16];
    uint16_t mask = 0;
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    for (int i = 0; i < 16; i++) {
        mask = (uint16_t)(mask | ((x[i] & y[i]) != 0) << i);
    }
    return mask;
}

static inline __m512i emulated_mask_add_epi64(__m512i src, uint8_t mask, __m512i a, __m512i b) {
    uint64_t s[8];
    uint64_t x[8];
    uint64_t y[8];
    memcpy(s, &src, sizeof s);
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    for (int i = 0; i < 8; i++) {
        s[i] = (mask >> i) & 1 ? x[i] + y[i] : s[i];
    }
    memcpy(&src, s, sizeof s);
    return src;
}

static inline __m512i emulated_alignr_epi64(__m512i a, __m512i b, int n) {
    uint64_t both[16];
    memcpy(both, &b, sizeof b);
    memcpy(both + 8, &a, sizeof a);
    memcpy(&a, both + n, sizeof a);
    return a;
}

/* n numbers of `size` bytes, at indices of `width` bytes. */
static inline void emulated_gather(const void *index, int width, int n, const void *base, int scale, int size, void *out) {
    for (int i = 0; i < n; i++) {
        int64_t at = 0;
        int32_t narrow;
        if (width == 4) {
            memcpy(&narrow, (const char *)index + 4 * i, sizeof narrow);
            at = narrow;
        } else {
            memcpy(&at, (const char *)index + 8 * i, sizeof at);
        }
        memcpy((char *)out + size * i, (const char *)base + at * scale, (size_t)size);
    }
}

static inline __m512i emulated_i32gather_epi32(__m512i index, const void *base, int scale) {
    __m512i out;
    emulated_gather(&index, 4, 16, base, scale, 4, &out);
    return out;
}

static inline __m512i emulated_i32gather_epi64(__m256i index, const void *base, int scale) {
    __m512i out;
    emulated_gather(&index, 4, 8, base, scale, 8, &out);
    return out;
}

static inline __m256i emulated_i64gather_epi32(__m512i index, const void *base, int scale) {
    __m256i out;
    emulated_gather(&index, 8, 8, base, scale, 4, &out);
    return out;
}

static inline __m512i emulated_sra_epi32(__m512i a, __m128i by) {
    int32_t x[16];
    uint64_t count;
    memcpy(x, &a, sizeof x);
    memcpy(&count, &by, sizeof count);
    for (int i = 0; i < 16; i++) {
        x[i] >>= count > 31 ? 31 : count;
    }
    memcpy(&a, x, sizeof x);
    return a;
}

static inline __m512i emulated_mask_shuffle_epi32(__m512i src, uint16_t mask, __m512i a, int order) {
    uint32_t s[16];
    uint32_t x[16];
    memcpy(s, &src, sizeof s);
    memcpy(x, &a, sizeof x);
    for (int i = 0; i < 16; i++) {
        s[i] = (mask >> i) & 1 ? x[i / 4 * 4 + ((order >> (2 * (i % 4))) & 3)] : s[i];
    }
    memcpy(&src, s, sizeof s);
    return src;
}

static inline __m512i emulated_shuffle_i64x2(__m512i a, __m512i b, int order) {
    char x[64];
    char y[64];
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    char *out = (char *)&a;
    for (int i = 0; i < 4; i++) {
        memcpy(out + 16 * i, (i < 2 ? x : y) + 16 * ((order >> 2 * i) & 3), 16);
    }
    return a;
}

/* The elements of `size` bytes whose bit is set, moved to the front; zeros behind. */
static inline __m512i emulated_compress(uint64_t mask, __m512i a, int size) {
    uint8_t x[64];
    uint8_t r[64] = {0};
    int n = 0;
    memcpy(x, &a, sizeof x);
    for (int i = 0; i < 64 / size; i++) {
        if ((mask >> i) & 1) {
            memcpy(r + size * n++, x + size * i, (size_t)size);
        }
    }
    memcpy(&a, r, sizeof a);
    return a;
}

static inline int32_t emulated_reduce_max_epi32(__m512i a) {
    int32_t x[16];
    memcpy(x, &a, sizeof x);
    for (int i = 1; i < 16; i++) {
        x[0] = x[i] > x[0] ? x[i] : x[0];
    }
    return x[0];
}

#undef _mm512_cvtepi32_epi64
#define _mm512_maskz_loadu_epi32 emulated_maskz_loadu_epi32
#define _mm512_cvtepi32_epi64 emulated_cvtepi32_epi64
#undef _mm512_cvtepu32_epi64
#define _mm512_cvtepu32_epi64 emulated_cvtepu32_epi64
#undef _mm512_cvtepu8_epi16
#define _mm512_cvtepu8_epi16 emulated_cvtepu8_epi16
#undef _mm512_cvtepu8_epi32
#define _mm512_cvtepu8_epi32 emulated_cvtepu8_epi32
#undef _mm512_cvtepi16_epi32
#define _mm512_cvtepi16_epi32 emulated_cvtepi16_epi32
#undef _mm512_cvtepi32_epi16
#define _mm512_cvtepi32_epi16 emulated_cvtepi32_epi16
#undef _mm512_cvtepi32_epi8
#define _mm512_cvtepi32_epi8 emulated_cvtepi32_epi8
#undef _mm512_cvtepu64_pd
#define _mm512_cvtepu64_pd emulated_cvtepu64_pd
#undef _mm512_cvttpd_epu64
#define _mm512_cvttpd_epu64 emulated_cvttpd_epu64
#undef _mm512_rcp14_pd
#define _mm512_rcp14_pd emulated_rcp14_pd
#undef _mm512_maskz_compress_epi8
#define _mm512_maskz_compress_epi8(mask, a) emulated_compress(mask, a, 1)
#undef _mm512_maskz_compress_epi16
#define _mm512_maskz_compress_epi16(mask, a) emulated_compress(mask, a, 2)
#undef _mm512_mulhi_epu16
#define _mm512_mulhi_epu16 emulated_mulhi_epu16
#undef _mm512_mask_sub_epi16
#define _mm512_mask_sub_epi16 emulated_mask_sub_epi16
#undef _mm512_sll_epi16
#define _mm512_sll_epi16(a, by) emulated_sll(a, by, 16)
#undef _mm512_srl_epi32
#define _mm512_srl_epi32 emulated_srl_epi32
#undef _mm512_cmplt_epu64_mask
#define _mm512_cmplt_epu64_mask emulated_cmplt_epu64_mask
#undef _mm512_cmpgt_epu64_mask
#define _mm512_cmpgt_epu64_mask(a, b) emulated_cmplt_epu64_mask(b, a)
#undef _mm512_cmple_epi32_mask
#define _mm512_cmple_epi32_mask emulated_cmple_epi32_mask
#undef _mm_test_epi8_mask
#define _mm_test_epi8_mask emulated_test_epi8_mask
#undef _mm512_mask_add_epi64
#define _mm512_mask_add_epi64 emulated_mask_add_epi64
#undef _mm512_alignr_epi64
#define _mm512_alignr_epi64 emulated_alignr_epi64
#undef _mm512_i32gather_epi32
#define _mm512_i32gather_epi32 emulated_i32gather_epi32
#undef _mm512_i32gather_epi64
#define _mm512_i32gather_epi64 emulated_i32gather_epi64
#undef _mm512_i64gather_epi32
#define _mm512_i64gather_epi32 emulated_i64gather_epi32
#undef _mm512_reduce_max_epi32
#define _mm512_reduce_max_epi32 emulated_reduce_max_epi32

#undef _mm512_cmpeq_epu8_mask
#define _mm512_cmpeq_epu8_mask _mm512_cmpeq_epi8_mask
#undef _mm512_sra_epi32
#define _mm512_sra_epi32 emulated_sra_epi32
#undef _mm512_mask_shuffle_epi32
#define _mm512_mask_shuffle_epi32 emulated_mask_shuffle_epi32
#undef _mm512_shuffle_i64x2
#define _mm512_shuffle_i64x2 emulated_shuffle_i64x2

#endif
