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

static void local_fields(const glb_potts_job *job, int64_t chain, int32_t position, const int32_t *spin,
                         int64_t *field) {
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
int32_t glb_potts_draw(const glb_potts *program, int32_t position, const int64_t *field, uint64_t *sum, uint64_t b,
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

void glb_potts_sample(const glb_potts_job *job, int64_t chain, const int32_t *spin, int32_t begin, int32_t end,
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

uint64_t glb_potts_b(const glb_run *run, uint64_t sweep) {
    uint64_t last = (uint64_t)run->n_b - 1;
    return run->b[sweep - 1 < last ? sweep - 1 : last];
}

static void work(void *argument, glb_team *team, int thread) {
    const glb_potts_job *job = argument;
    const glb_potts *program = job->program;
    const glb_run *run = job->run;
    int64_t *field = (int64_t *)(void *)(job->scratch + thread_scratch(program) * thread);
    uint64_t *sum = (uint64_t *)(field + program->n_states);
    int64_t begin = (int64_t)run->n_chains * thread / run->n_threads;
    int64_t end = (int64_t)run->n_chains * (thread + 1) / run->n_threads;
    (void)team;
    for (int64_t s = 0; s < job->n_sweeps; s++) { /* chains do not meet, so there is nothing to wait for */
        uint64_t sweep = job->first_sweep + (uint64_t)s;
        uint64_t b = glb_potts_b(run, sweep);
        glb_key key = glb_make_key(run->seed, GLB_CATEGORICAL, 0, run->stream, sweep);
        for (int64_t chain = begin; chain < end; chain++) {
            int32_t *spin = job->state + chain * program->n_sites;
            const int32_t *clamp = run->potts_clamp != NULL ? run->potts_clamp + chain * program->n_sites : NULL;
            uint32_t number = run->first_chain + (uint32_t)chain;
            for (int32_t p = 0; p < program->n_sites; p++) {
                if (clamp == NULL || clamp[p] < 0) {
                    local_fields(job, chain, p, spin, field);
                    uint32_t u = draw(&key, (uint32_t)p, sweep, number);
                    spin[p] = glb_potts_draw(program, p, field, sum, b, u);
                }
            }
            if (job->output->every > 0 && (s + 1) % job->output->every == 0) {
                glb_potts_sample(job, chain, spin, 0, program->n_sites, (s + 1) / job->output->every - 1);
            }
        }
    }
}

int glb_potts_sweep(const glb_potts *program, const glb_run *run, int32_t *state, uint8_t *scratch,
                    uint64_t first_sweep, int64_t n_sweeps, const glb_output *output, int32_t *samples) {
    if (n_sweeps < 0 || first_sweep < 1) {
        return GLB_E_SIZE;
    }
    glb_potts_job job = {program, run, output, state, scratch, samples, first_sweep, n_sweeps, {0}};
    if (glb_dits_fit(program, run)) {
        return glb_dits_sweep(&job);
    }
    job.plan = glb_potts_plan_run(program, run, 0);
    if (!glb_potts_fill(program, &job.plan, scratch)) {
        job.plan = glb_potts_plan_run(program, run, 1);
        glb_potts_fill(program, &job.plan, scratch);
    }
    if (job.plan.form != GLB_POTTS_ONE_BY_ONE) {
        return glb_potts_sweep_in_vectors(&job);
    }
    return glb_parallel(run->n_threads, work, &job);
}
