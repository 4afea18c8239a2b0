/* Moments of an Ising run: states are kept as they are, 64 of them, and added up by counting bits (kernel_moments.h). Words
 * of the state are kept in groups of a line of the cache, a row each kept sweep. */
#include "moments.h"

#include <string.h>

#include "state.h"

enum { GROUP = 32 * GLB_LINE_WORDS }; /* histories in a group */

static int32_t units_of(const glb_run *run, const glb_plan *plan) {
    return is_replica(run) ? plan->n_blocks : run->n_chains;
}

/* Groups of words that a unit's spins fill. */
static int64_t groups_of(const glb_ising *program, const glb_run *run, const glb_plan *plan) {
    int64_t words = is_replica(run) ? (int64_t)program->n_sites * plan->words : ((int64_t)program->n_sites + 31) / 32;
    return (words + GLB_LINE_WORDS - 1) / GLB_LINE_WORDS;
}

int64_t glb_ising_history_bytes(const glb_ising *program, const glb_run *run, const glb_plan *plan) {
    return 8 * GROUP * groups_of(program, run, plan) * units_of(run, plan);
}

static uint64_t *history_of(const glb_moments *moments, int64_t unit) {
    return (uint64_t *)(void *)moments->output->history +
           GROUP * groups_of(moments->program, moments->run, moments->plan) * unit;
}

/* A group's words of the present state; those behind the last spin may be anything. */
static void copy_words(const glb_moments *moments, int64_t unit, int64_t group, uint32_t *target) {
    const glb_plan *plan = moments->plan;
    if (has_bits(plan)) {
        int replica = is_replica(moments->run);
        int64_t first = word_at(plan, replica ? 0 : unit, replica ? unit * plan->words : 0);
        memcpy(target, (const uint32_t *)(const void *)moments->state + first + GLB_LINE_WORDS * group,
               4 * GLB_LINE_WORDS);
        return;
    }
    const int8_t *spin = (const int8_t *)moments->state + plan->lanes * unit;
    for (int64_t w = 0; w < GLB_LINE_WORDS; w++) {
        int64_t word = GLB_LINE_WORDS * group + w;
        target[w] = 0;
        for (int64_t i = 0; i < 32 && 32 * word < plan->lanes; i++) {
            target[w] |= (uint32_t)(spin[32 * word + i] > 0) << i;
        }
    }
}

void glb_moments_keep(const glb_moments *moments, const glb_share *share, int kept) {
    int64_t groups = groups_of(moments->program, moments->run, moments->plan);
    for (int32_t unit = share->first; unit < share->last; unit++) {
        uint32_t *rows = (uint32_t *)(void *)history_of(moments, unit);
        for (int64_t g = groups * share->thread / share->n_threads;
             g < groups * (share->thread + 1) / share->n_threads; g++) {
            copy_words(moments, unit, g, rows + 2 * GROUP * g + GLB_LINE_WORDS * kept);
        }
    }
}

void glb_moments_turn(const glb_moments *moments, const glb_share *share, int kept) {
    int64_t groups = groups_of(moments->program, moments->run, moments->plan);
    for (int32_t unit = share->first; unit < share->last; unit++) {
        for (int64_t g = groups * share->thread / share->n_threads;
             g < groups * (share->thread + 1) / share->n_threads; g++) {
            moments->kernels->turn(history_of(moments, unit) + GROUP * g, kept);
        }
    }
}

/* The sums of one site or edge: products of the spins of position p and of q, or of p with +1 where q is -1. */
static void add_row(const glb_moments *moments, const glb_share *share, int64_t p, int64_t q, int kept, int64_t *sum) {
    const glb_run *run = moments->run;
    uint64_t up[32];
    for (int i = 0; q < 0 && i < 32; i++) {
        up[i] = kept == 64 ? UINT64_MAX : (UINT64_C(1) << kept) - 1;
    }
    for (int32_t unit = share->first; unit < share->last; unit++) {
        const uint64_t *history = history_of(moments, unit);
        if (!is_replica(run)) {
            moments->kernels->add_products(sum + unit, history + p, q < 0 ? up : history + q, 1, kept);
            continue;
        }
        int64_t W = moments->plan->words;
        for (int64_t w = 0; w < W; w++) {
            int64_t chain = 32 * (unit * W + w) - lane_offset(run); /* of the word's lowest bit */
            int64_t skip = chain < 0 ? -chain : 0;
            int64_t end = run->n_chains - chain < 32 ? run->n_chains - chain : 32;
            if (skip < end) {
                const uint64_t *one = history + 32 * (W * p + w) + skip;
                const uint64_t *other = q < 0 ? up : history + 32 * (W * q + w) + skip;
                moments->kernels->add_products(sum + chain + skip, one, other, (int)(end - skip), kept);
            }
        }
    }
}

void glb_moments_add(const glb_moments *moments, const glb_share *share, int kept) {
    const glb_ising *program = moments->program;
    const glb_output *output = moments->output;
    int64_t chains = moments->run->n_chains;
    int64_t n = output->site_sum == NULL ? 0 : program->n_sites;
    for (int64_t p = n * share->thread / share->n_threads; p < n * (share->thread + 1) / share->n_threads; p++) {
        add_row(moments, share, p, -1, kept, output->site_sum + chains * program->site[p]);
    }
    n = output->edge_sum == NULL ? 0 : program->n_edges;
    for (int64_t e = n * share->thread / share->n_threads; e < n * (share->thread + 1) / share->n_threads; e++) {
        add_row(moments, share, program->edge[2 * e], program->edge[2 * e + 1], kept, output->edge_sum + chains * e);
    }
}
