/* Potts models without edges at one temperature: p-dits. A draw depends on no state, so each site's sums are made once,
 * and only the sweeps that are kept are drawn, site by site. */
#include "dits.h"

#include "ising.h"
#include "parallel.h"

enum { TOGETHER = 4, MOST_LANES = 16 }; /* positions that share a counter; lanes of the widest vector */

int glb_dits_fit(const glb_potts *program, const glb_run *run) {
    return program->row_start[program->n_sites] == 0 && run->n_b == 1 && run->kernel != GLB_KERNEL_EXACT &&
           glb_kernels_of(run->isa) != NULL;
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

/* Draws V at a time: all kept sweeps of a chain, then those of the next, which may have other fields. */
struct draws {
    const glb_potts_job *job;
    int64_t n_kept;  /* sweeps with a sample */
    int64_t n_drawn; /* those, and the last sweep, whose state is asked for */
};

/* A draw: which chain, and the how-manieth drawn sweep of it; where its state goes, NULL where it does not. */
struct draw {
    int64_t chain;
    const int32_t *held; /* the chain's row of the clamp */
    int32_t *sample;
    int64_t *sum;
    int32_t *last;
};

static uint64_t sweep_of(const struct draws *draws, int64_t kept) {
    const glb_potts_job *job = draws->job;
    return kept < draws->n_kept ? job->first_sweep + (uint64_t)((kept + 1) * job->output->every) - 1
                                : job->first_sweep + (uint64_t)job->n_sweeps - 1;
}

static struct draw draw_of(const struct draws *draws, int64_t chain, int64_t kept) {
    const glb_potts_job *job = draws->job;
    const glb_output *output = job->output;
    int64_t n = job->program->n_sites;
    int is_kept = kept < draws->n_kept;
    int fits = job->samples != NULL && is_kept && kept < output->n_samples;
    return (struct draw){
        .chain = chain,
        .held = job->run->potts_clamp == NULL ? NULL : job->run->potts_clamp + chain * n,
        .sample = fits ? job->samples + (chain * output->n_samples + kept) * n : NULL,
        .sum = is_kept && output->site_sum != NULL ? output->site_sum + chain * n * job->program->n_states : NULL,
        .last = kept + 1 == draws->n_drawn ? job->state + chain * n : NULL,
    };
}

/* Neighbouring positions whose words have one counter. */
struct group {
    int32_t first;
    int32_t count;
    uint64_t *sums; /* site_words of each position */
    uint64_t total[TOGETHER];
};

/* The sums of a group's sites in a chain. */
static void fill_sums(const glb_potts_job *job, int64_t chain, struct group *group) {
    const glb_potts *program = job->program;
    const glb_run *run = job->run;
    int64_t padded = padded_sums(program);
    int64_t words = site_words(program);
    int64_t q = program->n_states;
    uint32_t bits = glb_ceil_log2((uint32_t)q);
    const int32_t *field = run->chain_field == NULL ? program->field : run->chain_field + chain * program->n_sites * q;
    for (int32_t i = 0; i < group->count; i++) {
        int64_t at = (group->first + i) * q;
        const uint8_t *allowed = program->allowed == NULL ? NULL : program->allowed + at;
        uint64_t *sums = group->sums + words * i;
        uint64_t *ends = sums + padded;
        group->total[i] = glb_kernels_of(run->isa)->dit_sums(field + at, allowed, run->b[0], q <= 64 ? 31 + bits : bits,
                                                             (int32_t)q, sums);
        for (int64_t k = q; k < padded; k++) {
            sums[k] = UINT64_MAX;
        }
        for (int64_t k = 0; k < words - padded; k++) {
            ends[k] = GLB_DIT_BLOCK * (k + 1) <= padded ? sums[GLB_DIT_BLOCK * (k + 1) - 1] : UINT64_MAX;
        }
    }
}

/* Looks up what a group's sites become in some draws of which all have the sums that are there. */
static void find_states(const glb_potts_job *job, const struct group *group, const uint32_t word[TOGETHER][MOST_LANES],
                        const struct draw *draw, int begin, int end) {
    const glb_potts *program = job->program;
    const glb_kernels *kernels = glb_kernels_of(job->run->isa);
    int64_t padded = padded_sums(program);
    for (int32_t i = 0; i < group->count; i++) {
        uint64_t target[MOST_LANES];
        int32_t state[MOST_LANES];
        int32_t position = group->first + i;
        int64_t site = program->site[position];
        const uint64_t *sums = group->sums + site_words(program) * i;
        for (int lane = begin; lane < end; lane++) {
            target[lane - begin] = glb_potts_target(word[i][lane], group->total[i]);
        }
        kernels->dit_find(sums, sums + padded, (int32_t)(padded / GLB_DIT_BLOCK), target, end - begin, state);
        for (int lane = begin; lane < end; lane++) {
            int32_t found = state[lane - begin];
            const struct draw *to = draw + lane;
            if (to->held != NULL && to->held[position] >= 0) {
                found = to->held[position];
            }
            if (to->sample != NULL) {
                to->sample[site] = found;
            }
            if (to->sum != NULL) {
                to->sum[site * program->n_states + found] += 1;
            }
            if (to->last != NULL) {
                to->last[position] = found;
            }
        }
    }
}

static void work(void *argument, glb_team *team, int thread) {
    const struct draws *draws = argument;
    const glb_potts_job *job = draws->job;
    const glb_potts *program = job->program;
    const glb_run *run = job->run;
    const glb_kernels *kernels = glb_kernels_of(run->isa);
    int64_t n_groups = ((int64_t)program->n_sites + TOGETHER - 1) / TOGETHER;
    uint8_t *scratch = job->scratch + glb_dits_scratch(program, run) / run->n_threads * thread;
    struct group group = {.sums = (uint64_t *)(void *)scratch};
    (void)team; /* sites do not meet */
    for (int64_t g = n_groups * thread / run->n_threads; g < n_groups * (thread + 1) / run->n_threads; g++) {
        int64_t filled = -1; /* whose sums are there; -1: none's */
        int64_t chain = 0;   /* of the next draw */
        int64_t kept = 0;
        group.first = (int32_t)(TOGETHER * g);
        group.count = program->n_sites - group.first < TOGETHER ? program->n_sites - group.first : TOGETHER;
        while (chain < run->n_chains) {
            uint32_t low[MOST_LANES] = {0};
            uint32_t third[MOST_LANES] = {0};
            uint32_t word[TOGETHER][MOST_LANES];
            struct draw draw[MOST_LANES];
            uint64_t high = sweep_of(draws, kept) >> 32; /* of all lanes: it is in the key */
            glb_key key = glb_make_key(run->seed, GLB_CATEGORICAL, 0, run->stream, high << 32);
            int lanes = 0;
            for (; lanes < kernels->vector_words && chain < run->n_chains; lanes++) {
                uint64_t sweep = sweep_of(draws, kept);
                if (sweep >> 32 != high) {
                    break;
                }
                low[lanes] = (uint32_t)sweep;
                third[lanes] = run->first_chain + (uint32_t)chain;
                draw[lanes] = draw_of(draws, chain, kept);
                chain += kept + 1 == draws->n_drawn;
                kept = kept + 1 == draws->n_drawn ? 0 : kept + 1;
            }
            kernels->dit_words(&key, (uint32_t)g, low, third, word);
            for (int begin = 0; begin < lanes;) {
                int end = lanes;
                int64_t whose = 0;
                if (run->chain_field != NULL) {
                    whose = draw[begin].chain;
                    end = begin;
                    while (end < lanes && draw[end].chain == whose) {
                        end++;
                    }
                }
                if (whose != filled) {
                    fill_sums(job, whose, &group);
                    filled = whose;
                }
                find_states(job, &group, (const uint32_t(*)[MOST_LANES])word, draw, begin, end);
                begin = end;
            }
        }
    }
}

int glb_dits_sweep(const glb_potts_job *job) {
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
    draws.n_drawn = draws.n_kept + !last_is_kept;
    return glb_parallel(job->run->n_threads, work, &draws);
}
