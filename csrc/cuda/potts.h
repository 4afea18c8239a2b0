/* Potts models and p-dits: one categorical draw by a thread.
 *
 * The field of a state is computed again wherever it is needed, so that no thread keeps a table of its own: once for the
 * largest, once for the sum of weights, once for the state whose share holds the random number. Any number of states goes.
 */
#ifndef GLAUBER_CUDA_POTTS_H
#define GLAUBER_CUDA_POTTS_H

#include "job.h"

GLB_FUNCTION int64_t glb_potts_field(const glb_gpu_job *job, int64_t position, int64_t chain, int64_t k) {
    int64_t q = job->n_states;
    int64_t field = job->own_field != 0 ? GLB_GET(job->own_field, (chain * job->n_sites + position) * q + k)
                                        : GLB_GET(job->field, position * q + k);
    for (int32_t e = GLB_GET(job->row_start, position); e < GLB_GET(job->row_start, position + 1); e++) {
        int64_t other = GLB_GET(job->state, GLB_GET(job->neighbour, e) * job->n_chains + chain);
        if (job->weight != 0) {
            field += other == k ? GLB_GET(job->weight, e) : 0;
        } else {
            field += GLB_GET(job->table, GLB_GET(job->table_start, e) + other * q + k);
        }
    }
    return field;
}

GLB_FUNCTION int glb_potts_allowed(const glb_gpu_job *job, int64_t position, int64_t k) {
    return job->allowed == 0 || GLB_GET(job->allowed, position * job->n_states + k) != 0;
}

/* Word (position & 3) of the counter (position >> 2, sweep, chain, 0). */
GLB_FUNCTION uint32_t glb_potts_draw(const glb_gpu_job *job, const glb_key *key, uint64_t sweep, int64_t position,
                                     int64_t chain) {
    uint32_t random[4];
    glb_threefry(key, (uint32_t)position >> 2, (uint32_t)sweep, (uint32_t)(job->first_chain + chain), 0, random);
    return (position & 2) != 0 ? ((position & 1) != 0 ? random[3] : random[2])
                               : ((position & 1) != 0 ? random[1] : random[0]);
}

GLB_FUNCTION int64_t glb_potts_clamped(const glb_gpu_job *job, int64_t position, int64_t chain) {
    return job->potts_clamp == 0 ? -1 : GLB_GET(job->potts_clamp, chain * job->n_sites + position);
}

GLB_FUNCTION void glb_potts_update(const glb_gpu_job *job, const glb_key *key, uint64_t sweep, uint64_t b,
                                   int64_t position, int64_t chain) {
    int64_t q = job->n_states;
    uint32_t bits = glb_ceil_log2((uint32_t)q);
    int64_t best = INT64_MIN;
    uint64_t total = 0;
    uint64_t target;
    int64_t state = -1;
    if (glb_potts_clamped(job, position, chain) >= 0) {
        return;
    }
    for (int64_t k = 0; k < q; k++) {
        if (glb_potts_allowed(job, position, k)) {
            int64_t field = glb_potts_field(job, position, chain, k);
            best = field > best ? field : best;
        }
    }
    for (int64_t k = 0; k < q; k++) {
        if (glb_potts_allowed(job, position, k)) {
            uint64_t gap = (uint64_t)(best - glb_potts_field(job, position, chain, k));
            total += glb_potts_weight(glb_scale(gap, b), (uint32_t)q, bits);
        }
    }
    target = glb_potts_target(glb_potts_draw(job, key, sweep, position, chain), total);
    total = 0;
    do { /* the first state whose sum is above the target: it is an allowed one, and there is one */
        state++;
        if (glb_potts_allowed(job, position, state)) {
            uint64_t gap = (uint64_t)(best - glb_potts_field(job, position, chain, state));
            total += glb_potts_weight(glb_scale(gap, b), (uint32_t)q, bits);
        }
    } while (total <= target);
    GLB_PUT(job->state, position * job->n_chains + chain, (uint32_t)state);
}

GLB_KERNEL(glb_potts_colour) {
    int64_t begin = (int64_t)(second & 0xFFFFFFFFu);
    int64_t end = (int64_t)(second >> 32);
    uint64_t sweep = glb_sweep_of(&job, first);
    glb_key key = glb_key_of(&job, GLB_CATEGORICAL, sweep);
    uint64_t b = glb_b_of(&job, sweep);
    GLB_FOR_EACH(i, (end - begin) * job.n_chains) {
        glb_potts_update(&job, &key, sweep, b, begin + i / job.n_chains, i % job.n_chains);
    }
}

/* Whole sweeps of a block's own chain. */
GLB_KERNEL(glb_potts_sweeps) {
    uint64_t begin_sweep = glb_sweep_of(&job, first);
    for (uint64_t sweep = begin_sweep; sweep < begin_sweep + second; sweep++) {
        glb_key key = glb_key_of(&job, GLB_CATEGORICAL, sweep);
        uint64_t b = glb_b_of(&job, sweep);
        for (int64_t colour = 0; colour < job.n_colours; colour++) {
            GLB_FOR_EACH_IN_BLOCK(position, GLB_GET(job.colour_start, colour), GLB_GET(job.colour_start, colour + 1)) {
                glb_potts_update(&job, &key, sweep, b, position, GLB_BLOCK);
            }
            GLB_BARRIER();
        }
    }
}

/* The start: clamped states, or the k-th allowed one with k = u n_allowed / 2^32. Given states come from the host. */
GLB_KERNEL(glb_potts_start) {
    glb_key key = glb_key_of(&job, GLB_START, 0);
    (void)first;
    (void)second;
    GLB_FOR_EACH(i, job.n_sites * job.n_chains) {
        int64_t position = i / job.n_chains;
        int64_t chain = i % job.n_chains;
        int64_t state = glb_potts_clamped(&job, position, chain);
        if (state < 0) {
            uint64_t u = glb_potts_draw(&job, &key, 0, position, chain);
            uint64_t n_allowed = 0;
            for (int64_t k = 0; k < job.n_states; k++) {
                n_allowed += (uint64_t)glb_potts_allowed(&job, position, k);
            }
            uint64_t left = (u * n_allowed) >> 32;
            state = 0;
            while (!glb_potts_allowed(&job, position, state) || left-- > 0) {
                state++;
            }
        }
        GLB_PUT(job.state, i, (uint32_t)state);
    }
}

/* Sample number `first` of the batch: states by site, in the smallest type. */
GLB_KERNEL(glb_potts_sample) {
    (void)second;
    GLB_FOR_EACH(i, job.n_sites * job.n_chains) {
        int64_t chain = i / job.n_sites;
        int64_t site = i % job.n_sites;
        uint32_t state = GLB_GET(job.state, GLB_GET(job.position, site) * job.n_chains + chain);
        int64_t to = (chain * job.n_samples + (int64_t)first) * job.n_sites + site;
        for (int64_t k = 0; k < job.sample_bytes; k++) {
            GLB_PUT(job.samples, to * job.sample_bytes + k, (uint8_t)(state >> (8 * k)));
        }
    }
}

GLB_KERNEL(glb_potts_sums) {
    (void)first;
    (void)second;
    GLB_FOR_EACH(i, job.n_sites * job.n_chains) {
        int64_t chain = i / job.n_sites;
        int64_t site = i % job.n_sites;
        int64_t at = i * job.n_states + GLB_GET(job.state, GLB_GET(job.position, site) * job.n_chains + chain);
        GLB_PUT(job.site_sum, at, GLB_GET(job.site_sum, at) + 1);
    }
}

#endif
