/* A Potts run in vectors: the kernel's spins, its weights, and threads that share out blocks or chains. */
#include <string.h>

#include "ising.h"
#include "parallel.h"
#include "potts.h"

struct vectors {
    const glb_potts_job *job;
    glb_potts_data data;
    glb_potts_kernel kernel;
    uint8_t *spins; /* unless the caller's are used */
    uint8_t *open;  /* or NULL */
};

/* Where a chain's first spin is among the kernel's bytes. */
static int64_t byte_of(const glb_potts_job *job, int64_t chain) {
    int64_t V = job->plan.V;
    int64_t n = job->program->n_sites;
    switch (job->plan.form) {
    case GLB_POTTS_CHAINS: /* [block][position][chain] */
        return V * n * (chain / V) + chain % V;
    case GLB_POTTS_CHAIN_BYTES: /* the same, but chain V w + i is byte w of lane i */
        return 4 * V * n * (chain / (4 * V)) + 4 * (chain % V) + chain / V % 4;
    default: /* a row each */
        return job->plan.row * chain + GLB_POTTS_PAD;
    }
}

/* How far a chain's next spin is. */
static int64_t bytes_apart(const glb_potts_job *job) {
    return job->plan.form == GLB_POTTS_CHAINS ? job->plan.V
           : job->plan.form == GLB_POTTS_CHAIN_BYTES ? 4 * job->plan.V
                                                     : 1;
}

enum exchange { TO_BYTES, TO_STATE, TO_SAMPLE };

/* Between the kernel's bytes and the caller's numbers: few positions at a time, whose bytes stay in the cache. */
static void exchange_spins(const struct vectors *vectors, int64_t begin, int64_t end, enum exchange what,
                           int64_t sample) {
    enum { TILE = 64 };
    const glb_potts_job *job = vectors->job;
    uint8_t *spins = vectors->spins;
    uint8_t *open = vectors->open;
    int32_t n = job->program->n_sites;
    int64_t step = bytes_apart(job);
    for (int32_t first = 0; first < n; first += TILE) {
        int32_t count = n - first < TILE ? n - first : TILE;
        for (int64_t chain = begin; chain < end; chain++) {
            int64_t at = byte_of(job, chain) + step * first;
            int32_t *spin = job->state + chain * n + first;
            int32_t tile[TILE];
            if (what == TO_BYTES) {
                for (int32_t i = 0; i < count; i++) {
                    spins[at + step * i] = (uint8_t)spin[i];
                }
                if (open != NULL) {
                    const int32_t *clamp = job->run->potts_clamp + chain * n + first;
                    for (int32_t i = 0; i < count; i++) {
                        open[at + step * i] = clamp[i] < 0 ? 0xFF : 0;
                    }
                }
                continue;
            }
            spin = what == TO_STATE ? spin : tile;
            for (int32_t i = 0; i < count; i++) {
                spin[i] = spins[at + step * i];
            }
            if (what == TO_SAMPLE) {
                glb_potts_sample(job, chain, spin, first, first + count, sample);
            }
        }
    }
}

static void fill_weights(const glb_potts_job *job, uint64_t b, uint32_t weights[GLB_POTTS_TABLE]) {
    uint32_t q = (uint32_t)job->program->n_states;
    uint32_t bits = glb_ceil_log2(q);
    for (int64_t gap = 0; gap < job->plan.n_table; gap++) {
        weights[gap] = (uint32_t)glb_potts_weight(glb_scale((uint64_t)gap, b), q, bits);
    }
}

static void work(void *argument, glb_team *team, int thread) {
    const struct vectors *vectors = argument;
    const glb_potts_job *job = vectors->job;
    const glb_run *run = job->run;
    glb_potts_data data = vectors->data;
    uint32_t weights[GLB_POTTS_TABLE] = {0};
    int form = job->plan.form;
    int64_t per_unit = form == GLB_POTTS_CHAINS ? job->plan.V : form == GLB_POTTS_CHAIN_BYTES ? 4 * job->plan.V : 1;
    int64_t units = (run->n_chains + per_unit - 1) / per_unit;
    int64_t begin = units * thread / run->n_threads;
    int64_t end = units * (thread + 1) / run->n_threads;
    int64_t first = per_unit * begin < run->n_chains ? per_unit * begin : run->n_chains;
    int64_t last = per_unit * end < run->n_chains ? per_unit * end : run->n_chains;
    (void)team;
    data.weights = weights;
    if (form != GLB_POTTS_SITES) {
        exchange_spins(vectors, first, last, TO_BYTES, 0);
    }
    for (int64_t s = 0; s < job->n_sweeps; s++) {
        data.sweep = job->first_sweep + (uint64_t)s;
        uint64_t b = glb_potts_b(run, data.sweep);
        if (s == 0 || b != data.b) {
            data.b = b;
            fill_weights(job, b, weights);
        }
        vectors->kernel(&data, begin, end);
        if (job->output->every <= 0 || (s + 1) % job->output->every != 0) {
            continue;
        }
        int64_t sample = (s + 1) / job->output->every - 1;
        if (form != GLB_POTTS_SITES) {
            exchange_spins(vectors, first, last, TO_SAMPLE, sample);
            continue;
        }
        for (int64_t chain = first; chain < last; chain++) {
            int32_t n = job->program->n_sites;
            glb_potts_sample(job, chain, job->state + chain * n, 0, n, sample);
        }
    }
    if (form != GLB_POTTS_SITES) {
        exchange_spins(vectors, first, last, TO_STATE, 0);
    }
}

/* Lanes that are nobody's hold zeros. */
int glb_potts_sweep_in_vectors(const glb_potts_job *job) {
    const glb_kernels *kernels = glb_kernels_of(job->run->isa);
    const glb_potts_plan *plan = &job->plan;
    int in_bytes = plan->form == GLB_POTTS_SITE_BYTES || plan->form == GLB_POTTS_CHAIN_BYTES;
    uint8_t *scratch = job->scratch;
    struct vectors vectors = {.job = job,
                              .kernel = in_bytes ? kernels->potts_bytes : kernels->potts,
                              .spins = scratch + plan->spins,
                              .open = in_bytes && job->run->potts_clamp != NULL ? scratch + plan->open : NULL};
    memset(scratch + plan->spins, 0, (size_t)(plan->size - plan->spins));
    vectors.data = (glb_potts_data){.program = job->program,
                                    .run = job->run,
                                    .form = plan->form,
                                    .n_table = plan->n_table,
                                    .spins = vectors.spins,
                                    .open = vectors.open,
                                    .state = job->state,
                                    .groups = (const void *)scratch,
                                    .entries = (const void *)(scratch + plan->entries),
                                    .n_groups = plan->n_groups,
                                    .byte_groups = (const void *)scratch,
                                    .distances = (const void *)(scratch + plan->entries),
                                    .rows = scratch + plan->rows,
                                    .row = plan->row,
                                    .fields = (const void *)(scratch + plan->fields)};
    return glb_parallel(job->run->n_threads, work, &vectors);
}
