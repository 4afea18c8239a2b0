/* Ising runs: the start, samples, and sums over samples; and the clock of all runs. */
#ifndef GLAUBER_CUDA_OBSERVE_H
#define GLAUBER_CUDA_OBSERVE_H

#include "job.h"

/* Clamped lanes, and at random: u < 2^31, spin up, exactly where its first plane is clear. */
GLB_KERNEL(glb_start) {
    glb_key key = glb_key_of(&job, GLB_START, 0);
    int replica = job.layout == GLB_REPLICA_PLANES;
    int64_t rows = replica ? job.n_sites : job.n_chains;
    (void)first;
    (void)second;
    GLB_FOR_EACH(i, rows * job.row_words) {
        int64_t row = i / job.row_words;
        int64_t word = i % job.row_words;
        uint32_t random[4];
        uint32_t spins;
        glb_threefry(&key, (uint32_t)(replica ? row : word), 0, glb_third(&job, replica ? word : row), 0, random);
        spins = ~random[0];
        if (job.open != 0) {
            uint32_t open = GLB_GET(job.open, i);
            spins = (spins & open) | (GLB_GET(job.up, i) & ~open);
        }
        GLB_PUT(job.state, i, spins);
    }
}

GLB_FUNCTION uint32_t glb_spin_up(const glb_gpu_job *job, int64_t chain, int64_t position) {
    int replica = job->layout == GLB_REPLICA_PLANES;
    int64_t lane = replica ? job->offset + chain : position;
    int64_t at = (replica ? position : chain) * job->row_words + lane / 32;
    return (GLB_GET(job->state, at) >> (lane % 32)) & 1u;
}

/* Sample number `first` of the batch: bit i % 8 of byte i / 8 is site i. */
GLB_KERNEL(glb_sample) {
    int64_t n_bytes = job.sample_bytes;
    (void)second;
    GLB_FOR_EACH(i, job.n_chains * n_bytes) {
        int64_t chain = i / n_bytes;
        int64_t site = 8 * (i % n_bytes);
        uint32_t bits = 0;
        for (int k = 0; k < 8 && site + k < job.n_sites; k++) {
            bits |= glb_spin_up(&job, chain, GLB_GET(job.position, site + k)) << k;
        }
        GLB_PUT(job.samples, (chain * job.n_samples + (int64_t)first) * n_bytes + i % n_bytes, (uint8_t)bits);
    }
}

/* `first` sweeps are done. */
GLB_KERNEL(glb_tick) {
    (void)second;
    if (GLB_BLOCK == 0 && GLB_IN_BLOCK == 0) {
        GLB_PUT(job.clock, 0, GLB_GET(job.clock, 0) + first);
    }
}

/* Adds the present state to the sums over sites and edges. */
GLB_KERNEL(glb_sums) {
    int64_t n_cells = job.n_sites + job.n_edges;
    (void)first;
    (void)second;
    GLB_FOR_EACH(i, job.n_chains * n_cells) {
        int64_t chain = i / n_cells;
        int64_t cell = i % n_cells;
        if (cell < job.n_sites) {
            int64_t at = chain * job.n_sites + cell;
            int64_t spin = 2 * (int64_t)glb_spin_up(&job, chain, GLB_GET(job.position, cell)) - 1;
            GLB_PUT(job.site_sum, at, GLB_GET(job.site_sum, at) + spin);
        } else {
            int64_t edge = cell - job.n_sites;
            int64_t at = chain * job.n_edges + edge;
            uint32_t unlike = glb_spin_up(&job, chain, GLB_GET(job.edge, 2 * edge)) ^
                              glb_spin_up(&job, chain, GLB_GET(job.edge, 2 * edge + 1));
            GLB_PUT(job.edge_sum, at, GLB_GET(job.edge_sum, at) + 1 - 2 * (int64_t)unlike);
        }
    }
}

#endif
