/* Replica planes, dense and bipartite programs: a block takes 32 chains through whole sweeps, fields as products of bytes.
 *
 * A thread has a chain and one of GLB_ROWS neighbouring positions. Their sums are made side by side with the spins as they
 * are; where these positions are neighbours of each other, they decide one after another, and each that changes corrects the
 * sums of those after it. Spins are kept as bytes beside the bits: four positions of a chain in a word.
 */
#ifndef GLAUBER_CUDA_DENSE_H
#define GLAUBER_CUDA_DENSE_H

#include "fields.h"

enum { GLB_ROWS = 16, GLB_DENSE_BLOCK = 32 * GLB_ROWS };

/* Weight of a position (row of the matrix) and a neighbour. */
GLB_FUNCTION int32_t glb_matrix_weight(const glb_gpu_job *job, int64_t position, int64_t neighbour) {
    int64_t at = position * job->passes * job->groups + neighbour / 4;
    int shift = (int)(8 * (neighbour % 4));
    int32_t weight = (int8_t)((GLB_GET(job->matrix, at) >> shift) & 0xFFu);
    if (job->passes == 2) {
        weight = 256 * weight + (int32_t)((GLB_GET(job->matrix, at + job->groups) >> shift) & 0xFFu);
    }
    return weight;
}

/* Sum of weight x (0 or 1) over all positions, for one position and chain. */
GLB_FUNCTION int32_t glb_dense_sum(const glb_gpu_job *job, int64_t position, int64_t word, int lane) {
    const uint32_t *weights = job->matrix + position * job->passes * job->groups;
    const uint32_t *spins = job->bytes + word * job->groups * 32 + lane;
    int32_t sum = 0;
    for (int64_t g = 0; g < job->groups; g++) {
        sum = glb_dot4(GLB_GET(spins, 32 * g), GLB_GET(weights, g), sum);
    }
    if (job->passes == 2) {
        sum *= 256;
        for (int64_t g = 0; g < job->groups; g++) {
            sum = glb_dot4_unsigned(GLB_GET(spins, 32 * g), GLB_GET(weights, job->groups + g), sum);
        }
    }
    return sum;
}

GLB_KERNEL(glb_dense_sweeps) {
    GLB_SHARED(uint32_t, random, 32 * GLB_ROWS); /* planes of the rows' random numbers */
    GLB_SHARED(int32_t, change, GLB_DENSE_BLOCK); /* -1, 0 or 1 */
    GLB_SHARED(uint32_t, up, GLB_DENSE_BLOCK);
    int64_t word = GLB_BLOCK;
    int row = GLB_IN_BLOCK / 32;
    int lane = GLB_IN_BLOCK % 32;
    int64_t W = job.row_words;
    uint64_t begin_sweep = glb_sweep_of(&job, first);
    for (uint64_t sweep = begin_sweep; sweep < begin_sweep + second; sweep++) {
        glb_key key = glb_key_of(&job, GLB_DECISION, sweep);
        uint64_t b = glb_b_of(&job, sweep);
        for (int64_t begin = 0; begin < job.n_sites; begin += GLB_ROWS) {
            int64_t position = begin + row;
            int there = position < job.n_sites;
            int64_t at = position * W + word;
            int32_t field = 0;
            uint32_t u = 0;
            int open = there ? (int)((glb_open(&job, at) >> lane) & 1u) : 0;
            uint32_t old = there ? (GLB_GET(job.state, at) >> lane) & 1u : 0;
            if (there) { /* base is sum - sum |weight|; what a field starts from is - sum weight, with the field if any */
                field = GLB_GET(job.base, position) + 2 * glb_dense_sum(&job, position, word, lane);
                field += job.own_field != 0 ? GLB_GET(job.own_field, 32 * at + lane) : 0;
                if (lane < 8) {
                    uint32_t four[4];
                    glb_threefry(&key, (uint32_t)position, (uint32_t)sweep, glb_third(&job, word), (uint32_t)lane, four);
                    GLB_UNROLL
                    for (int q = 0; q < 4; q++) {
                        GLB_PUT(random, 32 * row + 4 * lane + q, four[q]);
                    }
                }
            }
            GLB_BARRIER();
            for (int k = 0; there && k < 32; k++) {
                u = u << 1 | ((GLB_GET(random, 32 * row + k) >> lane) & 1u);
            }
            for (int turn = 0; turn < GLB_ROWS; turn++) {
                if (turn == row) {
                    uint32_t now = open ? (uint32_t)(u < glb_threshold(field, b)) : old;
                    GLB_PUT(up, GLB_IN_BLOCK, now);
                    GLB_PUT(change, GLB_IN_BLOCK, (int32_t)now - (int32_t)old);
                }
                GLB_BARRIER();
                if (turn < row && there) {
                    int32_t changed = GLB_GET(change, 32 * turn + lane);
                    field += 2 * changed * glb_matrix_weight(&job, position, begin + turn);
                }
            }
            if (there && lane == 0) {
                uint32_t all = 0;
                for (int r = 0; r < 32; r++) {
                    all |= GLB_GET(up, 32 * row + r) << r;
                }
                GLB_PUT(job.state, at, all);
            }
            if (row % 4 == 0 && there) {
                uint32_t four = 0;
                for (int i = 0; i < 4; i++) {
                    four |= GLB_GET(up, 32 * (row + i) + lane) << (8 * i);
                }
                GLB_PUT(job.bytes, (word * job.groups + position / 4) * 32 + lane, four);
            }
            GLB_BARRIER();
        }
    }
}

/* The bytes from the bits, after a start. */
GLB_KERNEL(glb_dense_bytes) {
    (void)first;
    (void)second;
    GLB_FOR_EACH(i, job.row_words * job.groups * 32) {
        int64_t word = i / (job.groups * 32);
        int64_t group = i / 32 % job.groups;
        uint32_t four = 0;
        for (int64_t k = 0; k < 4 && 4 * group + k < job.n_sites; k++) {
            uint32_t spins = GLB_GET(job.state, (4 * group + k) * job.row_words + word);
            four |= ((spins >> (i % 32)) & 1u) << (8 * k);
        }
        GLB_PUT(job.bytes, i, four);
    }
}

#endif
