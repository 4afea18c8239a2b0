/* Where the spins of a run lie: replica planes and bits of site planes, or bytes of the plain site kernel. */
#ifndef GLAUBER_STATE_H
#define GLAUBER_STATE_H

#include "ising.h"

static inline int is_replica(const glb_run *run) { return run->layout == GLB_REPLICA_PLANES; }

/* Replica planes are cut at global multiples of 32, so a shard may begin inside a word: this many lanes before it. */
static inline int64_t lane_offset(const glb_run *run) { return is_replica(run) ? run->first_chain % 32 : 0; }

static inline int has_bits(const glb_plan *plan) {
    return plan->kernel != GLB_KERNEL_SITES && plan->kernel != GLB_KERNEL_EVENTS;
}

/* Site planes whose chains are rows of words with room around them. */
static inline int has_padded_rows(const glb_plan *plan) {
    return plan->kernel == GLB_KERNEL_DIAGONALS || plan->kernel == GLB_KERNEL_INDEPENDENT ||
           plan->kernel == GLB_KERNEL_INCREMENTAL || plan->kernel == GLB_KERNEL_LATTICE;
}

/* Where a word of 32 lanes lies: `word` of row `row`, a position of replica planes or a chain of site planes. */
static inline int64_t word_at(const glb_plan *plan, int64_t row, int64_t word) {
    int64_t W = plan->words;
    if (has_padded_rows(plan)) {
        return plan->rows * row + GLB_SITE_PAD + word;
    }
    return plan->kernel == GLB_KERNEL_SITES ? plan->lanes / 32 * row + word
                                            : (word / W * plan->rows + row) * W + word % W;
}

static inline void set_spin(const glb_run *run, const glb_plan *plan, uint8_t *state, int64_t position, int64_t chain,
                     int up) {
    if (has_bits(plan)) {
        int64_t lane = is_replica(run) ? lane_offset(run) + chain : position;
        uint32_t *word = (uint32_t *)(void *)state + word_at(plan, is_replica(run) ? position : chain, lane / 32);
        *word = (*word & ~(1u << (lane % 32))) | (uint32_t)up << (lane % 32);
    } else {
        ((int8_t *)state)[plan->lanes * chain + position] = up ? 1 : -1;
    }
}

/* Whether a spin is up. */
static inline int spin_at(const glb_run *run, const glb_plan *plan, const uint8_t *state, int64_t position, int64_t chain) {
    if (has_bits(plan)) {
        int64_t lane = is_replica(run) ? lane_offset(run) + chain : position;
        uint32_t word = ((const uint32_t *)(const void *)state)[word_at(plan, is_replica(run) ? position : chain,
                                                                        lane / 32)];
        return (int)((word >> (lane % 32)) & 1u);
    }
    return ((const int8_t *)state)[plan->lanes * chain + position] > 0;
}

/* Puts a packed state into a chain of site planes. */
static inline void unpack_chain(const glb_ising *program, const glb_run *run, const glb_plan *plan,
                                const uint8_t *packed, int64_t chain, uint8_t *state) {
    for (int32_t p = 0; p < program->n_sites; p++) {
        int32_t site = program->site[p];
        set_spin(run, plan, state, p, chain, (packed[site / 8] >> (site % 8)) & 1);
    }
}

/* An 8 x 8 bit matrix transposed: bits swapped across the diagonal at distances 1, 2 and 4. */
static inline uint64_t glb_transposed(uint64_t x) {
    uint64_t t = (x ^ (x >> 7)) & UINT64_C(0x00AA00AA00AA00AA);
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & UINT64_C(0x0000CCCC0000CCCC);
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & UINT64_C(0x00000000F0F0F0F0);
    return x ^ t ^ (t << 28);
}

/* Packs the chains begin .. end - 1 into rows that lie `stride` bytes apart (pack.c). */
void glb_pack_chains(const glb_ising *program, const glb_run *run, const glb_plan *plan, const uint8_t *state,
                     int32_t begin, int32_t end, uint8_t *out, int64_t stride);

/* The inverse for the words of chains first .. last - 1 of replica planes: a chain takes the packed row source[chain], or
 * its own where source is NULL. */
void glb_unpack_replicas(const glb_ising *program, const glb_run *run, const glb_plan *plan, const uint8_t *packed,
                         const int32_t *source, int64_t first, int64_t last, uint32_t *words);

#endif
