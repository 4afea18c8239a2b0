/* The word vector of one instruction set, for kernels that are included once per set with GLB_VECTOR_BYTES defined: 4
 * (plain uint32_t), 16, 32 or 64. GLB_AVX512 and GLB_AVX2 choose intrinsics where the compiler's vectors are not enough.
 */
#include <string.h>

#include "glauber/contract.h"
#include "glauber/core.h"

#if defined(GLB_AVX512) || defined(GLB_AVX2)
#include <immintrin.h>
#endif

#if defined(__GNUC__) || defined(__clang__)
#define GLB_INLINE static inline __attribute__((always_inline))
#define GLB_APART static __attribute__((noinline))
#define GLB_RESTRICT __restrict__
#else
#define GLB_INLINE static inline
#define GLB_APART static
#define GLB_RESTRICT restrict
#endif

enum { V = GLB_VECTOR_BYTES / 4 }; /* 32-bit words in a vector */

#if GLB_VECTOR_BYTES > 4
typedef uint32_t words __attribute__((vector_size(GLB_VECTOR_BYTES)));
typedef uint64_t words64 __attribute__((vector_size(GLB_VECTOR_BYTES)));
#else
typedef uint32_t words;
#endif

GLB_INLINE words splat(uint32_t x) { return (words){0} + x; }

GLB_INLINE words load(const uint32_t *source) {
    words v;
    memcpy(&v, source, sizeof v);
    return v;
}

GLB_INLINE void store(uint32_t *target, words v) { memcpy(target, &v, sizeof v); }

/* 0, 1, 2, ..., each repeated `times` times (a power of two). */
GLB_INLINE words counting(int times) {
    uint32_t lane[V];
    for (int i = 0; i < V; i++) {
        lane[i] = (uint32_t)(i / times);
    }
    return load(lane);
}

/* 0, 1, ..., period - 1, again and again (a power of two). */
GLB_INLINE words cycling(int period) {
    uint32_t lane[V];
    for (int i = 0; i < V; i++) {
        lane[i] = (uint32_t)(i % period);
    }
    return load(lane);
}

/* Whether any bit is set. */
GLB_INLINE int any(words v) {
#if defined(GLB_AVX512)
    return _mm512_test_epi32_mask((__m512i)v, (__m512i)v) != 0;
#elif defined(GLB_AVX2)
    return !_mm256_testz_si256((__m256i)v, (__m256i)v);
#elif GLB_VECTOR_BYTES > 4
    words64 wide = (words64)v;
    uint64_t bits = 0;
    for (int i = 0; i < V / 2; i++) {
        bits |= wide[i];
    }
    return bits != 0;
#else
    return v != 0;
#endif
}

/* Word i all ones where bit i of `lanes` is set, else zero. */
GLB_INLINE words from_lanes(uint32_t lanes) {
#if defined(GLB_AVX512)
    return (words)_mm512_maskz_set1_epi32((__mmask16)lanes, -1);
#elif GLB_VECTOR_BYTES > 4
    words bit = splat(1) << counting(1);
    return (words)((splat(lanes) & bit) == bit);
#else
    return 0u - (lanes & 1u);
#endif
}

enum { ALL_LANES = (1 << V) - 1 };

/* v with the words of `lanes` inverted. */
GLB_INLINE words invert_lanes(words v, uint32_t lanes) {
#if defined(GLB_AVX512)
    return (words)_mm512_mask_xor_epi32((__m512i)v, (__mmask16)lanes, (__m512i)v, _mm512_set1_epi32(-1));
#else
    return lanes == 0 ? v : v ^ from_lanes(lanes);
#endif
}

/* v with the words outside `lanes` cleared. */
GLB_INLINE words keep_lanes(words v, uint32_t lanes) {
#if defined(GLB_AVX512)
    return (words)_mm512_maskz_mov_epi32((__mmask16)lanes, (__m512i)v);
#else
    return lanes == ALL_LANES ? v : v & from_lanes(lanes);
#endif
}

/* The first plane of n counters (a + i da, 0, c + i dc, 0), i = 0 .. n - 1: where it is set, u >= 2^31. */
static void first_plane(const glb_key *key, uint32_t a, uint32_t da, uint32_t c, uint32_t dc, int64_t n, uint32_t *out) {
    words step = counting(1);
    for (int64_t i = 0; i < n; i += V) {
        words x[4] = {splat(a) + (step + (uint32_t)i) * da, splat(0), splat(c) + (step + (uint32_t)i) * dc, splat(0)};
        uint32_t lane[V];
        GLB_THREEFRY4X32(x, key);
        store(lane, x[0]);
        memcpy(out + i, lane, 4 * (size_t)(n - i < V ? n - i : V));
    }
}

/* The number of the lowest bit that is set; there is one. */
GLB_INLINE int glb_lowest_bit(uint32_t x) {
#if defined(__GNUC__) || defined(__clang__)
    return __builtin_ctz(x);
#else
    int i = 0;
    while (!((x >> i) & 1u)) {
        i++;
    }
    return i;
#endif
}

GLB_INLINE int glb_lowest_bit64(uint64_t x) {
#if defined(__GNUC__) || defined(__clang__)
    return __builtin_ctzll(x);
#else
    return (uint32_t)x != 0 ? glb_lowest_bit((uint32_t)x) : 32 + glb_lowest_bit((uint32_t)(x >> 32));
#endif
}

/* Four planes of random words: counters (a, sweep, c, g). */
GLB_INLINE void random_planes(const glb_key *key, words a, uint32_t sweep_low, words c, uint32_t g, words out[4]) {
    out[0] = a;
    out[1] = splat(sweep_low);
    out[2] = c;
    out[3] = splat(g);
    GLB_THREEFRY4X32(out, key);
}
