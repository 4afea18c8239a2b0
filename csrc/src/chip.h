/* The arithmetic of a chip with flaws: docs/machine.md, section 10. */
#ifndef GLAUBER_CHIP_H
#define GLAUBER_CHIP_H

#include "glauber/contract.h"
#include "glauber/core.h"

/* A normal number in 2^-24 from a uniform one, increasing: pieces by the octave of the distance from the nearer end, 64
 * in each, straight within; noise.py of the simulator makes the table. */
static inline int32_t glb_normal(const int32_t *table, uint32_t u) {
    uint32_t v = u >> 31 ? ~u : u;
#if defined(__GNUC__)
    uint32_t octave = v < 128 ? 0 : 25 - (uint32_t)__builtin_clz(v);
#else
    uint32_t octave = 0;
    while (v >> (octave + 7) != 0) {
        octave++;
    }
#endif
    uint32_t piece = 64 * octave + (v >> octave);
    int64_t low = table[piece];
    int64_t rest = v & ((1u << octave) - 1);
    int32_t z = (int32_t)(low + ((table[piece + 1] - low) * rest >> octave));
    return u >> 31 ? -z : z;
}

static inline int32_t glb_noise_next(const glb_noise *noise, int32_t g, int32_t z) {
    return (int32_t)((noise->keep * (int64_t)g + noise->fresh * (int64_t)z + (1 << 29)) >> 30);
}

/* What a size in 2^8 and a number in 2^-24 add to x. */
static inline int64_t glb_product(int32_t size, int32_t number) { return size * (int64_t)number >> 16; }

int glb_chip_check(const glb_ising *program, const glb_run *run);

#endif
