/* The arithmetic that makes samples bit-identical everywhere: generator, threshold, Potts weights.
 *
 * Version 1 of docs/machine.md, sections 3 to 9, for every body that is written in C: the core, the controller
 * firmware, and CUDA (csrc/cuda). Integers only; no libc, no state, no allocation. What is computed here must not depend
 * on the compiler, the word size or the instruction set.
 */
#ifndef GLAUBER_CONTRACT_H
#define GLAUBER_CONTRACT_H

#if defined(__CUDACC_RTC__) /* NVRTC has no header files of its own */
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define INT64_MIN (-9223372036854775807LL - 1)
#define UINT32_C(x) x##u
#define INT64_C(x) x##LL
#define UINT64_C(x) x##ULL
#else
#include <stdint.h>
#endif

#if defined(__CUDACC__)
#define GLB_FUNCTION static __device__ __forceinline__
#else
#define GLB_FUNCTION static inline
#endif

#define GLB_CONTRACT_VERSION 1

/* What a random word is for. Distinct purposes never share a counter. */
enum glb_purpose {
    GLB_DECISION = 0,    /* a p-bit's update */
    GLB_START = 1,       /* the random start, sweep 0 */
    GLB_EXCHANGE = 2,    /* two neighbouring temperatures exchange states */
    GLB_CATEGORICAL = 3, /* a Potts spin's update */
    GLB_METROPOLIS = 4,  /* a spin may flip */
    GLB_RESAMPLING = 5,  /* a population is resampled */
    GLB_SOLVE = 6,       /* the solver: docs/solver.md */
    GLB_EVENT = 7,       /* when an asynchronous p-bit is updated, and to what */
    GLB_NOISE = 8,       /* a chip's noise with memory */
    GLB_READOUT = 9,     /* what a chip's readout makes of a spin */
    GLB_JOB_SEED = 15    /* a job's seed from the device's seed and the job's number */
};

/* How 32 decisions share the bits of a random word. */
enum glb_layout {
    GLB_REPLICA_PLANES = 0, /* the 32 are chains of one site */
    GLB_SITE_PLANES = 1     /* the 32 are neighbouring positions of one chain */
};

typedef struct {
    uint32_t k[5]; /* the four key words and their parity, Salmon et al. 2011 */
} glb_key;

GLB_FUNCTION glb_key glb_make_key(uint64_t seed, uint32_t purpose, uint32_t layout, uint32_t stream,
                                   uint64_t sweep) {
    glb_key key;
    key.k[0] = (uint32_t)seed;
    key.k[1] = (uint32_t)(seed >> 32);
    key.k[2] = purpose + 16u * layout + 256u * stream;
    key.k[3] = (uint32_t)(sweep >> 32);
    key.k[4] = 0x1BD11BDAu ^ key.k[0] ^ key.k[1] ^ key.k[2] ^ key.k[3];
    return key;
}

#define GLB_ROTL(x, n) (((x) << (n)) | ((x) >> (32 - (n))))

#define GLB_EVEN_ROUND(x, r0, r1)                                                                                      \
    x[0] += x[1];                                                                                                      \
    x[1] = GLB_ROTL(x[1], r0) ^ x[0];                                                                                  \
    x[2] += x[3];                                                                                                      \
    x[3] = GLB_ROTL(x[3], r1) ^ x[2]
#define GLB_ODD_ROUND(x, r0, r1)                                                                                       \
    x[0] += x[3];                                                                                                      \
    x[3] = GLB_ROTL(x[3], r0) ^ x[0];                                                                                  \
    x[2] += x[1];                                                                                                      \
    x[1] = GLB_ROTL(x[1], r1) ^ x[2]
#define GLB_INJECT(x, key, i)                                                                                          \
    x[0] += (key)->k[(i) % 5];                                                                                         \
    x[1] += (key)->k[((i) + 1) % 5];                                                                                   \
    x[2] += (key)->k[((i) + 2) % 5];                                                                                   \
    x[3] += (key)->k[((i) + 3) % 5] + (i)

/* Threefry4x32 with 20 rounds, in place: x holds the counter and becomes the four random words. A macro, so that
 * x may be an array of uint32_t or of a compiler's vector type. Rotations are those of Random123. */
#define GLB_THREEFRY4X32(x, key)                                                                                       \
    do {                                                                                                               \
        GLB_INJECT(x, key, 0u);                                                                                        \
        GLB_EVEN_ROUND(x, 10, 26);                                                                                     \
        GLB_ODD_ROUND(x, 11, 21);                                                                                      \
        GLB_EVEN_ROUND(x, 13, 27);                                                                                     \
        GLB_ODD_ROUND(x, 23, 5);                                                                                       \
        GLB_INJECT(x, key, 1u);                                                                                        \
        GLB_EVEN_ROUND(x, 6, 20);                                                                                      \
        GLB_ODD_ROUND(x, 17, 11);                                                                                      \
        GLB_EVEN_ROUND(x, 25, 10);                                                                                     \
        GLB_ODD_ROUND(x, 18, 20);                                                                                      \
        GLB_INJECT(x, key, 2u);                                                                                        \
        GLB_EVEN_ROUND(x, 10, 26);                                                                                     \
        GLB_ODD_ROUND(x, 11, 21);                                                                                      \
        GLB_EVEN_ROUND(x, 13, 27);                                                                                     \
        GLB_ODD_ROUND(x, 23, 5);                                                                                       \
        GLB_INJECT(x, key, 3u);                                                                                        \
        GLB_EVEN_ROUND(x, 6, 20);                                                                                      \
        GLB_ODD_ROUND(x, 17, 11);                                                                                      \
        GLB_EVEN_ROUND(x, 25, 10);                                                                                     \
        GLB_ODD_ROUND(x, 18, 20);                                                                                      \
        GLB_INJECT(x, key, 4u);                                                                                        \
        GLB_EVEN_ROUND(x, 10, 26);                                                                                     \
        GLB_ODD_ROUND(x, 11, 21);                                                                                      \
        GLB_EVEN_ROUND(x, 13, 27);                                                                                     \
        GLB_ODD_ROUND(x, 23, 5);                                                                                       \
        GLB_INJECT(x, key, 5u);                                                                                        \
    } while (0)

GLB_FUNCTION void glb_threefry(const glb_key *key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3,
                                uint32_t out[4]) {
    uint32_t x[4];
    x[0] = c0;
    x[1] = c1;
    x[2] = c2;
    x[3] = c3;
    GLB_THREEFRY4X32(x, key);
    out[0] = x[0];
    out[1] = x[1];
    out[2] = x[2];
    out[3] = x[3];
}

/* 2^31 * 2^(-j/256), rounded to the nearest integer. */
#if defined(__CUDACC__)
static __device__ const uint32_t glb_exp2_table[256] = {
#include "glauber/exp2_table.inc"
};
#else
extern const uint32_t glb_exp2_table[256]; /* contract.c */
#endif

#define GLB_LN2_A UINT64_C(190530846196) /* round(2^38 ln 2) */
#define GLB_LN2_B UINT64_C(257941248)    /* round(2^30 ln^2 2 / 2) */
#define GLB_LN2_C UINT64_C(59597083)     /* round(2^30 ln^3 2 / 6) */
#define GLB_X_MAX (UINT64_C(63) << 32)   /* |x| saturates here: 2^-63 is far below every threshold's unit */

/* |h| * b in units of 2^-32 log2, saturated before the product can overflow. */
GLB_FUNCTION uint64_t glb_scale(uint64_t magnitude, uint64_t b) {
    return (b != 0 && magnitude > GLB_X_MAX / b) ? GLB_X_MAX : magnitude * b;
}

/* 2^62 * 2^(-x / 2^32) for 0 <= x <= GLB_X_MAX. */
GLB_FUNCTION uint64_t glb_exp2(uint64_t x) {
    uint32_t n = (uint32_t)(x >> 32);
    uint32_t f = (uint32_t)x;
    uint64_t q = f & 0xFFFFFFu;
    uint64_t q2 = (q * q) >> 16;
    uint64_t q3 = (q2 * q) >> 24;
    uint64_t p = (UINT64_C(1) << 62) - ((GLB_LN2_A * q) >> 8) + ((GLB_LN2_B * q2) >> 16) - ((GLB_LN2_C * q3) >> 24);
    return n >= 62 ? 0 : ((uint64_t)glb_exp2_table[f >> 24] * (p >> 31)) >> n;
}

/* The threshold of x or, if negative, of -x: P(+1) = 1 / (1 + 2^(-x / 2^32)), for 0 <= x <= GLB_X_MAX. */
GLB_FUNCTION uint32_t glb_threshold_at(uint64_t x, int negative) {
    uint64_t t = (UINT64_C(1) << 63) / (((UINT64_C(1) << 62) + glb_exp2(x) + (UINT64_C(1) << 30)) >> 31);
    if (t > UINT64_C(0xFFFFFFFF)) {
        t = UINT64_C(0xFFFFFFFF);
    }
    return negative ? (uint32_t)((UINT64_C(1) << 32) - t) : (uint32_t)t;
}

/* The threshold of a p-bit: s = +1 iff a uniform 32-bit u < T, P(+1) = 1 / (1 + 2^(-field * b / 2^32)). */
GLB_FUNCTION uint32_t glb_threshold(int32_t field, uint64_t b) {
    uint64_t magnitude = field < 0 ? (uint64_t)(-(int64_t)field) : (uint64_t)field;
    return glb_threshold_at(glb_scale(magnitude, b), field < 0);
}

/* Metropolis' rule: a spin flips iff a uniform 32-bit u < this, where `held` is its field times its sign, so that flipping
 * costs 2 held: min(1, exp(-2 beta held step)). */
GLB_FUNCTION uint32_t glb_flip_threshold(int32_t held, uint64_t b) {
    uint64_t t = glb_exp2(glb_scale(held > 0 ? (uint64_t)held : 0, b)) >> 30;
    return t > UINT64_C(0xFFFFFFFF) ? UINT32_C(0xFFFFFFFF) : (uint32_t)t;
}

/* ceil(log2 q) for q >= 1. */
GLB_FUNCTION uint32_t glb_ceil_log2(uint32_t q) {
    uint32_t bits = 0;
    while (bits < 32 && (UINT64_C(1) << bits) < q) {
        bits++;
    }
    return bits;
}

/* The weight of a Potts state that lies x above the best allowed one; sums over q states cannot overflow. */
GLB_FUNCTION uint64_t glb_potts_weight(uint64_t x, uint32_t q, uint32_t ceil_log2_q) {
    return q <= 64 ? glb_exp2(x) >> (31 + ceil_log2_q) : glb_exp2(x) >> ceil_log2_q;
}

/* floor(u * total / 2^32) without a 128-bit type. */
GLB_FUNCTION uint64_t glb_potts_target(uint32_t u, uint64_t total) {
    uint64_t low = (uint64_t)u * (uint32_t)total;
    uint64_t high = (uint64_t)u * (total >> 32);
    return high + (low >> 32);
}

#endif
