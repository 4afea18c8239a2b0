/* Replica planes, any weights: 32 chains of a position by a thread, fields as numbers of WIDTH bytes, several in a word.
 *
 * Numbers are fields above their smallest, so that no addition carries into the neighbour's bytes. Their thresholds, looked up
 * or computed, are transposed into planes, which are compared with the random ones.
 */
#ifndef GLAUBER_CUDA_FIELDS_H
#define GLAUBER_CUDA_FIELDS_H

#include "job.h"

/* 32 x 32 bits transposed: bit r of planes[k] is bit 31 - k of the number that was in row 31 - r. */
GLB_FUNCTION void glb_transpose(uint32_t rows[32]) {
    uint32_t mask = 0x0000FFFFu;
    GLB_UNROLL
    for (int j = 16; j > 0; j >>= 1) {
        GLB_UNROLL
        for (int i = 0; i < 16; i++) {
            int k = (i / j) * 2 * j + i % j;
            uint32_t t = (rows[k] ^ (rows[k + j] >> j)) & mask;
            rows[k] ^= t;
            rows[k + j] ^= t << j;
        }
        mask ^= mask << (j / 2);
    }
}

/* The lanes of `undecided` whose random number is below its threshold, that of lane r being rows[31 - r]. */
GLB_FUNCTION uint32_t glb_decide(const glb_key *key, uint32_t a, uint64_t sweep, uint32_t c, uint32_t rows[32],
                                 uint32_t undecided) {
    uint32_t below = 0;
    glb_transpose(rows);
    GLB_UNROLL
    for (int g = 0; g < 8; g++) {
        if (undecided != 0) {
            uint32_t random[4];
            glb_threefry(key, a, (uint32_t)sweep, c, (uint32_t)g, random);
            GLB_UNROLL
            for (int q = 0; q < 4; q++) {
                below |= undecided & rows[4 * g + q] & ~random[q];
                undecided &= ~(rows[4 * g + q] ^ random[q]);
            }
        }
    }
    return below;
}

GLB_FUNCTION uint32_t glb_threshold_of(const glb_gpu_job *job, int64_t number, uint64_t b) {
    return job->table != 0 ? (uint32_t)GLB_GET(job->table, number) : glb_threshold((int32_t)(number - job->sum), b);
}

/* Bits of a word as numbers 0 and 1 of WIDTH bytes, those from bit `lane` on. */
GLB_FUNCTION uint32_t glb_spread(uint32_t bits, int lane, int WIDTH) {
    bits >>= lane;
    return WIDTH == 4 ? bits & 1u : WIDTH == 2 ? ((bits & 3u) * 0x8001u) & 0x00010001u
                                               : ((bits & 15u) * 0x00204081u) & 0x01010101u;
}

GLB_FUNCTION void glb_fields_update(const glb_gpu_job *job, const glb_key *key, uint64_t sweep, int64_t position,
                                    int64_t word, uint64_t b, int WIDTH) {
    int64_t W = job->row_words;
    int64_t at = position * W + word;
    uint32_t open = glb_open(job, at);
    uint32_t number[32];
    uint32_t threshold[32];
    uint32_t below;
    uint32_t start = (uint32_t)GLB_GET(job->base, position);
    if (open == 0) {
        return;
    }
    GLB_UNROLL
    for (int i = 0; i < 8 * WIDTH; i++) {
        number[i] = WIDTH == 4 ? start : WIDTH == 2 ? start * 0x00010001u : start * 0x01010101u;
    }
    if (job->own_field != 0) {
        GLB_UNROLL
        for (int r = 0; r < 32; r++) {
            uint32_t own = (uint32_t)GLB_GET(job->own_field, 32 * at + r);
            number[r * WIDTH / 4] += WIDTH == 4 ? own : own << (8 * (r * WIDTH % 4));
        }
    }
    for (int32_t e = GLB_GET(job->row_start, position); e < GLB_GET(job->row_start, position + 1); e++) {
        int32_t weight = GLB_GET(job->weight, e);
        uint32_t spins = GLB_GET(job->state, GLB_GET(job->neighbour, e) * W + word);
        uint32_t twice = 2u * (uint32_t)(weight < 0 ? -weight : weight);
        spins = weight < 0 ? ~spins : spins;
        GLB_UNROLL
        for (int i = 0; i < 8 * WIDTH; i++) {
            number[i] += glb_spread(spins, i * (4 / WIDTH), WIDTH) * twice;
        }
    }
    GLB_UNROLL
    for (int r = 0; r < 32; r++) {
        uint32_t one = number[r * WIDTH / 4] >> (8 * (r * WIDTH % 4));
        one &= WIDTH == 4 ? 0xFFFFFFFFu : WIDTH == 2 ? 0xFFFFu : 0xFFu;
        threshold[31 - r] = glb_threshold_of(job, one, b);
    }
    below = glb_decide(key, (uint32_t)position, sweep, glb_third(job, word), threshold, open);
    GLB_PUT(job->state, at, (GLB_GET(job->state, at) & ~open) | below);
}

/* See bits.h for what `first` and `second` are. */
GLB_FUNCTION void glb_fields_colour(const glb_gpu_job *job, uint64_t first, uint64_t range, int WIDTH) {
    int64_t begin = (int64_t)(range & 0xFFFFFFFFu);
    int64_t end = (int64_t)(range >> 32);
    uint64_t sweep = glb_sweep_of(job, first);
    glb_key key = glb_key_of(job, GLB_DECISION, sweep);
    uint64_t b = glb_b_of(job, sweep);
    GLB_FOR_EACH(i, (end - begin) * job->row_words) {
        glb_fields_update(job, &key, sweep, begin + i / job->row_words, i % job->row_words, b, WIDTH);
    }
}

GLB_FUNCTION void glb_fields_sweeps(const glb_gpu_job *job, uint64_t first, uint64_t count, int WIDTH) {
    uint64_t begin = glb_sweep_of(job, first);
    for (uint64_t sweep = begin; sweep < begin + count; sweep++) {
        glb_key key = glb_key_of(job, GLB_DECISION, sweep);
        uint64_t b = glb_b_of(job, sweep);
        for (int64_t colour = 0; colour < job->n_colours; colour++) {
            GLB_FOR_EACH_IN_BLOCK(position, GLB_GET(job->colour_start, colour), GLB_GET(job->colour_start, colour + 1)) {
                glb_fields_update(job, &key, sweep, position, GLB_BLOCK, b, WIDTH);
            }
            GLB_BARRIER();
        }
    }
}

#define GLB_FIELDS_KERNELS(WIDTH)                                                                                      \
    GLB_KERNEL(glb_fields##WIDTH##_colour) { glb_fields_colour(&job, first, second, WIDTH); }                          \
    GLB_KERNEL(glb_fields##WIDTH##_sweeps) { glb_fields_sweeps(&job, first, second, WIDTH); }

GLB_FIELDS_KERNELS(1)
GLB_FIELDS_KERNELS(2)
GLB_FIELDS_KERNELS(4)

/* The thresholds of -sum .. sum at the temperature of the sweep `first` from the clock on. */
GLB_KERNEL(glb_thresholds) {
    uint64_t b = glb_b_of(&job, glb_sweep_of(&job, first));
    uint32_t *table = (uint32_t *)job.table;
    (void)second;
    GLB_FOR_EACH(i, 2 * job.sum + 1) {
        GLB_PUT(table, i, glb_threshold((int32_t)(i - job.sum), b));
    }
}

#endif
