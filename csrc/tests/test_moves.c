/* Moves between chains against an oracle, written from docs/machine.md one chain at a time: tempering and
 * population annealing. */
#include "testing.h"

struct moves_job {
    struct graph graph;
    glb_ising program;
    int32_t *weight, *field;
    uint64_t seed, b[8];
    int32_t n_chains, n_b, n_ladders;
    int64_t every;
    int32_t layout;
};

static void make_job(struct moves_job *job, int32_t n, int32_t colours, int32_t edges, int32_t limit) {
    job->graph = make_graph(n, colours, edges);
    const struct graph *g = &job->graph;
    int32_t *edge_weight = NEW(int32_t, g->n_edges);
    job->weight = NEW(int32_t, 2 * g->n_edges);
    job->field = NEW(int32_t, n);
    job->seed = random_u64();
    for (int32_t e = 0; e < g->n_edges; e++) {
        edge_weight[e] = random_int(-limit, limit);
    }
    for (int32_t k = 0; k < 2 * g->n_edges; k++) {
        job->weight[k] = edge_weight[g->row_edge[k]];
    }
    for (int32_t p = 0; p < n; p++) {
        job->field[p] = random_int(-limit, limit);
    }
    free(edge_weight);
    job->program = (glb_ising){.n_sites = n,
                               .n_colours = colours,
                               .colour_start = g->colour_start,
                               .site = g->site,
                               .position = g->position,
                               .row_start = g->row_start,
                               .neighbour = g->neighbour,
                               .weight = job->weight,
                               .field = job->field,
                               .n_edges = g->n_edges,
                               .edge = g->edge};
}

static void free_job(struct moves_job *job) {
    free_graph(&job->graph);
    free(job->weight);
    free(job->field);
}

static glb_run run_of(const struct moves_job *job, int isa, int kernel, int threads) {
    return (glb_run){.seed = job->seed,
                     .layout = job->layout,
                     .n_chains = job->n_chains,
                     .b = job->b,
                     .n_b = job->n_b,
                     .n_threads = threads,
                     .isa = isa,
                     .kernel = kernel,
                     .n_ladders = job->n_ladders,
                     .moves_every = job->every};
}

static int spin(const struct moves_job *job, const uint8_t *packed, int32_t chain, int32_t p) {
    int32_t site = job->graph.site[p];
    int64_t bytes = (job->graph.n + 7) / 8;
    return (packed[bytes * chain + site / 8] >> site % 8) & 1 ? 1 : -1;
}

static int64_t energy(const struct moves_job *job, const uint8_t *packed, int32_t chain) {
    const struct graph *g = &job->graph;
    int64_t twice = 0;
    for (int32_t p = 0; p < g->n; p++) {
        twice -= 2 * (int64_t)job->field[p] * spin(job, packed, chain, p);
        for (int64_t k = g->row_start[p]; k < g->row_start[p + 1]; k++) {
            twice -= (int64_t)job->weight[k] * spin(job, packed, chain, p) * spin(job, packed, chain, g->neighbour[k]);
        }
    }
    return twice / 2;
}

/* What a run counts beside its states. */
enum { MOST = 16, MOST_CHAINS = 160 };
struct counts {
    int64_t exchanges[MOST], lowest[MOST];
    uint64_t weights[MOST];
    int32_t family[MOST_CHAINS];
};

/* The states after n_sweeps sweeps of the core, from `packed` or at random, into `after`. */
static void core_sweeps(const struct moves_job *job, const glb_run *run, const uint8_t *packed, uint64_t first,
                        int64_t n_sweeps, struct counts *counts, uint8_t *after) {
    glb_traits traits;
    glb_plan plan;
    int rc = glb_ising_check(&job->program, &traits) | glb_ising_plan(&job->program, &traits, run, &plan);
    CHECK(rc == GLB_OK, "a run with moves has no plan: %d", rc);
    uint8_t *net = allocate_aligned(glb_ising_net_bytes(&job->program, &traits, &plan));
    uint8_t *state = allocate_aligned(plan.state_bytes);
    uint8_t *scratch = allocate_aligned(plan.scratch_bytes);
    memset(scratch, 0, (size_t)plan.scratch_bytes);
    glb_output output = {.exchanges = counts->exchanges,
                         .lowest = counts->lowest,
                         .weights = counts->weights,
                         .family = counts->family};
    rc |= glb_ising_net(&job->program, &traits, &plan, net);
    rc |= glb_ising_start(&job->program, run, &plan, packed, state);
    rc |= glb_ising_sweep(&job->program, run, &plan, net, state, scratch, first, n_sweeps, &output);
    rc |= glb_ising_pack(&job->program, run, &plan, state, after);
    CHECK(rc == GLB_OK, "a run with moves was refused: %d", rc);
    free(net);
    free(state);
    free(scratch);
}

static void swap_chains(const struct moves_job *job, uint8_t *packed, int32_t a, int32_t b) {
    int64_t bytes = (job->graph.n + 7) / 8;
    for (int64_t i = 0; i < bytes; i++) {
        uint8_t kept = packed[bytes * a + i];
        packed[bytes * a + i] = packed[bytes * b + i];
        packed[bytes * b + i] = kept;
    }
}

static void oracle_exchange(const struct moves_job *job, uint64_t sweep, uint8_t *packed, int64_t *exchanges) {
    const uint32_t key[4] = {(uint32_t)job->seed, (uint32_t)(job->seed >> 32), GLB_EXCHANGE, (uint32_t)(sweep >> 32)};
    for (int32_t k = (int32_t)((sweep / (uint64_t)job->every + 1) % 2); k + 1 < job->n_b; k += 2) {
        for (int32_t l = 0; l < job->n_ladders; l++) {
            int32_t low = k * job->n_ladders + l;
            int32_t high = low + job->n_ladders;
            int64_t rise = (energy(job, packed, high) - energy(job, packed, low)) / 2;
            const uint32_t counter[4] = {(uint32_t)k, (uint32_t)sweep, (uint32_t)l, 0};
            uint32_t word[4];
            glb_test_threefry(key, counter, word);
            int accepted = rise >= 0 ||
                           word[0] < glb_test_exp2(glb_scale((uint64_t)-rise, job->b[k + 1] - job->b[k])) >> 30;
            exchanges[2 * k]++;
            exchanges[2 * k + 1] += accepted;
            if (accepted) {
                swap_chains(job, packed, low, high);
            }
        }
    }
}

/* One sweep of each temperature by itself, without moves, then the oracle's exchange; against whole tempered runs. */
static void test_tempering(void) {
    static const struct {
        int32_t n, colours, edges, limit, n_b, n_ladders;
        int64_t every;
        uint64_t first;
    } cases[] = {
        {45, 3, 70, 1, 3, 32, 1, 1},
        {45, 2, 60, 1, 2, 64, 2, 1},
        {40, 3, 70, 1, 4, 21, 1, (UINT64_C(1) << 32) - 3}, /* several temperatures a word; the sweep's carry */
        {45, 3, 80, 20000, 3, 32, 1, 1},
        {30, 4, 60, 5, 5, 1, 1, 1},
        {66, 1, 0, 300, 4, 40, 1, 1},
    };
    enum { LENGTH = 6 };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int32_t layout = 0; layout < 2; layout++) {
            struct moves_job job = {.n_b = cases[i].n_b,
                                    .n_ladders = cases[i].n_ladders,
                                    .n_chains = cases[i].n_b * cases[i].n_ladders,
                                    .every = cases[i].every,
                                    .layout = layout};
            make_job(&job, cases[i].n, cases[i].colours, cases[i].edges, cases[i].limit);
            for (int32_t k = 0; k < job.n_b; k++) {
                job.b[k] = (UINT64_C(1) << 31) / (uint64_t)cases[i].limit * (uint64_t)(k + 1);
            }
            int64_t bytes = (job.graph.n + 7) / 8;
            uint8_t *wanted = NEW(uint8_t, bytes * job.n_chains);
            uint8_t *next = NEW(uint8_t, bytes * job.n_chains);
            uint8_t *got = NEW(uint8_t, bytes * job.n_chains);
            uint8_t *start = NEW(uint8_t, bytes * job.n_chains);
            struct counts counted = {0};
            for (int64_t k = 0; k < bytes * job.n_chains; k++) {
                start[k] = (uint8_t)random_u64();
            }
            memcpy(wanted, start, (size_t)(bytes * job.n_chains));
            for (uint64_t s = cases[i].first; s < cases[i].first + LENGTH; s++) {
                for (int32_t k = 0; k < job.n_b; k++) { /* all chains at b[k], of which those of k are kept */
                    glb_run run = run_of(&job, GLB_ISA_PORTABLE, GLB_KERNEL_AUTO, 1);
                    run.b = job.b + k;
                    run.n_b = 1;
                    run.n_ladders = 0;
                    run.moves_every = 0;
                    struct counts none = {0};
                    core_sweeps(&job, &run, wanted, s, 1, &none, got);
                    int64_t from = bytes * k * job.n_ladders;
                    memcpy(next + from, got + from, (size_t)(bytes * job.n_ladders));
                }
                memcpy(wanted, next, (size_t)(bytes * job.n_chains));
                if (s % (uint64_t)job.every == 0) {
                    oracle_exchange(&job, s, wanted, counted.exchanges);
                }
            }
            for (int isa = 0; isa < GLB_N_ISA; isa++) {
                for (int threads = 1; glb_isa_available(isa) && threads <= 3; threads++) {
                    for (int kernel = 0; kernel < 2; kernel++) {
                        int forced = layout == GLB_REPLICA_PLANES ? GLB_KERNEL_EXACT : GLB_KERNEL_SITES;
                        glb_run run = run_of(&job, isa, kernel == 0 ? GLB_KERNEL_AUTO : forced, threads);
                        struct counts counts = {0};
                        core_sweeps(&job, &run, start, cases[i].first, LENGTH, &counts, got);
                        CHECK(memcmp(got, wanted, (size_t)(bytes * job.n_chains)) == 0,
                              "tempering, case %d, layout %d, isa %d, kernel %d, %d threads: states", (int)i,
                              (int)layout, isa, run.kernel, threads);
                        CHECK(memcmp(&counts, &counted, sizeof counted) == 0, "tempering, case %d: counts", (int)i);
                    }
                }
            }
            free(wanted);
            free(next);
            free(got);
            free(start);
            free_job(&job);
        }
    }
}

static void oracle_resample(const struct moves_job *job, uint64_t sweep, uint8_t *packed, int64_t number,
                            struct counts *counts) {
    const uint32_t key[4] = {(uint32_t)job->seed, (uint32_t)(job->seed >> 32), GLB_RESAMPLING, (uint32_t)(sweep >> 32)};
    const uint32_t counter[4] = {0, (uint32_t)sweep, 0, 0};
    int64_t bytes = (job->graph.n + 7) / 8;
    uint64_t n = (uint64_t)job->n_chains;
    uint8_t *old = NEW(uint8_t, bytes * job->n_chains);
    uint64_t sums[MOST_CHAINS];
    int32_t family[MOST_CHAINS];
    uint32_t word[4];
    int64_t lowest = INT64_MAX;
    uint64_t total = 0;
    int shift = 0;
    while ((UINT64_C(1) << shift) < n) {
        shift++;
    }
    for (int32_t c = 0; c < job->n_chains; c++) {
        int64_t e = energy(job, packed, c);
        lowest = e < lowest ? e : lowest;
    }
    for (int32_t c = 0; c < job->n_chains; c++) {
        uint64_t rise = (uint64_t)(energy(job, packed, c) - lowest) / 2;
        total += glb_test_exp2(glb_scale(rise, job->b[sweep] - job->b[sweep - 1])) >> shift;
        sums[c] = total;
    }
    memcpy(old, packed, (size_t)(bytes * job->n_chains));
    memcpy(family, counts->family, sizeof family);
    glb_test_threefry(key, counter, word);
    uint64_t start = glb_potts_target(word[0], total);
    for (uint64_t c = 0; c < n; c++) {
        /* floor((c total + start) / n) in halves: total = high n + low, all products far below 2^64 */
        uint64_t target = c * (total / n) + (c * (total % n) + start % n) / n + start / n;
        int32_t parent = 0;
        while (sums[parent] <= target) {
            parent++;
        }
        memcpy(packed + bytes * (int64_t)c, old + bytes * parent, (size_t)bytes);
        counts->family[c] = family[parent];
    }
    counts->lowest[number] = lowest;
    counts->weights[number] = total;
    free(old);
}

static void test_population(void) {
    static const struct {
        int32_t n, colours, edges, limit, n_chains;
        int64_t every;
    } cases[] = {
        {45, 3, 70, 1, 100, 1}, {45, 2, 60, 1, 64, 2}, {45, 3, 80, 20000, 33, 1}, {30, 4, 60, 5, 3, 3}, {66, 1, 0, 300, 160, 2},
    };
    enum { LENGTH = 8 };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int32_t layout = 0; layout < 2; layout++) {
            struct moves_job job = {.n_b = LENGTH,
                                    .n_chains = cases[i].n_chains,
                                    .every = cases[i].every,
                                    .layout = layout};
            make_job(&job, cases[i].n, cases[i].colours, cases[i].edges, cases[i].limit);
            for (int32_t k = 0; k < LENGTH; k++) {
                uint64_t step = (uint64_t)(k / cases[i].every);
                job.b[k] = (UINT64_C(1) << 30) / (uint64_t)cases[i].limit * step;
            }
            int64_t size = (job.graph.n + 7) / 8 * job.n_chains;
            uint8_t *wanted = NEW(uint8_t, size);
            uint8_t *got = NEW(uint8_t, size);
            uint8_t *start = NEW(uint8_t, size);
            struct counts counted = {0};
            struct counts first = {0};
            for (int64_t k = 0; k < size; k++) {
                start[k] = (uint8_t)random_u64();
            }
            for (int32_t c = 0; c < job.n_chains; c++) {
                counted.family[c] = first.family[c] = c;
            }
            memcpy(wanted, start, (size_t)size);
            for (uint64_t s = 1; s <= LENGTH; s++) {
                glb_run run = run_of(&job, GLB_ISA_PORTABLE, GLB_KERNEL_AUTO, 1);
                struct counts none = {0};
                run.moves_every = 0;
                core_sweeps(&job, &run, wanted, s, 1, &none, got);
                memcpy(wanted, got, (size_t)size);
                if (s % (uint64_t)job.every == 0 && s < LENGTH) {
                    oracle_resample(&job, s, wanted, (int64_t)(s / (uint64_t)job.every) - 1, &counted);
                }
            }
            for (int isa = 0; isa < GLB_N_ISA; isa++) {
                for (int threads = 1; glb_isa_available(isa) && threads <= 3; threads++) {
                    glb_run run = run_of(&job, isa, GLB_KERNEL_AUTO, threads);
                    struct counts counts = first;
                    core_sweeps(&job, &run, start, 1, LENGTH, &counts, got);
                    CHECK(memcmp(got, wanted, (size_t)size) == 0,
                          "population, case %d, layout %d, isa %d, %d threads: states", (int)i, (int)layout, isa,
                          threads);
                    CHECK(memcmp(&counts, &counted, sizeof counted) == 0, "population, case %d: counts", (int)i);
                }
            }
            free(wanted);
            free(got);
            free(start);
            free_job(&job);
        }
    }
}

/* What a run with moves must not be. */
static void test_refusals(void) {
    struct moves_job job = {.n_b = 3, .n_ladders = 4, .n_chains = 12, .every = 1, .b = {1, 2, 3}};
    glb_traits traits;
    glb_plan plan;
    make_job(&job, 6, 2, 5, 1);
    int rc = glb_ising_check(&job.program, &traits);
    glb_run run = run_of(&job, GLB_ISA_PORTABLE, GLB_KERNEL_AUTO, 1);
    CHECK(rc == GLB_OK && glb_ising_plan(&job.program, &traits, &run, &plan) == GLB_OK, "a valid run");
    for (int fault = 0; fault < 8; fault++) {
        glb_run broken = run;
        static const uint64_t falling[3] = {1, 3, 2};
        int wanted = GLB_E_SIZE;
        switch (fault) {
        case 0:
            broken.first_chain = 32;
            break;
        case 1:
            broken.n_chains = 13;
            break;
        case 2:
            broken.moves_every = 0; /* ladders that never exchange */
            break;
        case 3:
            broken.n_ladders = -4;
            break;
        case 4:
            broken.kernel = GLB_KERNEL_BITS; /* several temperatures in a block */
            wanted = GLB_E_KERNEL;
            break;
        case 5:
            broken.dynamics = GLB_BY_METROPOLIS;
            break;
        case 6:
            broken.dynamics = 2;
            break;
        default:
            broken.b = falling;
            wanted = GLB_E_RANGE;
        }
        CHECK(glb_ising_plan(&job.program, &traits, &broken, &plan) == wanted, "fault %d of a run with moves", fault);
    }
    free_job(&job);
}

void test_moves(void) {
    test_tempering();
    test_population();
    test_refusals();
}
