/* Ising runs against an oracle, written from docs/machine.md with one decision at a time and nothing taken from the
 * kernels: any difference, in any bit, is a failure. */
#include "testing.h"

/* The word of 32 bits that the contract gives a decision: bit by bit, section 4. */
static uint32_t oracle_u(uint64_t seed, uint32_t purpose, int32_t layout, uint32_t stream, uint32_t position,
                         uint64_t sweep, uint32_t chain) {
    const uint32_t key[4] = {(uint32_t)seed, (uint32_t)(seed >> 32), purpose + 16u * (uint32_t)layout + 256u * stream,
                             (uint32_t)(sweep >> 32)};
    uint32_t a = layout == GLB_REPLICA_PLANES ? position : position / 32;
    uint32_t c = layout == GLB_REPLICA_PLANES ? chain / 32 : chain;
    uint32_t bit = layout == GLB_REPLICA_PLANES ? chain % 32 : position % 32;
    uint32_t u = 0;
    for (uint32_t g = 0; g < 8; g++) {
        const uint32_t counter[4] = {a, (uint32_t)sweep, c, g};
        uint32_t word[4];
        glb_test_threefry(key, counter, word);
        for (int w = 0; w < 4; w++) {
            u = u << 1 | ((word[w] >> bit) & 1u);
        }
    }
    return u;
}

enum { CHAINS = 71 };

/* A job of CHAINS chains, arrays by [chain][position], and what it must return. */
struct ising_job {
    struct graph graph;
    glb_ising program;
    int32_t *weight, *field;
    uint64_t seed, first_sweep, *b;
    uint32_t stream;
    int64_t n_b;
    int32_t layout;
    int32_t dynamics;
    int n_chains;         /* of the whole job */
    int32_t *chain_field; /* or NULL */
    int8_t *clamp;        /* or NULL */
    uint8_t *packed;      /* start, [chain][byte], or NULL */
    int8_t *last;         /* [chain][position] */
    uint8_t *samples;     /* [chain][sample][byte] */
    int64_t *site_sum, *edge_sum; /* [chain][site], [chain][edge] */
};

static int64_t bytes_of(const struct ising_job *job) { return ((int64_t)job->graph.n + 7) / 8; }

/* What the job must return, one decision after another. */
static void ising_oracle(struct ising_job *job) {
    const struct graph *g = &job->graph;
    int64_t bytes = bytes_of(job);
    job->last = NEW(int8_t, job->n_chains * g->n);
    job->samples = NEW(uint8_t, job->n_chains * SAMPLES * bytes);
    job->site_sum = NEW(int64_t, job->n_chains * g->n);
    job->edge_sum = NEW(int64_t, job->n_chains * g->n_edges);
    for (int chain = 0; chain < job->n_chains; chain++) {
        int8_t *s = job->last + (int64_t)chain * g->n;
        const int8_t *clamp = job->clamp == NULL ? NULL : job->clamp + (int64_t)chain * g->n;
        for (int32_t p = 0; p < g->n; p++) {
            uint32_t u = oracle_u(job->seed, GLB_START, job->layout, job->stream, (uint32_t)p, 0, (uint32_t)chain);
            s[p] = u < 0x80000000u ? 1 : -1;
            if (job->packed != NULL) {
                s[p] = (job->packed[bytes * chain + g->site[p] / 8] >> g->site[p] % 8) & 1 ? 1 : -1;
            }
            s[p] = clamp != NULL && clamp[p] != 0 ? clamp[p] : s[p];
        }
        for (int i = 0; i < SWEEPS; i++) {
            uint64_t sweep = job->first_sweep + (uint64_t)i;
            uint64_t b = job->b[sweep <= (uint64_t)job->n_b ? sweep - 1 : (uint64_t)job->n_b - 1];
            for (int32_t p = 0; p < g->n; p++) { /* positions go colour by colour */
                int32_t field = job->chain_field != NULL ? job->chain_field[(int64_t)chain * g->n + p] : job->field[p];
                for (int64_t k = g->row_start[p]; k < g->row_start[p + 1]; k++) {
                    field += job->weight[k] * s[g->neighbour[k]];
                }
                if (clamp != NULL && clamp[p] != 0) {
                    continue;
                }
                int flips = job->dynamics == GLB_BY_METROPOLIS;
                uint32_t u = oracle_u(job->seed, flips ? GLB_METROPOLIS : GLB_DECISION, job->layout, job->stream,
                                      (uint32_t)p, sweep, (uint32_t)chain);
                if (!flips) {
                    s[p] = u < glb_test_threshold(field, b) ? 1 : -1;
                    continue;
                }
                int64_t held = field * s[p];
                uint64_t limit = held > 0 ? glb_test_exp2(glb_scale((uint64_t)held, b)) >> 30 : UINT64_C(1) << 32;
                if (u < limit && u != 0xFFFFFFFFu) {
                    s[p] = (int8_t)-s[p];
                }
            }
            if ((i + 1) % EVERY != 0) {
                continue;
            }
            for (int32_t p = 0; p < g->n; p++) {
                int32_t site = g->site[p];
                job->site_sum[(int64_t)chain * g->n + site] += s[p];
                job->samples[(chain * SAMPLES + (i + 1) / EVERY - 1) * bytes + site / 8] |=
                    (uint8_t)((s[p] > 0) << site % 8);
            }
            for (int32_t e = 0; e < g->n_edges; e++) {
                job->edge_sum[(int64_t)chain * g->n_edges + e] += s[g->edge[2 * e]] * s[g->edge[2 * e + 1]];
            }
        }
    }
}

static void free_ising(struct ising_job *job) {
    free_graph(&job->graph);
    free(job->weight);
    free(job->field);
    free(job->b);
    free(job->chain_field);
    free(job->clamp);
    free(job->packed);
    free(job->last);
    free(job->samples);
    free(job->site_sum);
    free(job->edge_sum);
}

/* A program on a graph: symmetric weights up to `limit`, fields up to 2 `limit`. */
static struct ising_job ising_on(struct graph graph, int32_t limit) {
    struct ising_job job = {.graph = graph, .seed = random_u64(), .stream = 0, .first_sweep = 1};
    job.weight = NEW(int32_t, 2 * graph.n_edges);
    job.field = NEW(int32_t, graph.n);
    int32_t *edge_weight = NEW(int32_t, graph.n_edges);
    for (int32_t e = 0; e < graph.n_edges; e++) {
        edge_weight[e] = random_int(-limit, limit);
    }
    for (int64_t k = 0; k < 2 * graph.n_edges; k++) {
        job.weight[k] = edge_weight[graph.row_edge[k]];
    }
    for (int32_t p = 0; p < graph.n; p++) {
        job.field[p] = random_int(-2 * limit, 2 * limit);
    }
    free(edge_weight);
    job.program = (glb_ising){.n_sites = graph.n,
                              .n_colours = graph.n_colours,
                              .colour_start = graph.colour_start,
                              .site = graph.site,
                              .position = graph.position,
                              .row_start = graph.row_start,
                              .neighbour = graph.neighbour,
                              .weight = job.weight,
                              .field = job.field,
                              .n_edges = graph.n_edges,
                              .edge = graph.edge};
    return job;
}

/* Runs the chains first .. first + n - 1 as a shard, in one or two parts, and compares every bit with the oracle. */
static void ising_shard(const struct ising_job *job, int first, int n, int isa, int kernel, int threads,
                        int parts) {
    const struct graph *g = &job->graph;
    int64_t bytes = bytes_of(job);
    glb_traits traits;
    glb_plan plan;
    int wrong = 0;
    glb_run run = {.seed = job->seed,
                   .stream = job->stream,
                   .layout = job->layout,
                   .n_chains = n,
                   .first_chain = (uint32_t)first,
                   .b = job->b,
                   .n_b = job->n_b,
                   .n_threads = threads,
                   .isa = isa,
                   .kernel = kernel,
                   .dynamics = job->dynamics};
    int replica = job->layout == GLB_REPLICA_PLANES;
    int64_t row = ((replica ? first % 32 + n : g->n) + 31) / 32 * 32;
    int64_t lanes = row * (replica ? g->n : n);
    int32_t *chain_field = NEW(int32_t, lanes);
    int8_t *clamp = NEW(int8_t, lanes);
    uint8_t *samples = NEW(uint8_t, n * SAMPLES * bytes);
    uint8_t *packed = NEW(uint8_t, n * bytes);
    int64_t *site_sum = NEW(int64_t, g->n * n);
    int64_t *edge_sum = NEW(int64_t, g->n_edges * n);
    for (int chain = 0; chain < n; chain++) {
        for (int32_t p = 0; p < g->n; p++) {
            int64_t at = replica ? row * p + first % 32 + chain : row * chain + p;
            int64_t from = (int64_t)(first + chain) * g->n + p;
            chain_field[at] = job->chain_field != NULL ? job->chain_field[from] : 0;
            clamp[at] = job->clamp != NULL ? job->clamp[from] : 0;
        }
    }
    run.chain_field = job->chain_field != NULL ? chain_field : NULL;
    run.clamp = job->clamp != NULL ? clamp : NULL;
    int rc = glb_ising_check(&job->program, &traits) | glb_ising_plan(&job->program, &traits, &run, &plan);
    CHECK(rc == GLB_OK && plan.lanes == row && (kernel == GLB_KERNEL_AUTO || plan.kernel == kernel),
          "an Ising shard has no plan: %d", rc);
    uint8_t *net = allocate_aligned(glb_ising_net_bytes(&job->program, &traits, &plan));
    uint8_t *state = allocate_aligned(plan.state_bytes);
    uint8_t *scratch = allocate_aligned(plan.scratch_bytes);
    memset(scratch, 0, (size_t)plan.scratch_bytes);
    uint8_t *history = allocate_aligned(glb_ising_history_bytes(&job->program, &run, &plan));
    rc |= glb_ising_net(&job->program, &traits, &plan, net);
    rc |= glb_ising_start(&job->program, &run, &plan, job->packed == NULL ? NULL : job->packed + bytes * first, state);
    glb_output output = {.every = EVERY,
                         .samples = samples,
                         .n_samples = SAMPLES,
                         .site_sum = site_sum,
                         .edge_sum = edge_sum,
                         .history = history};
    if (parts == 1) {
        rc |= glb_ising_sweep(&job->program, &run, &plan, net, state, scratch, job->first_sweep, SWEEPS, &output);
    } else {
        /* The first part ends on a sample; the second starts from its packed state with fresh working memory. */
        enum { DONE = 2 * EVERY };
        uint8_t *early = NEW(uint8_t, n * (DONE / EVERY) * bytes);
        uint8_t *late = NEW(uint8_t, n * (SAMPLES - DONE / EVERY) * bytes);
        output.samples = early;
        output.n_samples = DONE / EVERY;
        rc |= glb_ising_sweep(&job->program, &run, &plan, net, state, scratch, job->first_sweep, DONE, &output);
        rc |= glb_ising_pack(&job->program, &run, &plan, state, packed);
        memset(state, 77, (size_t)plan.state_bytes);
        rc |= glb_ising_start(&job->program, &run, &plan, packed, state);
        output.samples = late;
        output.n_samples = SAMPLES - DONE / EVERY;
        rc |= glb_ising_sweep(&job->program, &run, &plan, net, state, scratch, job->first_sweep + DONE, SWEEPS - DONE,
                              &output);
        for (int chain = 0; chain < n; chain++) {
            memcpy(samples + chain * SAMPLES * bytes, early + chain * (DONE / EVERY) * bytes,
                   (size_t)(DONE / EVERY * bytes));
            memcpy(samples + (chain * SAMPLES + DONE / EVERY) * bytes, late + chain * (SAMPLES - DONE / EVERY) * bytes,
                   (size_t)((SAMPLES - DONE / EVERY) * bytes));
        }
        free(early);
        free(late);
    }
    rc |= glb_ising_pack(&job->program, &run, &plan, state, packed);
    CHECK(rc == GLB_OK, "an Ising shard was refused: %d", rc);
    wrong |= memcmp(samples, job->samples + first * SAMPLES * bytes, (size_t)(n * SAMPLES * bytes)) != 0 ? 1 : 0;
    for (int chain = 0; chain < n; chain++) {
        int64_t whole = first + chain;
        uint8_t *expected = NEW(uint8_t, bytes);
        for (int32_t p = 0; p < g->n; p++) {
            wrong |= site_sum[(int64_t)p * n + chain] != job->site_sum[whole * g->n + p] ? 4 : 0; /* p as a site */
            expected[g->site[p] / 8] |= (uint8_t)((job->last[whole * g->n + p] > 0) << g->site[p] % 8);
        }
        for (int32_t e = 0; e < g->n_edges; e++) {
            wrong |= edge_sum[(int64_t)e * n + chain] != job->edge_sum[whole * g->n_edges + e] ? 8 : 0;
        }
        wrong |= memcmp(packed + bytes * chain, expected, (size_t)bytes) != 0 ? 2 : 0;
        free(expected);
    }
    CHECK(wrong == 0,
          "Ising, %d sites, layout %d, chains %d + %d, isa %d, kernel %d, %d threads, %d parts: wrong are%s%s%s%s",
          (int)g->n, (int)job->layout, first, n, isa, (int)plan.kernel, threads, parts, wrong & 1 ? " samples" : "",
          wrong & 2 ? " last" : "", wrong & 4 ? " site sums" : "", wrong & 8 ? " edge sums" : "");
    free(chain_field);
    free(clamp);
    free(state);
    free(samples);
    free(packed);
    free(site_sum);
    free(edge_sum);
    free(scratch);
    free(history);
    free(net);
}

/* Whether fields have at most 32 levels, and chains none of their own. */
static int fits_lattice(const struct ising_job *job) {
    glb_traits traits;
    return glb_ising_check(&job->program, &traits) == GLB_OK && job->chain_field == NULL &&
           (traits.one_parity ? 1 : 2) * traits.sum < 32;
}

/* The whole job and shards of it, on every instruction set, kernel and 1 to 3 threads. */
static void ising_everywhere(const struct ising_job *job) {
    static const int shards[][2] = {{0, CHAINS}, {0, 1}, {31, 3}, {37, 30}, {33, 38}};
    for (int isa = 0; isa < GLB_N_ISA; isa++) {
        for (int threads = 1; glb_isa_available(isa) && threads <= 3; threads++) {
            for (size_t i = 0; i < sizeof shards / sizeof shards[0]; i++) {
                int parts = 1 + (int)((i + (size_t)threads) % 2);
                ising_shard(job, shards[i][0], shards[i][1], isa, GLB_KERNEL_AUTO, threads, parts);
                if (job->dynamics == GLB_BY_METROPOLIS) {
                    continue; /* one kernel for each layout */
                }
                if (job->layout == GLB_REPLICA_PLANES) {
                    ising_shard(job, shards[i][0], shards[i][1], isa, GLB_KERNEL_EXACT, threads, parts);
                }
                if (job->layout == GLB_SITE_PLANES) {
                    ising_shard(job, shards[i][0], shards[i][1], isa, GLB_KERNEL_SITES, threads, parts);
                    ising_shard(job, shards[i][0], shards[i][1], isa, GLB_KERNEL_INCREMENTAL, threads, parts);
                }
                if (job->layout == GLB_SITE_PLANES && fits_lattice(job)) {
                    ising_shard(job, shards[i][0], shards[i][1], isa, GLB_KERNEL_LATTICE, threads, parts);
                }
                if (job->layout == GLB_SITE_PLANES && isa == GLB_ISA_AVX512ICL) {
                    ising_shard(job, shards[i][0], shards[i][1], isa, GLB_KERNEL_DIAGONALS, threads, parts);
                }
                if (job->layout == GLB_REPLICA_PLANES && isa >= GLB_ISA_AVX2 && isa <= GLB_ISA_AVX512ICL) {
                    ising_shard(job, shards[i][0], shards[i][1], isa, GLB_KERNEL_FILTER, threads, parts);
                }
                if (job->layout == GLB_REPLICA_PLANES) {
                    ising_shard(job, shards[i][0], shards[i][1], isa, GLB_KERNEL_DENSE, threads, parts);
                }
            }
        }
    }
}

static void test_ising_runs(void) {
    /* sites, colours, edges, largest weight (20000 takes the 32-bit fields), with fields, clamps, start of one's own,
     * one b per sweep, first sweep, stream: sweep 2^32 - 4 carries into the key within the run */
    static const struct {
        int32_t n, colours, edges, limit;
        int fields, clamps, start, anneal;
        uint64_t first_sweep;
        uint32_t stream;
    } cases[] = {
        {45, 3, 70, 1, 0, 1, 0, 1, 1, 0}, /* +-1: bit-sliced */
        {45, 2, 60, 2, 0, 0, 1, 0, (UINT64_C(1) << 32) - 4, 2},
        {72, 2, 170, 1, 0, 0, 0, 1, 1, 0},
        {45, 3, 110, 6, 0, 0, 0, 1, 1, 0},
        {590, 3, 900, 1, 0, 1, 0, 1, 1, 0}, /* more than a vector of site planes, cut by colours */
        {590, 2, 400, 3, 0, 0, 1, 0, 1, 0},
        {45, 4, 90, 6, 1, 1, 1, 0, 1, 3},
        {45, 3, 110, 20000, 1, 1, 0, 1, 1, 0},
        {45, 2, 60, 20000, 0, 1, 1, 0, (UINT64_C(1) << 32) - 4, 0},
        {75, 15, 1500, 3, 0, 1, 0, 1, 1, 0}, /* dense, fields of 16 and of 32 bits */
        {75, 15, 1500, 20000, 1, 0, 1, 0, 1, 0},
        {2, 2, 1, 3, 1, 0, 1, 1, 1, 0},
        {1, 1, 0, 3, 0, 0, 0, 0, 1, 0},
        {66, 1, 0, 30000, 1, 1, 0, 0, 1, 1},
        {590, 1, 0, 30000, 0, 1, 0, 0, 1, 1}, /* independent, more than a vector */
        {590, 1, 0, 30000, 0, 0, 1, 0, 1, 0},
    };
    const size_t flipped = 8; /* cases in which Metropolis has its turn too */
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int32_t way = 0; way < (i < flipped ? 4 : 2); way++) {
            int32_t layout = way % 2;
            int32_t n = cases[i].n;
            int32_t limit = cases[i].limit;
            struct ising_job job = ising_on(make_graph(n, cases[i].colours, cases[i].edges), limit);
            job.layout = layout;
            job.dynamics = way / 2;
            job.n_chains = CHAINS;
            job.first_sweep = cases[i].first_sweep;
            job.stream = cases[i].stream;
            job.n_b = cases[i].anneal ? SWEEPS : 1;
            job.b = NEW(uint64_t, job.n_b);
            for (int64_t k = 0; k < job.n_b; k++) { /* two sweeps in a row share a b: the table stays */
                job.b[k] = (UINT64_C(1) << 32) / (uint64_t)limit * (uint64_t)(k / 2 + 1) / 3;
            }
            job.chain_field = cases[i].fields ? NEW(int32_t, CHAINS * n) : NULL;
            job.clamp = cases[i].clamps ? NEW(int8_t, CHAINS * n) : NULL;
            job.packed = cases[i].start ? NEW(uint8_t, CHAINS * bytes_of(&job)) : NULL;
            for (int32_t k = 0; k < CHAINS * n; k++) {
                if (job.chain_field != NULL) {
                    job.chain_field[k] = random_int(-3 * limit, 3 * limit);
                }
                if (job.clamp != NULL && random_int(0, 3) == 0) {
                    job.clamp[k] = (int8_t)(2 * random_int(0, 1) - 1);
                }
            }
            for (int64_t k = 0; job.packed != NULL && k < CHAINS * bytes_of(&job); k++) {
                job.packed[k] = (uint8_t)random_u64();
            }
            ising_oracle(&job);
            ising_everywhere(&job);
            free_ising(&job);
        }
    }
}

/* Every threshold equal to the lane's random word, or one above it: all 32 planes must be compared. With b = 4 a step
 * of the field moves T by at most 0.7 units, so for a u in the middle of its range there is a field that fits. */
static void test_forced_ties(void) {
    for (int32_t layout = 0; layout < 2; layout++) {
        enum { SITES = 40 };
        struct ising_job job = ising_on(make_graph(SITES, 1, 0), 1);
        int forced = 0;
        job.layout = layout;
        job.n_chains = CHAINS;
        job.n_b = 1;
        job.b = NEW(uint64_t, 1);
        job.b[0] = 4;
        job.chain_field = NEW(int32_t, CHAINS * SITES);
        for (uint32_t chain = 0; chain < CHAINS; chain++) {
            for (uint32_t p = 0; p < SITES; p++) {
                /* the decision of the last sweep, SWEEPS - 1 sweeps after the first */
                uint32_t u = oracle_u(job.seed, GLB_DECISION, layout, 0, p, SWEEPS, chain);
                uint32_t wanted = u + (chain + p) % 2;
                int32_t low = -(1 << 30) + 1;
                int32_t high = (1 << 30) - 1;
                while (high - low > 1) {
                    int32_t middle = low + (high - low) / 2;
                    *(glb_test_threshold(middle, 4) < wanted ? &low : &high) = middle;
                }
                /* T is not monotone by a unit or two, so look around */
                for (int32_t h = low > -(1 << 30) + 9 ? low - 8 : low; h < low + 16 && h < 1 << 30; h++) {
                    if (glb_test_threshold(h, 4) == wanted) {
                        low = h;
                        forced++;
                        break;
                    }
                }
                job.chain_field[chain * SITES + p] = low;
            }
        }
        CHECK(forced > CHAINS * SITES / 5, "only %d of %d decisions could be made ties", forced, CHAINS * SITES);
        ising_oracle(&job);
        ising_everywhere(&job);
        free_ising(&job);
    }
}

void test_ising(void) {
    test_ising_runs();
    test_forced_ties();
}
