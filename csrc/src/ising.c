/* An Ising run around the kernels: start, sweeps split over threads, samples and moments. */
#include "ising.h"

#include <string.h>

#include "parallel.h"

static int64_t round_up_32(int64_t n) { return (n + 31) / 32 * 32; }

static int is_replica(const glb_run *run) { return run->layout == GLB_REPLICA_PLANES; }

/* Replica planes are cut at global multiples of 32, so a shard may begin inside a word: this many lanes before it. */
static int64_t lane_offset(const glb_run *run) { return is_replica(run) ? run->first_chain % 32 : 0; }

int64_t glb_ising_lanes(const glb_ising *program, const glb_run *run) {
    if (run->n_chains < 1 || program->n_sites < 1 || run->layout < 0 || run->layout > GLB_SITE_PLANES) {
        return GLB_E_SIZE;
    }
    return is_replica(run) ? round_up_32(lane_offset(run) + run->n_chains) : round_up_32(program->n_sites);
}

static int64_t n_rows(const glb_ising *program, const glb_run *run) {
    return is_replica(run) ? program->n_sites : run->n_chains;
}

/* Where the spin of a chain at a position lies. */
static int64_t place(const glb_run *run, int64_t row, int64_t position, int64_t chain) {
    return is_replica(run) ? row * position + lane_offset(run) + chain : row * chain + position;
}

int glb_ising_check_run(const glb_ising *program, const glb_run *run, int64_t *sum) {
    int64_t row = glb_ising_lanes(program, run);
    if (row < 0) {
        return (int)row;
    }
    if (run->n_b < 1 || run->n_threads < 1) {
        return GLB_E_SIZE;
    }
    for (int64_t i = 0; i < run->n_b; i++) {
        if (run->b[i] >> 63) {
            return GLB_E_RANGE;
        }
    }
    int rc = glb_ising_check(program, sum);
    if (rc != GLB_OK || run->chain_field == NULL) {
        return rc;
    }
    for (int32_t p = 0; p < program->n_sites; p++) {
        int64_t weights = 0;
        for (int64_t k = program->row_start[p]; k < program->row_start[p + 1]; k++) {
            weights += program->weight[k] < 0 ? -(int64_t)program->weight[k] : program->weight[k];
        }
        for (int32_t chain = 0; chain < run->n_chains; chain++) {
            int64_t field = run->chain_field[place(run, row, p, chain)];
            int64_t total = weights + (field < 0 ? -field : field);
            if (total >= INT64_C(1) << 30) {
                return GLB_E_RANGE;
            }
            *sum = total > *sum ? total : *sum;
        }
    }
    return GLB_OK;
}

/* A table pays when a sweep looks up more thresholds than the table has entries. */
static int64_t table_entries(const glb_ising *program, const glb_run *run, int64_t sum) {
    int64_t updates = (int64_t)program->n_sites * run->n_chains;
    return 2 * sum + 1 <= updates && sum < (1 << 20) ? 2 * sum + 1 : 0;
}

int64_t glb_ising_scratch(const glb_ising *program, const glb_run *run, int64_t sum) {
    int64_t row = glb_ising_lanes(program, run);
    if (row < 0) {
        return row;
    }
    return 4 * (table_entries(program, run, sum) + n_rows(program, run) * (row / 32));
}

static void fill_free(const glb_ising *program, const glb_run *run, int64_t row, uint32_t *free) {
    int64_t words = row / 32;
    int64_t first = lane_offset(run);
    int64_t last = is_replica(run) ? first + run->n_chains : program->n_sites;
    for (int64_t r = 0; r < n_rows(program, run); r++) {
        for (int64_t w = 0; w < words; w++) {
            uint32_t bits = 0;
            for (int64_t lane = 32 * w; lane < 32 * w + 32; lane++) {
                int open = lane >= first && lane < last && (run->clamp == NULL || run->clamp[row * r + lane] == 0);
                bits |= (uint32_t)open << (lane % 32);
            }
            free[words * r + w] = bits;
        }
    }
}

int glb_ising_start(const glb_ising *program, const glb_run *run, const uint8_t *packed, int8_t *state) {
    int64_t row = glb_ising_lanes(program, run);
    if (row < 0) {
        return (int)row;
    }
    int64_t bytes = ((int64_t)program->n_sites + 7) / 8;
    glb_key key = glb_make_key(run->seed, GLB_START, (uint32_t)run->layout, run->stream, 0);
    for (int64_t r = 0; r < n_rows(program, run); r++) {
        for (int64_t w = 0; w < row / 32; w++) {
            uint32_t word[4];
            uint32_t a = (uint32_t)(is_replica(run) ? r : w);
            uint32_t c = (uint32_t)(is_replica(run) ? (run->first_chain >> 5) + w : run->first_chain + r);
            glb_threefry(&key, a, 0, c, 0, word);
            for (int i = 0; i < 32; i++) {
                /* u < 2^31 exactly when its top bit, plane 0, is clear */
                state[row * r + 32 * w + i] = (word[0] >> i) & 1u ? -1 : 1;
            }
        }
    }
    for (int32_t p = 0; p < program->n_sites; p++) {
        int64_t site = program->site[p];
        for (int32_t chain = 0; chain < run->n_chains; chain++) {
            int64_t at = place(run, row, p, chain);
            if (packed != NULL) {
                state[at] = (packed[bytes * chain + site / 8] >> (site % 8)) & 1 ? 1 : -1;
            }
            if (run->clamp != NULL && run->clamp[at] != 0) {
                state[at] = run->clamp[at] > 0 ? 1 : -1;
            }
        }
    }
    return GLB_OK;
}

/* Packs the chains begin .. end - 1 into rows that lie `stride` bytes apart. */
static void pack_chains(const glb_ising *program, const glb_run *run, const int8_t *state, int64_t row, int32_t begin,
                        int32_t end, uint8_t *out, int64_t stride) {
    int64_t bytes = ((int64_t)program->n_sites + 7) / 8;
    for (int32_t chain = begin; chain < end; chain++) {
        memset(out + stride * chain, 0, (size_t)bytes);
    }
    for (int32_t p = 0; p < program->n_sites; p++) {
        int64_t site = program->site[p];
        uint8_t *target = out + site / 8;
        for (int32_t chain = begin; chain < end; chain++) {
            target[stride * chain] |= (uint8_t)((state[place(run, row, p, chain)] > 0) << (site % 8));
        }
    }
}

int glb_ising_pack(const glb_ising *program, const glb_run *run, const int8_t *state, uint8_t *packed) {
    int64_t row = glb_ising_lanes(program, run);
    if (row < 0) {
        return (int)row;
    }
    pack_chains(program, run, state, row, 0, run->n_chains, packed, ((int64_t)program->n_sites + 7) / 8);
    return GLB_OK;
}

/* What the threads of one glb_ising_sweep share. Each takes whole chains where there are enough of them (no barrier
 * is needed then), else a share of every colour's positions. */
struct job {
    const glb_ising *program;
    const glb_run *run;
    const glb_output *output;
    glb_ising_kernel kernel;
    int64_t sum;
    int64_t row;
    int8_t *state;
    uint32_t *table;
    const uint32_t *free;
    uint64_t first_sweep;
    int64_t n_sweeps;
    int by_chains;
};

static int32_t share(int64_t begin, int64_t end, int thread, int n_threads) {
    return (int32_t)(begin + (end - begin) * thread / n_threads);
}

static uint64_t b_of(const glb_run *run, uint64_t sweep) {
    uint64_t last = (uint64_t)run->n_b - 1;
    return run->b[sweep - 1 < last ? sweep - 1 : last];
}

static void add_moments(const struct job *job, int32_t begin, int32_t end) {
    const glb_ising *program = job->program;
    const glb_run *run = job->run;
    int32_t chains = run->n_chains;
    for (int32_t p = 0; job->output->site_sum != NULL && p < program->n_sites; p++) {
        int64_t *sum = job->output->site_sum + (int64_t)chains * program->site[p];
        for (int32_t chain = begin; chain < end; chain++) {
            sum[chain] += job->state[place(run, job->row, p, chain)];
        }
    }
    for (int64_t e = 0; job->output->edge_sum != NULL && e < program->n_edges; e++) {
        int64_t *sum = job->output->edge_sum + chains * e;
        int32_t p = program->edge[2 * e];
        int32_t q = program->edge[2 * e + 1];
        for (int32_t chain = begin; chain < end; chain++) {
            sum[chain] += job->state[place(run, job->row, p, chain)] * job->state[place(run, job->row, q, chain)];
        }
    }
}

static void take_sample(const struct job *job, int64_t sample, int32_t begin, int32_t end) {
    int64_t bytes = ((int64_t)job->program->n_sites + 7) / 8;
    if (job->output->samples != NULL && sample < job->output->n_samples) {
        pack_chains(job->program, job->run, job->state, job->row, begin, end, job->output->samples + bytes * sample,
                    bytes * job->output->n_samples);
    }
    add_moments(job, begin, end);
}

static void fill_table(const struct job *job, uint64_t b, int thread, int n_threads) {
    int64_t begin = (2 * job->sum + 1) * thread / n_threads;
    int64_t end = (2 * job->sum + 1) * (thread + 1) / n_threads;
    for (int64_t i = begin; i < end; i++) {
        job->table[i] = glb_threshold((int32_t)(i - job->sum), b);
    }
}

static void work(void *argument, glb_team *team, int thread) {
    const struct job *job = argument;
    const glb_ising *program = job->program;
    const glb_run *run = job->run;
    int n = run->n_threads;
    int32_t units = (int32_t)(is_replica(run) ? job->row / 32 : run->n_chains);
    glb_ising_sweep_data data = {.program = program,
                                 .run = run,
                                 .state = job->state,
                                 .free = job->free,
                                 .table = job->table,
                                 .row = job->row,
                                 .sum = job->sum};
    int32_t lane_begin = job->by_chains ? share(0, units, thread, n) : 0;
    int32_t lane_end = job->by_chains ? share(0, units, thread + 1, n) : units;
    /* the chains whose samples this thread packs; its own where chains are split, so that it need not wait */
    int64_t offset = lane_offset(run);
    int64_t scale = is_replica(run) ? 32 : 1;
    int64_t first = scale * lane_begin - offset;
    int64_t last = scale * lane_end - offset;
    int32_t chain_begin = job->by_chains ? (int32_t)(first < 0 ? 0 : first) : share(0, run->n_chains, thread, n);
    int32_t chain_end = job->by_chains ? (int32_t)(last > run->n_chains ? run->n_chains : last)
                                       : share(0, run->n_chains, thread + 1, n);
    for (int64_t s = 0; s < job->n_sweeps; s++) {
        data.sweep = job->first_sweep + (uint64_t)s;
        data.b = b_of(run, data.sweep);
        if (job->table != NULL && (s == 0 || data.b != b_of(run, data.sweep - 1))) {
            glb_barrier(team); /* nobody may still be reading the old table */
            fill_table(job, data.b, thread, n);
            glb_barrier(team);
        }
        for (int32_t colour = 0; colour < program->n_colours; colour++) {
            int32_t begin = program->colour_start[colour];
            int32_t end = program->colour_start[colour + 1];
            glb_ising_part part = {begin, end, lane_begin, lane_end};
            if (!job->by_chains) {
                part.begin = share(begin, end, thread, n);
                part.end = share(begin, end, thread + 1, n);
            }
            job->kernel(&data, &part);
            if (!job->by_chains) {
                glb_barrier(team);
            }
        }
        if (job->output->every > 0 && (s + 1) % job->output->every == 0) {
            take_sample(job, (s + 1) / job->output->every - 1, chain_begin, chain_end);
            if (!job->by_chains) {
                glb_barrier(team); /* the next sweep must not overtake a thread that still packs */
            }
        }
    }
}

int glb_ising_sweep(const glb_ising *program, const glb_run *run, int64_t sum, int8_t *state, uint8_t *scratch,
                    uint64_t first_sweep, int64_t n_sweeps, const glb_output *output) {
    int64_t row = glb_ising_lanes(program, run);
    glb_ising_kernel kernel = glb_ising_kernel_for(run->isa);
    if (row < 0) {
        return (int)row;
    }
    if (kernel == NULL) {
        return GLB_E_ISA;
    }
    if (n_sweeps < 0 || first_sweep < 1) {
        return GLB_E_SIZE;
    }
    int64_t entries = table_entries(program, run, sum);
    uint32_t *words = (uint32_t *)(void *)scratch;
    fill_free(program, run, row, words + entries);
    int64_t units = is_replica(run) ? row / 32 : run->n_chains;
    struct job job = {.program = program,
                      .run = run,
                      .output = output,
                      .kernel = kernel,
                      .sum = sum,
                      .row = row,
                      .state = state,
                      .table = entries > 0 ? words : NULL,
                      .free = words + entries,
                      .first_sweep = first_sweep,
                      .n_sweeps = n_sweeps,
                      .by_chains = units >= run->n_threads};
    return glb_parallel(run->n_threads, work, &job);
}
