/* Replica planes, bit-sliced: 32 chains of a position by a thread, fields of at most 2^BITS levels.
 *
 * The level of each chain's field is kept as BITS planes; neighbours are added to them by ripple carry. A threshold's bit
 * for all chains is chosen from the levels' by the planes, most significant first, until all chains are decided.
 */
#ifndef GLAUBER_CUDA_BITS_H
#define GLAUBER_CUDA_BITS_H

#include "job.h"

enum { GLB_MOST_LEVELS = 32 };

/* picked[32 plane + level]: the plane's bit of the level's threshold, in all 32 lanes. The block's threads share the work. */
GLB_FUNCTION void glb_fill_levels(const glb_gpu_job *job, uint64_t b, int LEVELS, uint32_t *threshold, uint32_t *picked) {
    GLB_BARRIER(); /* nobody still reads those of the sweep before */
    GLB_FOR_EACH_IN_BLOCK(level, 0, LEVELS) {
        int64_t field = job->level_step * level - job->sum;
        GLB_PUT(threshold, level, glb_threshold((int32_t)field, b));
    }
    GLB_BARRIER();
    GLB_FOR_EACH_IN_BLOCK(i, 0, 32 * GLB_MOST_LEVELS) {
        int64_t level = i % GLB_MOST_LEVELS;
        if (level < LEVELS) {
            GLB_PUT(picked, i, 0u - ((GLB_GET(threshold, level) >> (31 - i / GLB_MOST_LEVELS)) & 1u));
        }
    }
    GLB_BARRIER();
}

GLB_FUNCTION void glb_bits_update(const glb_gpu_job *job, const glb_key *key, uint64_t sweep, int64_t position,
                                  int64_t word, const uint32_t *picked, int BITS) {
    int64_t W = job->row_words;
    int64_t at = position * W + word;
    uint32_t start = (uint32_t)GLB_GET(job->base, position);
    uint32_t level[5];
    uint32_t undecided = glb_open(job, at);
    uint32_t open = undecided;
    uint32_t below = 0;
    GLB_UNROLL
    for (int k = 0; k < BITS; k++) {
        level[k] = 0u - ((start >> k) & 1u);
    }
    for (int32_t e = GLB_GET(job->row_start, position); e < GLB_GET(job->row_start, position + 1); e++) {
        int32_t weight = GLB_GET(job->weight, e);
        uint32_t spins = GLB_GET(job->state, GLB_GET(job->neighbour, e) * W + word);
        uint32_t steps = (uint32_t)(weight < 0 ? -weight : weight) * (job->level_step == 1 ? 2u : 1u);
        spins = weight < 0 ? ~spins : spins;
        GLB_UNROLL
        for (int j = 0; j < BITS; j++) {
            uint32_t carry = (steps >> j) & 1u ? spins : 0u;
            GLB_UNROLL
            for (int k = j; k < BITS; k++) {
                uint32_t next = level[k] & carry;
                level[k] ^= carry;
                carry = next;
            }
        }
    }
    for (uint32_t g = 0; g < 8 && undecided != 0; g++) {
        uint32_t random[4];
        glb_threefry(key, (uint32_t)position, (uint32_t)sweep, glb_third(job, word), g, random);
        GLB_UNROLL
        for (int q = 0; q < 4; q++) {
            const uint32_t *choice = picked + GLB_MOST_LEVELS * (4 * g + (uint32_t)q);
            uint32_t v[16];
            GLB_UNROLL
            for (int i = 0; i < 16; i++) { /* constant counts, so that v stays in registers */
                if (i < 1 << (BITS - 1)) {
                    v[i] = (GLB_GET(choice, 2 * i) & ~level[0]) | (GLB_GET(choice, 2 * i + 1) & level[0]);
                }
            }
            GLB_UNROLL
            for (int k = 1; k < 5; k++) {
                GLB_UNROLL
                for (int i = 0; i < 8; i++) {
                    if (k < BITS && i < 1 << (BITS - 1 - k)) {
                        v[i] = (v[2 * i] & ~level[k]) | (v[2 * i + 1] & level[k]);
                    }
                }
            }
            below |= undecided & v[0] & ~random[q];
            undecided &= ~(v[0] ^ random[q]);
        }
    }
    GLB_PUT(job->state, at, (GLB_GET(job->state, at) & ~open) | below);
}

/* One colour of one sweep: `first` is the sweep from the clock on, `second` the first position and, 32 bits up, the end. */
GLB_FUNCTION void glb_bits_colour(const glb_gpu_job *job, uint64_t first, uint64_t range, uint32_t *threshold,
                                  uint32_t *picked, int BITS) {
    int64_t begin = (int64_t)(range & 0xFFFFFFFFu);
    int64_t end = (int64_t)(range >> 32);
    uint64_t sweep = glb_sweep_of(job, first);
    glb_key key = glb_key_of(job, GLB_DECISION, sweep);
    glb_fill_levels(job, glb_b_of(job, sweep), 1 << BITS, threshold, picked);
    GLB_FOR_EACH(i, (end - begin) * job->row_words) {
        glb_bits_update(job, &key, sweep, begin + i / job->row_words, i % job->row_words, picked, BITS);
    }
}

/* Whole sweeps of a block's own word of chains: `first` is the first sweep from the clock on, `second` how many. */
GLB_FUNCTION void glb_bits_sweeps(const glb_gpu_job *job, uint64_t first, uint64_t count, uint32_t *threshold,
                                  uint32_t *picked, int BITS) {
    uint64_t begin = glb_sweep_of(job, first);
    for (uint64_t sweep = begin; sweep < begin + count; sweep++) {
        glb_key key = glb_key_of(job, GLB_DECISION, sweep);
        uint64_t b = glb_b_of(job, sweep);
        if (sweep == begin || b != glb_b_of(job, sweep - 1)) {
            glb_fill_levels(job, b, 1 << BITS, threshold, picked);
        }
        for (int64_t colour = 0; colour < job->n_colours; colour++) {
            GLB_FOR_EACH_IN_BLOCK(position, GLB_GET(job->colour_start, colour), GLB_GET(job->colour_start, colour + 1)) {
                glb_bits_update(job, &key, sweep, position, GLB_BLOCK, picked, BITS);
            }
            GLB_BARRIER();
        }
    }
}

#define GLB_BITS_KERNELS(BITS)                                                                                         \
    GLB_KERNEL(glb_bits##BITS##_colour) {                                                                              \
        GLB_SHARED(uint32_t, threshold, GLB_MOST_LEVELS);                                                              \
        GLB_SHARED(uint32_t, picked, 32 * GLB_MOST_LEVELS);                                                            \
        glb_bits_colour(&job, first, second, threshold, picked, BITS);                                                 \
    }                                                                                                                  \
    GLB_KERNEL(glb_bits##BITS##_sweeps) {                                                                              \
        GLB_SHARED(uint32_t, threshold, GLB_MOST_LEVELS);                                                              \
        GLB_SHARED(uint32_t, picked, 32 * GLB_MOST_LEVELS);                                                            \
        glb_bits_sweeps(&job, first, second, threshold, picked, BITS);                                                 \
    }

GLB_BITS_KERNELS(3)
GLB_BITS_KERNELS(4)
GLB_BITS_KERNELS(5)

#endif
