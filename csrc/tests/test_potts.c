/* Potts runs against an oracle, written from docs/machine.md with one decision at a time and nothing taken from the
 * kernels: any difference, in any bit, is a failure. */
#include "../src/dits.h"
#include "../src/ising.h"
#include "../src/potts.h"
#include "testing.h"

enum { POTTS_CHAINS = 21, MANY_CHAINS = 70 /* a block of bytes and some */ };

struct potts_job {
    struct graph graph;
    glb_potts program;
    int32_t *weight, *table, *field;
    int64_t *table_start;
    uint8_t *allowed;
    uint64_t seed, first_sweep, *b;
    int64_t n_b;
    int n_chains;
    int32_t *chain_field, *clamp, *initial; /* or NULL */
    int32_t *last;                          /* [chain][position] */
    int32_t *samples;                       /* [chain][sample][site] */
    int64_t *counts;                        /* [chain][site][state] */
};

/* floor(u * total / 2^32), with the compiler's 128 bits where it has them. */
static uint64_t oracle_target(uint32_t u, uint64_t total) {
#ifdef __SIZEOF_INT128__
    __extension__ typedef unsigned __int128 wide;
    return (uint64_t)((wide)u * total >> 32);
#else
    return (uint64_t)u * (total >> 32) + ((uint64_t)u * (total & 0xFFFFFFFFu) >> 32);
#endif
}

static uint32_t oracle_word(uint64_t seed, uint32_t purpose, uint32_t position, uint64_t sweep, uint32_t chain) {
    const uint32_t key[4] = {(uint32_t)seed, (uint32_t)(seed >> 32), purpose, (uint32_t)(sweep >> 32)};
    const uint32_t counter[4] = {position / 4, (uint32_t)sweep, chain, 0};
    uint32_t word[4];
    glb_test_threefry(key, counter, word);
    return word[position % 4];
}

/* Inclusive sums of the states' weights, section 9; returns the last. `allowed` is the site's row, or NULL. */
static uint64_t oracle_sums(int32_t q, const uint8_t *allowed, const int64_t *field, uint64_t b, uint64_t *sums) {
    int64_t best = INT64_MIN;
    uint64_t total = 0;
    uint32_t bits = 0;
    while ((1 << bits) < q) {
        bits++;
    }
    for (int32_t k = 0; k < q; k++) {
        best = (allowed == NULL || allowed[k]) && field[k] > best ? field[k] : best;
    }
    for (int32_t k = 0; k < q; k++) {
        if (allowed == NULL || allowed[k]) {
            uint64_t gap = (uint64_t)(best - field[k]);
            uint64_t x = b > 0 && gap > GLB_X_MAX / b ? GLB_X_MAX : gap * b;
            total += glb_test_exp2(x) >> (q <= 64 ? 31 + bits : bits);
        }
        sums[k] = total;
    }
    return total;
}

static void potts_oracle(struct potts_job *job) {
    const struct graph *g = &job->graph;
    int32_t q = job->program.n_states;
    int64_t *field = NEW(int64_t, q);
    uint64_t *sums = NEW(uint64_t, q);
    job->last = NEW(int32_t, job->n_chains * g->n);
    job->samples = NEW(int32_t, job->n_chains * SAMPLES * g->n);
    job->counts = NEW(int64_t, job->n_chains * g->n * q);
    for (int chain = 0; chain < job->n_chains; chain++) {
        int32_t *s = job->last + (int64_t)chain * g->n;
        const int32_t *clamp = job->clamp == NULL ? NULL : job->clamp + (int64_t)chain * g->n;
        for (int32_t p = 0; p < g->n; p++) { /* the start: the k-th allowed state */
            uint64_t n_allowed = 0;
            for (int32_t k = 0; k < q; k++) {
                n_allowed += job->allowed == NULL || job->allowed[p * q + k];
            }
            uint64_t skip = (oracle_word(job->seed, GLB_START, (uint32_t)p, 0, (uint32_t)chain) * n_allowed) >> 32;
            for (int32_t k = 0; k < q; k++) {
                if (job->allowed == NULL || job->allowed[p * q + k]) {
                    if (skip-- == 0) {
                        s[p] = k;
                        break;
                    }
                }
            }
            s[p] = job->initial != NULL ? job->initial[chain * g->n + p] : s[p];
            s[p] = clamp != NULL && clamp[p] >= 0 ? clamp[p] : s[p];
        }
        for (int i = 0; i < SWEEPS; i++) {
            uint64_t sweep = job->first_sweep + (uint64_t)i;
            uint64_t b = job->b[sweep <= (uint64_t)job->n_b ? sweep - 1 : (uint64_t)job->n_b - 1];
            for (int32_t p = 0; p < g->n; p++) {
                int32_t state = 0;
                if (clamp != NULL && clamp[p] >= 0) {
                    continue;
                }
                for (int32_t k = 0; k < q; k++) {
                    field[k] = job->chain_field != NULL ? job->chain_field[((int64_t)chain * g->n + p) * q + k]
                                                        : job->field[p * q + k];
                    for (int64_t r = g->row_start[p]; r < g->row_start[p + 1]; r++) {
                        int32_t other = s[g->neighbour[r]];
                        field[k] += job->weight != NULL ? (other == k ? job->weight[r] : 0)
                                                        : job->table[job->table_start[r] + other * q + k];
                    }
                }
                uint64_t total = oracle_sums(q, job->allowed == NULL ? NULL : job->allowed + p * q, field, b, sums);
                uint32_t u = oracle_word(job->seed, GLB_CATEGORICAL, (uint32_t)p, sweep, (uint32_t)chain);
                for (int32_t k = 0; k < q; k++) {
                    state += sums[k] <= oracle_target(u, total);
                }
                s[p] = state;
            }
            for (int32_t p = 0; (i + 1) % EVERY == 0 && p < g->n; p++) {
                job->samples[((int64_t)chain * SAMPLES + (i + 1) / EVERY - 1) * g->n + g->site[p]] = s[p];
                job->counts[((int64_t)chain * g->n + g->site[p]) * q + s[p]]++;
            }
        }
    }
    free(field);
    free(sums);
}

static int forms_seen[GLB_N_ISA]; /* a bit each */

/* The form that computes a run, noted. */
static void see_form(const glb_potts *program, const glb_run *run, uint8_t *scratch) {
    if (glb_dits_fit(program, run)) {
        return;
    }
    glb_potts_plan plan = glb_potts_plan_run(program, run, 0);
    if (!glb_potts_fill(program, &plan, scratch)) {
        plan = glb_potts_plan_run(program, run, 1);
    }
    forms_seen[run->isa] |= 1 << plan.form;
}

static void potts_shard(const struct potts_job *job, int first, int n, int isa, int threads, int parts) {
    const struct graph *g = &job->graph;
    int32_t q = job->program.n_states;
    int wrong = 0;
    glb_run run = {.seed = job->seed,
                   .n_chains = n,
                   .first_chain = (uint32_t)first,
                   .b = job->b,
                   .n_b = job->n_b,
                   .chain_field = job->chain_field == NULL ? NULL : job->chain_field + (int64_t)first * g->n * q,
                   .potts_clamp = job->clamp == NULL ? NULL : job->clamp + (int64_t)first * g->n,
                   .n_threads = threads,
                   .isa = isa};
    int32_t *state = NEW(int32_t, n * g->n);
    int32_t *samples = NEW(int32_t, n * SAMPLES * g->n);
    int64_t *counts = NEW(int64_t, n * g->n * q);
    uint8_t *scratch = allocate_aligned(glb_potts_scratch(&job->program, &run));
    glb_output output = {.every = EVERY, .n_samples = SAMPLES, .site_sum = counts};
    int64_t sum;
    int rc = glb_potts_check(&job->program, &sum);
    rc |= glb_potts_check_run(&job->program, &run);
    see_form(&job->program, &run, scratch);
    rc |= glb_potts_start(&job->program, &run, job->initial == NULL ? NULL : job->initial + first * g->n, state);
    if (parts == 1) {
        rc |= glb_potts_sweep(&job->program, &run, state, scratch, job->first_sweep, SWEEPS, &output, samples);
    } else {
        for (int done = 0; done < SWEEPS; done += EVERY) { /* a part a sample, and a last one without any */
            int32_t *part = NEW(int32_t, n * g->n);
            int count = SWEEPS - done < EVERY ? SWEEPS - done : EVERY;
            output.n_samples = 1;
            rc |= glb_potts_sweep(&job->program, &run, state, scratch, job->first_sweep + (uint64_t)done, count,
                                  &output, part);
            for (int chain = 0; count == EVERY && chain < n; chain++) {
                memcpy(samples + ((int64_t)chain * SAMPLES + done / EVERY) * g->n, part + chain * g->n,
                       (size_t)g->n * sizeof(int32_t));
            }
            free(part);
        }
    }
    CHECK(rc == GLB_OK, "a Potts shard was refused: %d", rc);
    wrong |= memcmp(state, job->last + first * g->n, (size_t)(n * g->n) * sizeof(int32_t)) != 0 ? 1 : 0;
    wrong |= memcmp(samples, job->samples + first * SAMPLES * g->n, (size_t)(n * SAMPLES * g->n) * sizeof(int32_t)) != 0
                 ? 2
                 : 0;
    wrong |= memcmp(counts, job->counts + first * g->n * q, (size_t)(n * g->n * q) * sizeof(int64_t)) != 0 ? 4 : 0;
    CHECK(wrong == 0, "Potts, q = %d, %s, chains %d + %d, isa %d, %d threads, %d parts: wrong are%s%s%s", (int)q,
          job->table != NULL ? "tables" : "weights", first, n, isa, threads, parts, wrong & 1 ? " last" : "",
          wrong & 2 ? " samples" : "", wrong & 4 ? " counts" : "");
    free(state);
    free(samples);
    free(counts);
    free(scratch);
}

static glb_potts potts_program(const struct potts_job *job, int32_t q) {
    return (glb_potts){.n_sites = job->graph.n,
                       .n_states = q,
                       .n_colours = job->graph.n_colours,
                       .colour_start = job->graph.colour_start,
                       .site = job->graph.site,
                       .row_start = job->graph.row_start,
                       .neighbour = job->graph.neighbour,
                       .weight = job->weight,
                       .table_start = job->table_start,
                       .table = job->table,
                       .table_size = job->table == NULL ? 0 : 2 * (int64_t)job->graph.n_edges * q * q,
                       .field = job->field,
                       .allowed = job->allowed};
}

static void free_potts(struct potts_job *job) {
    free_graph(&job->graph);
    free(job->weight);
    free(job->table);
    free(job->table_start);
    free(job->field);
    free(job->allowed);
    free(job->b);
    free(job->chain_field);
    free(job->clamp);
    free(job->initial);
    free(job->last);
    free(job->samples);
    free(job->counts);
}

static void test_potts_runs(void) {
    static const struct {
        int32_t n, q, colours, edges, limit;
        int tables, mask, fields, clamps, start, anneal, near;
    } cases[] = {
        {10, 3, 3, 18, 50, 0, 0, 0, 0, 0, 1, 0}, {10, 3, 3, 18, 50, 1, 1, 0, 1, 1, 0, 0},
        {6, 70, 2, 8, 40, 0, 1, 1, 0, 0, 0, 0},  {6, 70, 2, 8, 40, 1, 0, 0, 1, 1, 1, 0},
        {5, 64, 2, 5, 40, 0, 0, 0, 0, 0, 0, 0},  {5, 65, 2, 5, 40, 0, 0, 0, 0, 0, 0, 0},
        {6, 2, 1, 0, 900, 0, 0, 1, 0, 0, 0, 0},  {13, 70, 1, 0, 900, 0, 1, 0, 1, 0, 0, 0},
        {9, 5, 1, 0, 900, 0, 0, 0, 0, 1, 0, 0},  {6, 300, 1, 0, 90, 0, 1, 0, 0, 0, 0, 0},
        {45, 4, 2, 90, 1, 0, 0, 0, 1, 0, 0, 0}, /* few weights: a table in a register */
        {45, 2, 3, 90, 3, 0, 1, 1, 1, 1, 1, 0},  {45, 16, 2, 60, 20, 1, 1, 0, 0, 0, 1, 0},
        {33, 5, 3, 70, 10, 1, 0, 1, 1, 0, 0, 0},
        /* bytes: colours that start off multiples of four, of one or several vectors; more gaps than AVX2 takes */
        {149, 4, 2, 999, 1, 0, 0, 0, 0, 0, 0, 1}, {149, 4, 3, 999, 1, 0, 0, 0, 1, 1, 1, 1},
        {61, 3, 2, 999, 2, 0, 0, 0, 1, 0, 0, 1},  {61, 5, 2, 999, 1, 0, 0, 0, 0, 1, 0, 1},
        {45, 2, 3, 999, 1, 0, 0, 0, 1, 0, 1, 1},  {45, 16, 2, 999, 1, 0, 0, 0, 1, 0, 0, 1},
        {45, 4, 2, 60, 1, 0, 0, 0, 0, 0, 0, 0},
        /* more gaps than could be looked up */
        {901, 4, 2, 1700, 30000000, 0, 0, 0, 0, 0, 0, 0}, {901, 4, 2, 1700, 30000, 0, 0, 0, 0, 0, 1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int32_t n = cases[i].n;
        int32_t q = cases[i].q;
        int32_t limit = cases[i].limit;
        struct potts_job job = {
            .graph = (cases[i].near ? make_near_graph : make_graph)(n, cases[i].colours, cases[i].edges),
            .first_sweep = 1,
            .n_chains = cases[i].near ? MANY_CHAINS : POTTS_CHAINS};
        int64_t entries = 2 * (int64_t)job.graph.n_edges;
        job.seed = random_u64();
        job.n_b = cases[i].anneal ? SWEEPS : 1;
        job.b = NEW(uint64_t, job.n_b);
        for (int64_t k = 0; k < job.n_b; k++) {
            job.b[k] = (UINT64_C(1) << 32) / (uint64_t)limit * (uint64_t)(k + 1) / 2;
        }
        if (cases[i].tables) {
            /* one table per row entry, and one of an edge's two is the transpose of the other */
            job.table = NEW(int32_t, entries * q * q);
            job.table_start = NEW(int64_t, entries);
            for (int64_t k = 0; k < entries * q * q; k++) {
                job.table[k] = random_int(-limit, limit);
            }
            for (int64_t k = 0; k < entries; k++) {
                job.table_start[k] = (entries - 1 - k) * q * q;
            }
        } else if (entries > 0) {
            job.weight = NEW(int32_t, entries);
            for (int64_t k = 0; k < entries; k++) {
                job.weight[k] = random_int(-limit, limit);
            }
        }
        job.field = NEW(int32_t, n * q);
        for (int32_t k = 0; k < n * q; k++) {
            job.field[k] = random_int(-limit, limit);
        }
        if (cases[i].mask) {
            job.allowed = NEW(uint8_t, n * q);
            for (int32_t k = 0; k < n * q; k++) {
                job.allowed[k] = k % q == k / q % q || random_int(0, 1);
            }
        }
        job.chain_field = cases[i].fields ? NEW(int32_t, job.n_chains * n * q) : NULL;
        for (int32_t k = 0; job.chain_field != NULL && k < job.n_chains * n * q; k++) {
            job.chain_field[k] = random_int(-3 * limit, 3 * limit);
        }
        job.clamp = cases[i].clamps ? NEW(int32_t, job.n_chains * n) : NULL;
        job.initial = cases[i].start ? NEW(int32_t, job.n_chains * n) : NULL;
        for (int32_t k = 0; k < job.n_chains * n; k++) {
            int32_t state = k % n % q; /* always allowed, see above */
            if (job.clamp != NULL) {
                job.clamp[k] = random_int(0, 3) == 0 ? state : -1;
            }
            if (job.initial != NULL) {
                job.initial[k] = state;
            }
        }
        job.program = potts_program(&job, q);
        potts_oracle(&job);
        for (int threads = 1; threads <= 3; threads++) {
            for (int parts = 1; parts <= 2; parts++) {
                for (int isa = 0; isa < GLB_N_ISA; isa++) {
                    if (glb_isa_available(isa)) {
                        potts_shard(&job, 0, job.n_chains, isa, threads, parts);
                        potts_shard(&job, 2, 1, isa, threads, parts);
                        potts_shard(&job, 3, 5, isa, threads, parts);
                        potts_shard(&job, 1, 19, isa, threads, parts);
                        if (cases[i].near) {
                            potts_shard(&job, 5, 33, isa, threads, parts);
                            potts_shard(&job, 3, 64, isa, threads, parts);
                        }
                    }
                }
            }
        }
        free_potts(&job);
    }
    for (int isa = 0; isa < GLB_N_ISA; isa++) {
        const glb_kernels *kernels = glb_kernels_of(isa);
        int wanted = kernels == NULL ? 0 : kernels->potts_bytes != NULL ? 0x1F : kernels->potts != NULL ? 7 : 1;
        CHECK((forms_seen[isa] & wanted) == wanted, "of isa %d's forms only %x were tested", isa, forms_seen[isa]);
    }
}

/* Two allowed states whose border lies as close to the draw as a field can bring it: on it exactly for q <= 64, where
 * the lower state must lose. A state that is not allowed has the largest field of all, and must not count. */
static void test_potts_ties(void) {
    static const int32_t sizes[] = {3, 4, 16, 64, 65, 300};
    for (int i = 0; i < 12; i++) {
        enum { SITES = 40 };
        int32_t q = sizes[i / 2];
        int anneals = i % 2; /* two equal b: no p-dits' kernel, so that of Potts models */
        int exact = 0;
        struct potts_job job = {.graph = make_graph(SITES, 1, 0), .seed = random_u64(), .first_sweep = 1,
                                .n_b = 1 + anneals, .n_chains = POTTS_CHAINS};
        int64_t *field = NEW(int64_t, q);
        uint64_t *sums = NEW(uint64_t, q);
        job.b = NEW(uint64_t, 2);
        job.b[0] = job.b[1] = 4;
        job.field = NEW(int32_t, SITES * q);
        job.allowed = NEW(uint8_t, SITES * q);
        job.chain_field = NEW(int32_t, POTTS_CHAINS * SITES * q);
        for (int32_t k = 0; k < SITES * q; k++) {
            job.allowed[k] = k % q == 0 || k % q == q - 1;
        }
        for (int32_t at = 0; at < POTTS_CHAINS * SITES; at++) {
            uint32_t u = oracle_word(job.seed, GLB_CATEGORICAL, (uint32_t)(at % SITES), SWEEPS, (uint32_t)(at / SITES));
            int64_t low = -(1 << 30) + 1;
            int64_t high = (1 << 30) - 1;
            uint64_t target = 0;
            while (high - low > 1) { /* the last state's field; sums[0] is the border */
                field[q - 1] = (low + high) / 2;
                target = oracle_target(u, oracle_sums(q, job.allowed, field, 4, sums));
                *(target < sums[0] ? &low : &high) = field[q - 1];
            }
            for (int64_t h = high - 4; h <= high + 4; h++) {
                if (h <= -(1 << 30) || h >= 1 << 30) {
                    continue;
                }
                field[q - 1] = h;
                target = oracle_target(u, oracle_sums(q, job.allowed, field, 4, sums));
                if (target >= sums[0]) {
                    break;
                }
            }
            exact += target == sums[0];
            for (int32_t k = 0; k < q; k++) {
                job.chain_field[(int64_t)at * q + k] = k == 0 ? 0 : k == q - 1 ? (int32_t)field[k] : (1 << 30) - 1;
            }
        }
        CHECK(q > 64 || exact > POTTS_CHAINS * SITES / 8, "only %d of %d draws with %d states could be made ties",
              exact, POTTS_CHAINS * SITES, (int)q);
        job.program = potts_program(&job, q);
        potts_oracle(&job);
        for (int isa = 0; isa < GLB_N_ISA; isa++) {
            const glb_kernels *kernels = glb_kernels_of(isa);
            int forms = forms_seen[isa];
            if (glb_isa_available(isa)) {
                forms_seen[isa] = 0;
                potts_shard(&job, 0, POTTS_CHAINS, isa, 1, 1);
                potts_shard(&job, 2, 1, isa, 1, 1);
                CHECK(!anneals || q > GLB_POTTS_STATES || kernels == NULL || kernels->potts == NULL ||
                          (forms_seen[isa] & 1 << GLB_POTTS_ONE_BY_ONE) == 0,
                      "draws on borders with %d states met no vectors on isa %d", (int)q, isa);
            }
            forms_seen[isa] |= forms;
        }
        free_potts(&job);
        free(field);
        free(sums);
    }
}

/* The top of a Potts draw: the largest u must still find a state, and the long product must be exact. */
static void test_potts_target(void) {
    for (int i = 0; i < 10000; i++) {
        uint32_t u = i % 3 == 0 ? 0xFFFFFFFFu - (uint32_t)i / 3 : (uint32_t)random_u64();
        uint64_t total = 1 + random_u64() % (UINT64_C(1) << (1 + i % 63));
        uint64_t target = glb_potts_target(u, total);
        CHECK(target == oracle_target(u, total) && target < total, "target of u = %u, total = %llu", u,
              (unsigned long long)total);
    }
}

void test_potts(void) {
    test_potts_runs();
    test_potts_ties();
    test_potts_target();
}
