/* Thirty-two decisions at once, each against a threshold of its own: for every body that is written in C.
 *
 * The thresholds' top bytes are transposed into bit planes, and those are compared with the planes of the random words,
 * most significant first. After eight planes one lane in 256 is still undecided; those go on, four planes a call.
 * Stopping early cannot change a result.
 */
#ifndef GLAUBER_DECIDE_H
#define GLAUBER_DECIDE_H

#include "glauber/contract.h"

/* Byte `level` (0 is the top one) of 32 thresholds as eight planes, most significant first. */
GLB_FUNCTION void glb_transposed_byte(const uint32_t threshold[32], int level, uint32_t planes[8]) {
    int shift = 24 - 8 * level;
    for (int k = 0; k < 8; k++) {
        planes[k] = 0;
    }
    for (int group = 0; group < 4; group++) {
        uint64_t x = 0;
        uint64_t t;
        for (int i = 0; i < 8; i++) {
            x |= (uint64_t)((threshold[8 * group + i] >> shift) & 0xFFu) << (8 * i);
        }
        /* 8 x 8 bit transpose: swap bits across the diagonal at distances 1, 2 and 4. */
        t = (x ^ (x >> 7)) & UINT64_C(0x00AA00AA00AA00AA);
        x ^= t ^ (t << 7);
        t = (x ^ (x >> 14)) & UINT64_C(0x0000CCCC0000CCCC);
        x ^= t ^ (t << 14);
        t = (x ^ (x >> 28)) & UINT64_C(0x00000000F0F0F0F0);
        x ^= t ^ (t << 28);
        for (int k = 0; k < 8; k++) {
            planes[k] |= (uint32_t)((x >> (8 * (7 - k))) & 0xFFu) << (8 * group);
        }
    }
}

/* The lanes of `mask` whose random word is below their threshold. first[k * stride], k = 0 .. 7, are the first eight
 * planes of counter (a, sweep, c); the rest are drawn here when they are needed. */
GLB_FUNCTION uint32_t glb_decide_lanes(const glb_key *key, uint32_t a, uint32_t c, uint32_t sweep_low,
                                 const uint32_t *first, int stride, const uint32_t threshold[32], uint32_t mask) {
    uint32_t below = 0;
    uint32_t planes[8];
    glb_transposed_byte(threshold, 0, planes);
    for (int k = 0; k < 8; k++) {
        below |= mask & planes[k] & ~first[k * stride];
        mask &= ~(planes[k] ^ first[k * stride]);
    }
    for (int level = 1; mask != 0 && level < 4; level++) {
        glb_transposed_byte(threshold, level, planes);
        for (int half = 0; mask != 0 && half < 2; half++) {
            uint32_t word[4];
            glb_threefry(key, a, sweep_low, c, (uint32_t)(2 * level + half), word);
            for (int w = 0; w < 4; w++) {
                below |= mask & planes[4 * half + w] & ~word[w];
                mask &= ~(planes[4 * half + w] ^ word[w]);
            }
        }
    }
    return below;
}

#endif
