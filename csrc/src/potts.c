/* Potts models and p-dits: one categorical draw per site, chains split over threads. */
#include <string.h>

#include "dits.h"
#include "ising.h"
#include "parallel.h"
#include "potts.h"

int glb_potts_check_run(const glb_potts *program, const glb_run *run) {
    int64_t q = program->n_states;
    if (run->n_chains < 1 || run->n_b < 1 || run->n_threads < 1 || run->layout != GLB_REPLICA_PLANES) {
        return GLB_E_SIZE;
    }
    for (int64_t i = 0; i < run->n_b; i++) {
        if (run->b[i] >> 63) {
            return GLB_E_RANGE;
        }
    }
    for (int64_t chain = 0; run->potts_clamp != NULL && chain < run->n_chains; chain++) {
        for (int64_t p = 0; p < program->n_sites; p++) {
            int32_t state = run->potts_clamp[chain * program->n_sites + p];
            if (state < -1 || state >= q) {
                return GLB_E_INDEX;
            }
            if (state >= 0 && program->allowed != NULL && program->allowed[p * q + state] == 0) {
                return GLB_E_ALLOWED;
            }
        }
    }
    int64_t fields = run->chain_field == NULL ? 0 : (int64_t)run->n_chains * program->n_sites * q;
    return glb_largest_magnitude(run->chain_field, fields) < 1 << 30 ? GLB_OK : GLB_E_RANGE;
}

static int is_allowed(const glb_potts *program, int64_t position, int32_t state) {
    return program->allowed == NULL || program->allowed[position * program->n_states + state] != 0;
}

/* Word (position & 3) of the counter (position >> 2, sweep, chain, 0). */
static uint32_t draw(const glb_key *key, uint32_t position, uint64_t sweep, uint32_t chain) {
    uint32_t word[4];
    glb_threefry(key, position >> 2, (uint32_t)sweep, chain, 0, word);
    return word[position & 3];
}

int glb_potts_start(const glb_potts *program, const glb_run *run, const int32_t *initial, int32_t *state) {
    glb_key key = glb_make_key(run->seed, GLB_START, 0, run->stream, 0);
    for (int32_t chain = 0; chain < run->n_chains; chain++) {
        for (int32_t p = 0; p < program->n_sites; p++) {
            int64_t at = (int64_t)chain * program->n_sites + p;
            if (run->potts_clamp != NULL && run->potts_clamp[at] >= 0) {
                state[at] = run->potts_clamp[at];
            } else if (initial != NULL) {
                if (initial[at] < 0 || initial[at] >= program->n_states) {
                    return GLB_E_INDEX;
                }
                state[at] = initial[at];
            } else {
                uint32_t n_allowed = 0;
                for (int32_t k = 0; k < program->n_states; k++) {
                    n_allowed += (uint32_t)is_allowed(program, p, k);
                }
                uint32_t u = draw(&key, (uint32_t)p, 0, run->first_chain + (uint32_t)chain);
                uint32_t left = (uint32_t)(((uint64_t)u * n_allowed) >> 32);
                int32_t k = 0;
                while (!is_allowed(program, p, k) || left-- > 0) {
                    k++;
                }
                state[at] = k;
            }
        }
    }
    return GLB_OK;
}

struct job {
    const glb_potts *program;
    const glb_run *run;
    const glb_output *output;
    glb_potts_data data;     /* for the vector kernel, where it is not NULL */
    glb_potts_kernel kernel;
    uint32_t *weights;
    int32_t *state;
    uint8_t *scratch;
    int32_t *samples;
    uint64_t first_sweep;
    int64_t n_sweeps;
};

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* How the vector kernel computes a run; kernel is NULL where it does not. */
struct vector_plan {
    glb_potts_kernel kernel;
    int V;
    int by_sites;
    int64_t n_weights;
    int64_t n_groups;
    int64_t n_entries;
    int64_t weights; /* where in the scratch, in bytes */
    int64_t groups;
    int64_t entries;
    int64_t spins;
    int64_t size;
};

static int64_t absolute(int64_t x) { return x < 0 ? -x : x; }

/* The largest gap between the fields of two states. */
static int64_t largest_gap(const glb_potts *program, const glb_run *run) {
    int64_t q = program->n_states;
    int64_t most = 0;
    int64_t own = 0;
    int64_t fields = program->n_sites * q * (run->chain_field != NULL ? run->n_chains : 1);
    const int32_t *field = run->chain_field != NULL ? run->chain_field : program->field;
    for (int64_t i = 0; i < fields; i++) {
        own = absolute(field[i]) > own ? absolute(field[i]) : own;
    }
    for (int32_t p = 0; p < program->n_sites; p++) {
        int64_t sum = 0;
        for (int64_t r = program->row_start[p]; r < program->row_start[p + 1]; r++) {
            int64_t largest = 0;
            if (program->weight != NULL) {
                largest = absolute(program->weight[r]);
            } else {
                const int32_t *table = program->table + program->table_start[r];
                for (int64_t t = 0; t < q * q; t++) {
                    largest = absolute(table[t]) > largest ? absolute(table[t]) : largest;
                }
            }
            sum += largest;
        }
        most = sum > most ? sum : most;
    }
    return 2 * (own + most);
}

static struct vector_plan plan_vectors(const glb_potts *program, const glb_run *run) {
    enum { MOST_WEIGHTS = 1 << 20 };
    const glb_kernels *kernels = glb_kernels_of(run->isa);
    struct vector_plan plan = {0};
    if (kernels == NULL || kernels->potts == NULL || run->kernel == GLB_KERNEL_EXACT ||
        program->n_states > GLB_POTTS_STATES || program->table_size > INT32_MAX ||
        (int64_t)program->n_sites * program->n_states > INT32_MAX) {
        return plan;
    }
    plan.n_weights = largest_gap(program, run) + 1;
    /* a table pays when there are more weights to look up than to make, in one sweep or in the many that share a b */
    int64_t looked_up = (run->n_b == 1 ? 16 : 1) * (int64_t)program->n_sites * run->n_chains * program->n_states;
    if (plan.n_weights > MOST_WEIGHTS || plan.n_weights > looked_up) {
        return plan;
    }
    plan.kernel = kernels->potts;
    plan.V = kernels->vector_words;
    plan.by_sites = run->n_chains < plan.V / 2;
    for (int32_t c = 0; plan.by_sites && c < program->n_colours; c++) {
        for (int32_t first = program->colour_start[c]; first < program->colour_start[c + 1]; first += plan.V) {
            int64_t slots = 0;
            for (int32_t p = first; p < first + plan.V && p < program->colour_start[c + 1]; p++) {
                int64_t degree = program->row_start[p + 1] - program->row_start[p];
                slots = degree > slots ? degree : slots;
            }
            plan.n_groups++;
            plan.n_entries += plan.V * (program->n_states + 2 * slots);
        }
    }
    plan.groups = round_up(4 * (plan.n_weights > 16 ? plan.n_weights : 16), 64);
    plan.entries = plan.groups + round_up(plan.n_groups * (int64_t)sizeof(glb_potts_group), 64);
    plan.spins = plan.entries + round_up(4 * plan.n_entries, 64);
    plan.size = plan.spins +
                (plan.by_sites ? 0 : round_up(round_up(run->n_chains, plan.V) * program->n_sites, 64));
    if (plan.n_entries > INT32_MAX) {
        plan.kernel = NULL;
    }
    return plan;
}

/* Rows of V positions of a colour side by side. */
static void fill_groups(const glb_potts *program, const struct vector_plan *plan, glb_potts_group *groups,
                        uint32_t *entries) {
    int64_t g = 0;
    int32_t at = 0;
    int32_t V = plan->V;
    for (int32_t c = 0; c < program->n_colours; c++) {
        for (int32_t first = program->colour_start[c]; first < program->colour_start[c + 1]; first += V, g++) {
            int32_t left = program->colour_start[c + 1] - first;
            glb_potts_group group = {.first = first, .count = left < V ? left : V, .entry = at};
            for (int32_t i = 0; i < group.count; i++) {
                int32_t degree = (int32_t)(program->row_start[first + i + 1] - program->row_start[first + i]);
                group.slots = degree > group.slots ? degree : group.slots;
            }
            for (int32_t k = 0; k < program->n_states; k++, at += V) {
                for (int32_t i = 0; i < V; i++) {
                    int64_t p = first + (i < group.count ? i : 0);
                    entries[at + i] = (uint32_t)program->field[p * program->n_states + k];
                }
            }
            for (int32_t slot = 0; slot < group.slots; slot++, at += 2 * V) {
                for (int32_t i = 0; i < V; i++) {
                    int64_t r = i < group.count ? program->row_start[first + i] + slot : 0;
                    int there = i < group.count && r < program->row_start[first + i + 1];
                    entries[at + i] = (uint32_t)(there ? program->neighbour[r] : first);
                    entries[at + V + i] = program->weight != NULL ? (uint32_t)(there ? program->weight[r] : 0)
                                          : there ? (uint32_t)program->table_start[r]
                                                  : 0xFFFFFFFFu;
                }
            }
            groups[g] = group;
        }
    }
}

static int64_t thread_scratch(const glb_potts *program) {
    return (int64_t)program->n_states * (int64_t)(sizeof(int64_t) + sizeof(uint64_t));
}

int64_t glb_potts_scratch(const glb_potts *program, const glb_run *run) {
    if (glb_dits_fit(program, run)) {
        return glb_dits_scratch(program, run);
    }
    struct vector_plan plan = plan_vectors(program, run);
    return plan.kernel != NULL ? plan.size : thread_scratch(program) * run->n_threads;
}

static void local_fields(const struct job *job, int64_t chain, int32_t position, const int32_t *spin, int64_t *field) {
    const glb_potts *program = job->program;
    int64_t q = program->n_states;
    const int32_t *own = job->run->chain_field != NULL
                             ? job->run->chain_field + (chain * program->n_sites + position) * q
                             : program->field + position * q;
    for (int64_t k = 0; k < q; k++) {
        field[k] = own[k];
    }
    for (int64_t r = program->row_start[position]; r < program->row_start[position + 1]; r++) {
        int32_t other = spin[program->neighbour[r]];
        if (program->weight != NULL) {
            field[other] += program->weight[r];
        } else {
            const int32_t *row = program->table + program->table_start[r] + other * q;
            for (int64_t k = 0; k < q; k++) {
                field[k] += row[k];
            }
        }
    }
}

/* The state whose share of the inclusive sums holds u. */
static int32_t categorical(const glb_potts *program, int32_t position, const int64_t *field, uint64_t *sum, uint64_t b,
                           uint32_t u) {
    int32_t q = program->n_states;
    uint32_t bits = glb_ceil_log2((uint32_t)q);
    int64_t best = INT64_MIN;
    uint64_t total = 0;
    int32_t state = 0;
    for (int32_t k = 0; k < q; k++) {
        if (is_allowed(program, position, k) && field[k] > best) {
            best = field[k];
        }
    }
    for (int32_t k = 0; k < q; k++) {
        if (is_allowed(program, position, k)) {
            total += glb_potts_weight(glb_scale((uint64_t)(best - field[k]), b), (uint32_t)q, bits);
        }
        sum[k] = total;
    }
    uint64_t target = glb_potts_target(u, total);
    while (sum[state] <= target) {
        state++;
    }
    return state;
}

static void take_sample(const struct job *job, int64_t chain, const int32_t *spin, int64_t sample) {
    const glb_potts *program = job->program;
    const glb_output *output = job->output;
    for (int32_t p = 0; p < program->n_sites; p++) {
        int64_t site = program->site[p];
        if (job->samples != NULL && sample < output->n_samples) {
            job->samples[(chain * output->n_samples + sample) * program->n_sites + site] = spin[p];
        }
        if (output->site_sum != NULL) {
            output->site_sum[(chain * program->n_sites + site) * program->n_states + spin[p]] += 1;
        }
    }
}

/* Spins as the vector kernel has them by chains: a byte each, [block][position][chain]. */
static void exchange_spins(const struct job *job, int V, int32_t *state, uint8_t *spins, int64_t begin, int64_t end,
                           int to_bytes) {
    int64_t n = job->program->n_sites;
    for (int64_t chain = begin; chain < end && chain < job->run->n_chains; chain++) {
        uint8_t *lane = spins + V * n * (chain / V) + chain % V;
        for (int64_t p = 0; p < n; p++) {
            if (to_bytes) {
                lane[V * p] = (uint8_t)state[chain * n + p];
            } else {
                state[chain * n + p] = lane[V * p];
            }
        }
    }
}

static uint64_t b_of(const glb_run *run, uint64_t sweep) {
    uint64_t last = (uint64_t)run->n_b - 1;
    return run->b[sweep - 1 < last ? sweep - 1 : last];
}

static void fill_weights(const struct job *job, uint64_t b, int thread) {
    int64_t n = job->data.n_weights;
    uint32_t q = (uint32_t)job->program->n_states;
    uint32_t bits = glb_ceil_log2(q);
    int64_t end = n * (thread + 1) / job->run->n_threads;
    for (int64_t gap = n * thread / job->run->n_threads; gap < end; gap++) {
        job->weights[gap] = (uint32_t)glb_potts_weight(glb_scale((uint64_t)gap, b), q, bits);
    }
}

static void work_in_vectors(const struct job *job, glb_team *team, int thread) {
    const glb_run *run = job->run;
    glb_potts_data data = job->data;
    int V = glb_kernels_of(run->isa)->vector_words;
    int64_t per_unit = data.by_sites ? 1 : V;
    int64_t units = (run->n_chains + per_unit - 1) / per_unit;
    int64_t begin = units * thread / run->n_threads;
    int64_t end = units * (thread + 1) / run->n_threads;
    int64_t last = per_unit * end < run->n_chains ? per_unit * end : run->n_chains;
    if (!data.by_sites) {
        exchange_spins(job, V, job->state, data.spins, V * begin, V * end, 1);
    }
    for (int64_t s = 0; s < job->n_sweeps; s++) {
        data.sweep = job->first_sweep + (uint64_t)s;
        uint64_t b = b_of(run, data.sweep);
        if (s == 0 || b != b_of(run, data.sweep - 1)) {
            glb_barrier(team); /* nobody may still be reading the old weights */
            fill_weights(job, b, thread);
            glb_barrier(team);
        }
        job->kernel(&data, begin, end);
        if (job->output->every > 0 && (s + 1) % job->output->every == 0) {
            if (!data.by_sites) {
                exchange_spins(job, V, job->state, data.spins, V * begin, V * end, 0);
            }
            for (int64_t chain = per_unit * begin; chain < last; chain++) {
                take_sample(job, chain, job->state + chain * job->program->n_sites, (s + 1) / job->output->every - 1);
            }
        }
    }
    if (!data.by_sites) {
        exchange_spins(job, V, job->state, data.spins, V * begin, V * end, 0);
    }
}

static void work(void *argument, glb_team *team, int thread) {
    const struct job *job = argument;
    const glb_potts *program = job->program;
    const glb_run *run = job->run;
    int64_t *field = (int64_t *)(void *)(job->scratch + (job->kernel == NULL ? thread_scratch(program) * thread : 0));
    uint64_t *sum = (uint64_t *)(field + program->n_states);
    int64_t begin = (int64_t)run->n_chains * thread / run->n_threads;
    int64_t end = (int64_t)run->n_chains * (thread + 1) / run->n_threads;
    if (job->kernel != NULL) {
        work_in_vectors(job, team, thread);
        return;
    }
    for (int64_t s = 0; s < job->n_sweeps; s++) { /* chains do not meet, so there is nothing to wait for */
        uint64_t sweep = job->first_sweep + (uint64_t)s;
        uint64_t b = b_of(run, sweep);
        glb_key key = glb_make_key(run->seed, GLB_CATEGORICAL, 0, run->stream, sweep);
        for (int64_t chain = begin; chain < end; chain++) {
            int32_t *spin = job->state + chain * program->n_sites;
            const int32_t *clamp = run->potts_clamp != NULL ? run->potts_clamp + chain * program->n_sites : NULL;
            uint32_t number = run->first_chain + (uint32_t)chain;
            for (int32_t p = 0; p < program->n_sites; p++) {
                if (clamp == NULL || clamp[p] < 0) {
                    local_fields(job, chain, p, spin, field);
                    spin[p] = categorical(program, p, field, sum, b, draw(&key, (uint32_t)p, sweep, number));
                }
            }
            if (job->output->every > 0 && (s + 1) % job->output->every == 0) {
                take_sample(job, chain, spin, (s + 1) / job->output->every - 1);
            }
        }
    }
}

int glb_potts_sweep(const glb_potts *program, const glb_run *run, int32_t *state, uint8_t *scratch,
                    uint64_t first_sweep, int64_t n_sweeps, const glb_output *output, int32_t *samples) {
    struct job job = {.program = program,
                      .run = run,
                      .output = output,
                      .state = state,
                      .scratch = scratch,
                      .samples = samples,
                      .first_sweep = first_sweep,
                      .n_sweeps = n_sweeps};
    if (n_sweeps < 0 || first_sweep < 1) {
        return GLB_E_SIZE;
    }
    if (glb_dits_fit(program, run)) {
        glb_dits_job dits = {program, run, output, state, scratch, samples, first_sweep, n_sweeps};
        return glb_dits_sweep(&dits);
    }
    struct vector_plan plan = plan_vectors(program, run);
    if (plan.kernel != NULL) {
        job.kernel = plan.kernel;
        job.weights = (uint32_t *)(void *)scratch;
        memset(scratch, 0, (size_t)plan.groups);
        if (!plan.by_sites) {
            memset(scratch + plan.spins, 0, (size_t)(plan.size - plan.spins)); /* lanes that are nobody's */
        }
        job.data = (glb_potts_data){.program = program,
                                    .run = run,
                                    .weights = job.weights,
                                    .n_weights = plan.n_weights,
                                    .by_sites = plan.by_sites,
                                    .spins = scratch + plan.spins,
                                    .state = state,
                                    .groups = (const void *)(scratch + plan.groups),
                                    .entries = (const void *)(scratch + plan.entries),
                                    .n_groups = plan.n_groups};
        if (plan.by_sites) {
            fill_groups(program, &plan, (glb_potts_group *)(void *)(scratch + plan.groups),
                        (uint32_t *)(void *)(scratch + plan.entries));
        }
    }
    return glb_parallel(run->n_threads, work, &job);
}
