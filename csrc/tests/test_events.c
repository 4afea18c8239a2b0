/* Asynchronous p-bits against an oracle that keeps every flip ever made and looks for the next update one at a time. */
#include "testing.h"

enum { LENGTH = 5, MOST_COUNTS = 6, MOST_FLIPS = 20000, THREE = 3 };

struct flip {
    int64_t tick; /* from the first sweep's begin */
    int32_t position;
};

struct events_job {
    struct graph graph;
    glb_ising program;
    glb_clock clock;
    int32_t *weight, *field, *rate;
    uint64_t counts[2 * MOST_COUNTS];
    uint64_t seed, b;
    uint32_t first_chain;
    int8_t *clamp;      /* [chain][position], or NULL */
    int64_t *in_flight; /* after LENGTH sweeps */
    int64_t n_in_flight;
};

static uint32_t word_of(const struct events_job *job, int32_t p, uint64_t sweep, int32_t chain, uint32_t j) {
    const uint32_t key[4] = {(uint32_t)job->seed, (uint32_t)(job->seed >> 32), GLB_EVENT, (uint32_t)(sweep >> 32)};
    const uint32_t counter[4] = {(uint32_t)p, (uint32_t)sweep, job->first_chain + (uint32_t)chain, j / 4};
    uint32_t word[4];
    glb_test_threefry(key, counter, word);
    return word[j % 4];
}

static int32_t count_of(const struct events_job *job, int32_t p, uint64_t sweep, int32_t chain) {
    int32_t count = 0;
    for (int32_t k = 0; k < job->clock.n_counts; k++) {
        count += job->counts[job->clock.n_counts * job->rate[p] + k] <= word_of(job, p, sweep, chain, 0);
    }
    return count;
}

/* The spin that neighbours see: as it was at the start, turned by every flip that has arrived. */
static int seen_spin(int8_t start, const struct flip *flips, int n, int32_t p, int64_t tick, int64_t delay) {
    for (int i = 0; i < n; i++) {
        if (flips[i].position == p && flips[i].tick + delay <= tick) {
            start = (int8_t)-start;
        }
    }
    return start;
}

static void oracle_chain(struct events_job *job, uint64_t first, int32_t chain, int8_t *s, int64_t *updates) {
    const struct graph *g = &job->graph;
    static struct flip flips[MOST_FLIPS];
    int n = 0;
    int8_t *start = NEW(int8_t, g->n);
    memcpy(start, s, (size_t)g->n);
    for (int i = 0; i < LENGTH; i++) {
        uint64_t sweep = first + (uint64_t)i;
        int64_t last_tick = -1;
        int32_t last_p = -1, last_k = -1;
        for (;;) { /* the earliest update after the last one, by tick, position and number */
            int64_t tick = INT64_MAX;
            int32_t at = -1, number = -1;
            for (int32_t p = 0; p < g->n; p++) {
                int held = job->clamp != NULL && job->clamp[(int64_t)g->n * chain + p] != 0;
                int32_t count = held ? 0 : count_of(job, p, sweep, chain);
                for (int32_t k = 0; k < count; k++) {
                    int64_t t = word_of(job, p, sweep, chain, 1 + 2 * (uint32_t)k);
                    int later = t > last_tick || (t == last_tick && (p > last_p || (p == last_p && k > last_k)));
                    if (later && t < tick) {
                        tick = t;
                        at = p;
                        number = k;
                    }
                }
            }
            if (at < 0) {
                break;
            }
            last_tick = tick;
            last_p = at;
            last_k = number;
            int64_t now = tick + ((int64_t)i << 32);
            int32_t field = job->field[at];
            for (int64_t k = g->row_start[at]; k < g->row_start[at + 1]; k++) {
                int32_t q = g->neighbour[k];
                field += job->weight[k] * seen_spin(start[q], flips, n, q, now, (int64_t)job->clock.delay);
            }
            uint32_t u = word_of(job, at, sweep, chain, 2 + 2 * (uint32_t)number);
            int8_t drawn = u < glb_test_threshold(field, job->b) ? 1 : -1;
            updates[g->site[at]]++;
            if (drawn != s[at] && n < MOST_FLIPS) {
                s[at] = drawn;
                flips[n++] = (struct flip){now, at};
            }
        }
    }
    CHECK(n < MOST_FLIPS, "the oracle has no room");
    for (int i = 0; i < n; i++) {
        int64_t left = flips[i].tick + (int64_t)job->clock.delay - ((int64_t)LENGTH << 32);
        if (left >= 0) {
            int64_t *row = job->in_flight + 3 * job->n_in_flight++;
            row[0] = chain;
            row[1] = flips[i].position;
            row[2] = left;
        }
    }
    free(start);
}

static int32_t site_byte(const struct graph *g, int32_t p) { return g->site[p] / 8; }

/* Runs the core, in `parts` parts of which each but the first goes on from the packed state and what was in flight. */
static void run_core(const struct events_job *job, uint64_t first, const uint8_t *start, int isa, int threads,
                     int parts, const uint8_t *wanted, const int64_t *updates) {
    const struct graph *g = &job->graph;
    int64_t bytes = (g->n + 7) / 8;
    int64_t lanes = (g->n + 31) / 32 * 32;
    uint8_t *packed = NEW(uint8_t, bytes * THREE);
    int64_t *counted = NEW(int64_t, g->n);
    int64_t *flying = NEW(int64_t, 3 * MOST_FLIPS);
    int8_t *clamp = NEW(int8_t, lanes * THREE);
    glb_clock clock = job->clock;
    glb_run run = {.seed = job->seed,
                   .layout = GLB_SITE_PLANES,
                   .n_chains = THREE,
                   .first_chain = job->first_chain,
                   .b = &job->b,
                   .n_b = 1,
                   .n_threads = threads,
                   .isa = isa,
                   .clock = &clock};
    for (int64_t k = 0; job->clamp != NULL && k < THREE * g->n; k++) {
        clamp[lanes * (k / g->n) + k % g->n] = job->clamp[k];
    }
    run.clamp = job->clamp == NULL ? NULL : clamp;
    memcpy(packed, start, (size_t)(bytes * THREE));
    for (int part = 0; part < parts; part++) {
        glb_traits traits;
        glb_plan plan;
        int from = LENGTH * part / parts;
        int to = LENGTH * (part + 1) / parts;
        int rc = glb_ising_check(&job->program, &traits) | glb_ising_plan(&job->program, &traits, &run, &plan);
        CHECK(rc == GLB_OK && plan.kernel == GLB_KERNEL_EVENTS, "asynchronous p-bits have no plan: %d", rc);
        uint8_t *state = allocate_aligned(plan.state_bytes);
        uint8_t *scratch = allocate_aligned(plan.scratch_bytes);
        glb_output output = {.updates = counted};
        rc |= glb_ising_start(&job->program, &run, &plan, packed, state);
        rc |= glb_ising_sweep(&job->program, &run, &plan, NULL, state, scratch, first + (uint64_t)from, to - from,
                              &output);
        rc |= glb_ising_pack(&job->program, &run, &plan, state, packed);
        CHECK(rc == GLB_OK, "asynchronous p-bits were refused: %d", rc);
        clock.n_in_flight = glb_events_in_flight(&run, &plan, state, flying);
        clock.in_flight = flying;
        free(state);
        free(scratch);
    }
    CHECK(memcmp(packed, wanted, (size_t)(bytes * THREE)) == 0, "events, isa %d, %d threads, %d parts: states", isa,
          threads, parts);
    CHECK(memcmp(counted, updates, 8 * (size_t)g->n) == 0, "events, isa %d, %d parts: updates", isa, parts);
    CHECK(clock.n_in_flight == job->n_in_flight &&
              memcmp(flying, job->in_flight, 24 * (size_t)job->n_in_flight) == 0,
          "events, isa %d, %d parts: in flight", isa, parts);
    free(packed);
    free(counted);
    free(flying);
    free(clamp);
}

static void fill_job(struct events_job *job, int32_t n, int32_t colours, int32_t edges, int32_t limit, int clamped) {
    job->graph = make_graph(n, colours, edges);
    const struct graph *g = &job->graph;
    int32_t *edge_weight = NEW(int32_t, g->n_edges);
    job->weight = NEW(int32_t, 2 * g->n_edges);
    job->field = NEW(int32_t, n);
    job->rate = NEW(int32_t, n);
    job->clamp = clamped ? NEW(int8_t, THREE * n) : NULL;
    job->in_flight = NEW(int64_t, 3 * MOST_FLIPS);
    job->seed = random_u64();
    job->b = (UINT64_C(1) << 32) / (uint64_t)limit;
    for (int32_t e = 0; e < g->n_edges; e++) {
        edge_weight[e] = random_int(-limit, limit);
    }
    for (int32_t k = 0; k < 2 * g->n_edges; k++) {
        job->weight[k] = edge_weight[g->row_edge[k]];
    }
    for (int32_t p = 0; p < n; p++) {
        job->field[p] = random_int(-limit, limit);
        job->rate[p] = random_int(0, 1);
    }
    for (int32_t k = 0; clamped && k < THREE * n; k++) {
        job->clamp[k] = (int8_t)(random_int(0, 3) == 0 ? 2 * random_int(0, 1) - 1 : 0);
    }
    for (int k = 0; k < MOST_COUNTS; k++) { /* two laws, not Poisson's: the core takes any */
        job->counts[k] = ((UINT64_C(1) << 32) - 1) / MOST_COUNTS * (uint64_t)(k + 1);
        job->counts[MOST_COUNTS + k] = k < 2 ? (UINT64_C(1) << 31) * (uint64_t)(k + 1) : UINT64_C(1) << 32;
    }
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
    job->clock = (glb_clock){.rate = job->rate,
                             .counts = job->counts,
                             .n_rates = 2,
                             .n_counts = MOST_COUNTS,
                             .room = MOST_COUNTS * n,
                             .room_for_flips = MOST_COUNTS * n * 4};
    free(edge_weight);
}

static void free_job(struct events_job *job) {
    free_graph(&job->graph);
    free(job->weight);
    free(job->field);
    free(job->rate);
    free(job->clamp);
    free(job->in_flight);
}

static void test_runs(void) {
    static const struct {
        int32_t n, colours, edges, limit;
        int clamped;
        uint64_t delay, first;
    } cases[] = {
        {37, 3, 70, 1, 1, 0, 1},
        {45, 2, 60, 1, 0, UINT64_C(1) << 30, (UINT64_C(1) << 32) - 3}, /* the sweep's carry */
        {33, 3, 80, 20000, 1, (UINT64_C(5) << 31) + 12345, 1},          /* a delay of two and a half sweeps */
        {2, 2, 1, 3, 0, 1, 1},
        {1, 1, 0, 3, 0, UINT64_C(1) << 32, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct events_job job = {.first_chain = 5};
        fill_job(&job, cases[i].n, cases[i].colours, cases[i].edges, cases[i].limit, cases[i].clamped);
        const struct graph *g = &job.graph;
        int64_t bytes = (g->n + 7) / 8;
        uint8_t *start = NEW(uint8_t, bytes * THREE);
        uint8_t *wanted = NEW(uint8_t, bytes * THREE);
        int64_t *updates = NEW(int64_t, g->n);
        int8_t *s = NEW(int8_t, g->n);
        job.clock.delay = cases[i].delay;
        for (int32_t chain = 0; chain < THREE; chain++) {
            for (int32_t p = 0; p < g->n; p++) {
                int held = job.clamp == NULL ? 0 : job.clamp[(int64_t)g->n * chain + p];
                s[p] = (int8_t)(held != 0 ? held : 2 * random_int(0, 1) - 1);
                start[bytes * chain + site_byte(g, p)] |= (uint8_t)((s[p] > 0) << g->site[p] % 8);
            }
            oracle_chain(&job, cases[i].first, chain, s, updates);
            for (int32_t p = 0; p < g->n; p++) {
                wanted[bytes * chain + site_byte(g, p)] |= (uint8_t)((s[p] > 0) << g->site[p] % 8);
            }
        }
        for (int isa = 0; isa < GLB_N_ISA; isa++) {
            for (int threads = 1; glb_isa_available(isa) && threads <= 4; threads++) {
                for (int parts = 1; parts <= 3; parts++) {
                    run_core(&job, cases[i].first, start, isa, threads, parts, wanted, updates);
                }
            }
        }
        free(start);
        free(wanted);
        free(updates);
        free(s);
        free_job(&job);
    }
}

/* What a clock must not be. */
static void test_refusals(void) {
    struct events_job job = {.first_chain = 0};
    fill_job(&job, 6, 2, 5, 1, 0);
    static const int64_t rows[][6] = {
        {0, 1, 9, 0, 2, 8}, {1, 1, 9, 0, 2, 9}, {0, 6, 9, 0, 1, 9}, {3, 1, 9, 3, 1, 9}, {0, 1, 9, 0, 1, 11}};
    static const int wanted[] = {GLB_OK,      GLB_E_SIZE,  GLB_E_SIZE,   GLB_E_SIZE,  GLB_E_SIZE,
                                 GLB_E_SIZE,  GLB_E_INDEX, GLB_E_KERNEL, GLB_E_ORDER, GLB_E_ORDER,
                                 GLB_E_INDEX, GLB_E_INDEX, GLB_E_ORDER,  GLB_E_ROOM};
    for (int fault = 0; fault < (int)(sizeof wanted / sizeof wanted[0]); fault++) {
        glb_traits traits;
        glb_plan plan;
        glb_clock clock = job.clock;
        glb_run run = {.n_chains = THREE, .b = &job.b, .n_b = 1, .n_threads = 1, .clock = &clock};
        clock.delay = 10;
        run.layout = fault == 1 ? GLB_REPLICA_PLANES : GLB_SITE_PLANES;
        run.dynamics = fault == 2 ? GLB_BY_METROPOLIS : GLB_BY_HEAT_BATH;
        run.moves_every = fault == 3;
        clock.room = fault == 4 ? 0 : clock.room;
        clock.delay = fault == 5 ? (UINT64_C(64) << 32) + 1 : clock.delay;
        clock.n_rates = fault == 6 ? 1 : 2;
        run.kernel = fault == 7 ? GLB_KERNEL_SITES : GLB_KERNEL_AUTO;
        if (fault >= 8 && fault < 13) {
            clock.in_flight = rows[fault - 8];
            clock.n_in_flight = 2;
        }
        if (fault == 13) {
            clock.in_flight = rows[4];
            clock.n_in_flight = 2;
            clock.delay = 11;
            clock.room_for_flips = 1;
        }
        job.rate[0] = 1;
        int rc = glb_ising_check(&job.program, &traits);
        CHECK(rc == GLB_OK, "a valid program");
        CHECK(glb_ising_plan(&job.program, &traits, &run, &plan) == wanted[fault], "fault %d of a clock", fault);
    }
    free_job(&job);
}

void test_events(void) {
    test_runs();
    test_refusals();
}
