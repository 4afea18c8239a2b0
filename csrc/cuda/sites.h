/* Site planes: 32 neighbouring positions of a chain by a thread, those of one colour at a time.
 *
 * Two colours may share a word, so a thread writes only its positions' bits, and looks only at bits of other colours.
 */
#ifndef GLAUBER_CUDA_SITES_H
#define GLAUBER_CUDA_SITES_H

#include "fields.h"

GLB_FUNCTION int32_t glb_site_field(const glb_gpu_job *job, int64_t chain, int64_t position) {
    int64_t row = chain * job->row_words;
    int32_t field = job->own_field != 0 ? GLB_GET(job->own_field, chain * job->n_sites + position)
                                        : GLB_GET(job->field, position);
    for (int32_t e = GLB_GET(job->row_start, position); e < GLB_GET(job->row_start, position + 1); e++) {
        int32_t other = GLB_GET(job->neighbour, e);
        int32_t weight = GLB_GET(job->weight, e);
        field += GLB_GET_BITS(job->state, row + (other >> 5), 1u << (other & 31)) != 0 ? weight : -weight;
    }
    return field;
}

/* The word's positions begin .. end - 1, as far as they are in it. */
GLB_FUNCTION void glb_sites_update(const glb_gpu_job *job, const glb_key *key, uint64_t sweep, uint64_t b, int64_t chain,
                                   int64_t word, int64_t begin, int64_t end) {
    int64_t at = chain * job->row_words + word;
    int64_t before = begin - 32 * word;
    int64_t after = 32 * (word + 1) - end;
    uint32_t mask = glb_open(job, at);
    uint32_t below = 0;
    uint32_t random[32];
    uint32_t drawn = 2;
    mask &= before > 0 ? 0xFFFFFFFFu << before : 0xFFFFFFFFu;
    mask &= after > 0 ? 0xFFFFFFFFu >> after : 0xFFFFFFFFu;
    if (mask == 0) {
        return;
    }
    GLB_UNROLL
    for (uint32_t g = 0; g < 2; g++) {
        glb_threefry(key, (uint32_t)word, (uint32_t)sweep, glb_third(job, chain), g, random + 4 * g);
    }
    for (int i = 0; i < 32; i++) {
        uint32_t threshold;
        uint32_t k = 0;
        if (((mask >> i) & 1u) == 0) {
            continue;
        }
        threshold = glb_threshold_of(job, glb_site_field(job, chain, 32 * word + i) + job->sum, b);
        while (k < 32) { /* u against the threshold, bit by bit, until they differ; equal is not below */
            if (k == 4 * drawn) {
                glb_threefry(key, (uint32_t)word, (uint32_t)sweep, glb_third(job, chain), drawn, random + k);
                drawn++;
            }
            if (((random[k] >> i) ^ (threshold >> (31 - k))) & 1u) {
                below |= ((threshold >> (31 - k)) & 1u) << i;
                break;
            }
            k++;
        }
    }
    GLB_PUT_BITS(job->state, at, mask, below);
}

/* Words that positions begin .. end - 1 lie in. */
GLB_FUNCTION int64_t glb_words_of(int64_t begin, int64_t end) { return (end + 31) / 32 - begin / 32; }

GLB_KERNEL(glb_sites_colour) {
    int64_t begin = (int64_t)(second & 0xFFFFFFFFu);
    int64_t end = (int64_t)(second >> 32);
    int64_t n_words = glb_words_of(begin, end);
    uint64_t sweep = glb_sweep_of(&job, first);
    glb_key key = glb_key_of(&job, GLB_DECISION, sweep);
    uint64_t b = glb_b_of(&job, sweep);
    GLB_FOR_EACH(i, n_words * job.n_chains) {
        glb_sites_update(&job, &key, sweep, b, i / n_words, begin / 32 + i % n_words, begin, end);
    }
}

/* Whole sweeps of a block's own chain. */
GLB_KERNEL(glb_sites_sweeps) {
    uint64_t begin_sweep = glb_sweep_of(&job, first);
    for (uint64_t sweep = begin_sweep; sweep < begin_sweep + second; sweep++) {
        glb_key key = glb_key_of(&job, GLB_DECISION, sweep);
        uint64_t b = glb_b_of(&job, sweep);
        for (int64_t colour = 0; colour < job.n_colours; colour++) {
            int64_t begin = GLB_GET(job.colour_start, colour);
            int64_t end = GLB_GET(job.colour_start, colour + 1);
            GLB_FOR_EACH_IN_BLOCK(word, begin / 32, (end + 31) / 32) {
                glb_sites_update(&job, &key, sweep, b, GLB_BLOCK, word, begin, end);
            }
            GLB_BARRIER();
        }
    }
}

#endif
