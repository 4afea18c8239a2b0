/* Potts models without edges at one temperature: p-dits. A draw depends on no state, so each site's sums are made once,
 * and only the sweeps that are kept are drawn, site by site. */
#include "dits.h"

#include "ising.h"
#include "parallel.h"

enum { TOGETHER = 4, MOST_LANES = 16 }; /* positions that share a counter; lanes of the widest vector */

int glb_dits_fit(const glb_potts *program, const glb_run *run) {
    return program->row_start[program->n_sites] == 0 && run->chain_field == NULL && run->n_b == 1 &&
           run->kernel != GLB_KERNEL_EXACT && glb_kernels_of(run->isa) != NULL;
}

/* Sums of a site, and the last of each block of them, in words of 64 bits; both padded for whole vectors. */
static int64_t padded_sums(const glb_potts *program) {
    return ((int64_t)program->n_states + GLB_DIT_BLOCK - 1) / GLB_DIT_BLOCK * GLB_DIT_BLOCK;
}

static int64_t site_words(const glb_potts *program) {
    return padded_sums(program) + (padded_sums(program) / GLB_DIT_BLOCK + 7) / 8 * 8;
}

int64_t glb_dits_scratch(const glb_potts *program, const glb_run *run) {
    return TOGETHER * site_words(program) * (int64_t)sizeof(uint64_t) * run->n_threads;
}

/* Draws V at a time: all chains of a kept sweep, then those of the next. */
struct draws {
    const glb_dits_job *job;
    int64_t n_kept; /* sweeps with a sample */
    int64_t n;
};

static uint64_t sweep_of(const struct draws *draws, int64_t kept) {
    const glb_dits_job *job = draws->job;
    return kept < draws->n_kept ? job->first_sweep + (uint64_t)((kept + 1) * job->output->every) - 1
                                : job->first_sweep + (uint64_t)job->n_sweeps - 1;
}

static void work(void *argument, glb_team *team, int thread) {
    const struct draws *draws = argument;
    const glb_dits_job *job = draws->job;
    const glb_potts *program = job->program;
    const glb_run *run = job->run;
    const glb_output *output = job->output;
    const glb_kernels *kernels = glb_kernels_of(run->isa);
    int64_t padded = padded_sums(program);
    int64_t words = site_words(program);
    int64_t n = program->n_sites;
    int64_t q = program->n_states;
    uint32_t bits = glb_ceil_log2((uint32_t)q);
    int64_t n_groups = ((int64_t)program->n_sites + TOGETHER - 1) / TOGETHER;
    uint64_t *sums = (uint64_t *)(void *)(job->scratch + glb_dits_scratch(program, run) / run->n_threads * thread);
    (void)team; /* sites do not meet */
    for (int64_t g = n_groups * thread / run->n_threads; g < n_groups * (thread + 1) / run->n_threads; g++) {
        int32_t first = (int32_t)(TOGETHER * g);
        int32_t count = program->n_sites - first < TOGETHER ? program->n_sites - first : TOGETHER;
        uint64_t total[TOGETHER];
        for (int32_t i = 0; i < count; i++) {
            int64_t at = (first + i) * q;
            const uint8_t *allowed = program->allowed == NULL ? NULL : program->allowed + at;
            total[i] = kernels->dit_sums(program->field + at, allowed, run->b[0], q <= 64 ? 31 + bits : bits, (int32_t)q,
                                         sums + words * i);
            uint64_t *padding = sums + words * i;
            uint64_t *ends = padding + padded;
            for (int64_t k = q; k < padded; k++) {
                padding[k] = UINT64_MAX;
            }
            for (int64_t k = 0; k < words - padded; k++) {
                ends[k] = GLB_DIT_BLOCK * (k + 1) <= padded ? padding[GLB_DIT_BLOCK * (k + 1) - 1] : UINT64_MAX;
            }
        }
        int64_t kept = 0; /* of the next draw */
        int64_t chain = 0;
        while (kept * run->n_chains < draws->n) {
            uint32_t low[MOST_LANES] = {0};
            uint32_t third[MOST_LANES] = {0};
            uint32_t word[TOGETHER][MOST_LANES];
            const int32_t *held[MOST_LANES]; /* rows of the lanes' chains, or NULL */
            int32_t *sample[MOST_LANES];
            int64_t *sum[MOST_LANES];
            int32_t *last[MOST_LANES];
            uint64_t high = sweep_of(draws, kept) >> 32;
            glb_key key = glb_make_key(run->seed, GLB_CATEGORICAL, 0, run->stream, high << 32);
            int lanes = 0;
            for (; lanes < kernels->vector_words && kept * run->n_chains < draws->n; lanes++) {
                uint64_t sweep = sweep_of(draws, kept);
                if (sweep >> 32 != high) {
                    break;
                }
                low[lanes] = (uint32_t)sweep;
                third[lanes] = run->first_chain + (uint32_t)chain;
                int is_last = sweep == job->first_sweep + (uint64_t)job->n_sweeps - 1;
                int is_kept = kept < draws->n_kept;
                int fits = job->samples != NULL && is_kept && kept < output->n_samples;
                sample[lanes] = fits ? job->samples + (chain * output->n_samples + kept) * n : NULL;
                sum[lanes] = is_kept && output->site_sum != NULL ? output->site_sum + chain * n * q : NULL;
                last[lanes] = is_last ? job->state + chain * n : NULL;
                held[lanes] = run->potts_clamp == NULL ? NULL : run->potts_clamp + chain * n;
                kept += chain + 1 == run->n_chains;
                chain = chain + 1 == run->n_chains ? 0 : chain + 1;
            }
            kernels->dit_words(&key, (uint32_t)g, low, third, word);
            for (int32_t i = 0; i < count; i++) {
                uint64_t target[MOST_LANES];
                int32_t state[MOST_LANES];
                int64_t site = program->site[first + i];
                for (int lane = 0; lane < lanes; lane++) {
                    target[lane] = glb_potts_target(word[i][lane], total[i]);
                }
                kernels->dit_find(sums + words * i, sums + words * i + padded, (int32_t)(padded / GLB_DIT_BLOCK), target, lanes, state);
                for (int lane = 0; lane < lanes; lane++) {
                    if (held[lane] != NULL && held[lane][first + i] >= 0) {
                        state[lane] = held[lane][first + i];
                    }
                    if (sample[lane] != NULL) {
                        sample[lane][site] = state[lane];
                    }
                    if (sum[lane] != NULL) {
                        sum[lane][site * q + state[lane]] += 1;
                    }
                    if (last[lane] != NULL) {
                        last[lane][first + i] = state[lane];
                    }
                }
            }
        }
    }
}

int glb_dits_sweep(const glb_dits_job *job) {
    int64_t every = job->output->every;
    struct draws draws = {.job = job};
    if (job->n_sweeps < 1) {
        return GLB_OK;
    }
    draws.n_kept = every > 0 ? job->n_sweeps / every : 0;
    if (job->samples == NULL && job->output->site_sum == NULL) {
        draws.n_kept = 0;
    }
    int last_is_kept = draws.n_kept > 0 && draws.n_kept * every == job->n_sweeps;
    draws.n = (draws.n_kept + !last_is_kept) * job->run->n_chains;
    return glb_parallel(job->run->n_threads, work, &draws);
}
