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
    glb_potts_plan plan;
    glb_potts_data data; /* for vectors, as is what follows */
    glb_potts_kernel kernel;
    uint32_t *weights;
    uint8_t *spins;
    uint8_t *open;
    int32_t *state;
    uint8_t *scratch;
    int32_t *samples;
    uint64_t first_sweep;
    int64_t n_sweeps;
};

static int64_t thread_scratch(const glb_potts *program) {
    return (int64_t)program->n_states * (int64_t)(sizeof(int64_t) + sizeof(uint64_t));
}

int64_t glb_potts_scratch(const glb_potts *program, const glb_run *run) {
    if (glb_dits_fit(program, run)) {
        return glb_dits_scratch(program, run);
    }
    int64_t size = thread_scratch(program) * run->n_threads;
    for (int without = 0; without <= 1; without++) {
        glb_potts_plan plan = glb_potts_plan_run(program, run, without);
        size = plan.form != GLB_POTTS_ONE_BY_ONE && plan.size > size ? plan.size : size;
    }
    return size;
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

/* Counts and keeps the states of positions begin .. end - 1. */
static void take_sample(const struct job *job, int64_t chain, const int32_t *spin, int32_t begin, int32_t end,
                        int64_t sample) {
    const glb_potts *program = job->program;
    const glb_output *output = job->output;
    const int32_t *site = program->site + begin;
    int32_t n = end - begin;
    if (job->samples != NULL && sample < output->n_samples) {
        int32_t *kept = job->samples + (chain * output->n_samples + sample) * program->n_sites;
        for (int32_t i = 0; i < n; i++) {
            kept[site[i]] = spin[i];
        }
    }
    if (output->site_sum != NULL) {
        int64_t *sum = output->site_sum + chain * program->n_sites * program->n_states;
        for (int32_t i = 0; i < n; i++) {
            sum[(int64_t)site[i] * program->n_states + spin[i]] += 1;
        }
    }
}

/* Where a chain's first spin is among the kernel's bytes. */
static int64_t byte_of(const struct job *job, int64_t chain) {
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
static int64_t bytes_apart(const struct job *job) {
    return job->plan.form == GLB_POTTS_CHAINS ? job->plan.V
           : job->plan.form == GLB_POTTS_CHAIN_BYTES ? 4 * job->plan.V
                                                     : 1;
}

enum exchange { TO_BYTES, TO_STATE, TO_SAMPLE };

/* Between the kernel's bytes and the caller's numbers: few positions at a time, whose bytes stay in the cache. */
static void exchange_spins(const struct job *job, int64_t begin, int64_t end, enum exchange what, int64_t sample) {
    enum { TILE = 64 };
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
                    job->spins[at + step * i] = (uint8_t)spin[i];
                }
                if (job->open != NULL) {
                    const int32_t *clamp = job->run->potts_clamp + chain * n + first;
                    for (int32_t i = 0; i < count; i++) {
                        job->open[at + step * i] = clamp[i] < 0 ? 0xFF : 0;
                    }
                }
                continue;
            }
            spin = what == TO_STATE ? spin : tile;
            for (int32_t i = 0; i < count; i++) {
                spin[i] = job->spins[at + step * i];
            }
            if (what == TO_SAMPLE) {
                take_sample(job, chain, spin, first, first + count, sample);
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
    int form = job->plan.form;
    int64_t per_unit = form == GLB_POTTS_CHAINS ? job->plan.V : form == GLB_POTTS_CHAIN_BYTES ? 4 * job->plan.V : 1;
    int64_t units = (run->n_chains + per_unit - 1) / per_unit;
    int64_t begin = units * thread / run->n_threads;
    int64_t end = units * (thread + 1) / run->n_threads;
    int64_t first = per_unit * begin < run->n_chains ? per_unit * begin : run->n_chains;
    int64_t last = per_unit * end < run->n_chains ? per_unit * end : run->n_chains;
    if (form != GLB_POTTS_SITES) {
        exchange_spins(job, first, last, TO_BYTES, 0);
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
        if (job->output->every == 0 || (s + 1) % job->output->every != 0) {
            continue;
        }
        int64_t sample = (s + 1) / job->output->every - 1;
        if (form != GLB_POTTS_SITES) {
            exchange_spins(job, first, last, TO_SAMPLE, sample);
            continue;
        }
        for (int64_t chain = first; chain < last; chain++) {
            int32_t n = job->program->n_sites;
            take_sample(job, chain, job->state + chain * n, 0, n, sample);
        }
    }
    if (form != GLB_POTTS_SITES) {
        exchange_spins(job, first, last, TO_STATE, 0);
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
                take_sample(job, chain, spin, 0, program->n_sites, (s + 1) / job->output->every - 1);
            }
        }
    }
}

/* What the kernel sees. Its lanes that are nobody's hold zeros. */
static void prepare(struct job *job) {
    const glb_kernels *kernels = glb_kernels_of(job->run->isa);
    const glb_potts_plan *plan = &job->plan;
    int in_bytes = plan->form == GLB_POTTS_SITE_BYTES || plan->form == GLB_POTTS_CHAIN_BYTES;
    uint8_t *scratch = job->scratch;
    memset(scratch, 0, (size_t)plan->groups);
    memset(scratch + plan->spins, 0, (size_t)(plan->size - plan->spins));
    job->kernel = in_bytes ? kernels->potts_bytes : kernels->potts;
    job->weights = (uint32_t *)(void *)scratch;
    job->spins = scratch + plan->spins;
    job->open = in_bytes && job->run->potts_clamp != NULL ? scratch + plan->open : NULL;
    job->data = (glb_potts_data){.program = job->program,
                                 .run = job->run,
                                 .form = plan->form,
                                 .weights = job->weights,
                                 .n_weights = plan->n_weights,
                                 .spins = job->spins,
                                 .open = job->open,
                                 .state = job->state,
                                 .groups = (const void *)(scratch + plan->groups),
                                 .entries = (const void *)(scratch + plan->entries),
                                 .n_groups = plan->n_groups,
                                 .byte_groups = (const void *)(scratch + plan->groups),
                                 .distances = (const void *)(scratch + plan->entries),
                                 .rows = scratch + plan->rows,
                                 .row = plan->row,
                                 .fields = (const void *)(scratch + plan->fields)};
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
    job.plan = glb_potts_plan_run(program, run, 0);
    if (!glb_potts_fill(program, &job.plan, scratch)) {
        job.plan = glb_potts_plan_run(program, run, 1);
        glb_potts_fill(program, &job.plan, scratch);
    }
    if (job.plan.form != GLB_POTTS_ONE_BY_ONE) {
        prepare(&job);
    }
    return glb_parallel(run->n_threads, work, &job);
}
