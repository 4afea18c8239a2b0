/* An Ising run around the kernels: start, sweeps split over threads, moments. */
#include "ising.h"

#include <string.h>

#include "events.h"
#include "moments.h"
#include "moves.h"
#include "parallel.h"
#include "state.h"

enum { FEW_SWEEPS = 4 }; /* exact thresholds for all fields pay from here on */

static int8_t lane_of(const glb_run *run, const glb_plan *plan, const int8_t *lanes, int64_t position, int64_t chain) {
    return is_replica(run) ? lanes[plan->lanes * position + lane_offset(run) + chain]
                           : lanes[plan->lanes * chain + position];
}

int glb_ising_start(const glb_ising *program, const glb_run *run, const glb_plan *plan, const uint8_t *packed,
                    uint8_t *state) {
    int64_t bytes = ((int64_t)program->n_sites + 7) / 8;
    glb_key key = glb_make_key(run->seed, GLB_START, (uint32_t)run->layout, run->stream, 0);
    enum { CHUNK = 256 };
    memset(state, 0, (size_t)plan->state_bytes);
    /* u < 2^31, spin up, exactly when its top bit, plane 0, is clear; replica planes: by position for each word */
    const glb_kernels *kernels = glb_kernels_of(plan->isa);
    uint32_t first_word = run->first_chain >> 5;
    int64_t n_rows = is_replica(run) ? plan->lanes / 32 : run->n_chains;
    int64_t length = is_replica(run) ? program->n_sites : plan->lanes / 32;
    for (int64_t r = 0; packed == NULL && r < n_rows; r++) {
        for (int64_t begin = 0; begin < length; begin += CHUNK) {
            uint32_t plane[CHUNK];
            int64_t n = length - begin < CHUNK ? length - begin : CHUNK;
            uint32_t third = is_replica(run) ? first_word + (uint32_t)r : run->first_chain + (uint32_t)r;
            kernels->first_plane(&key, (uint32_t)begin, 1, third, 0, n, plane);
            for (int64_t i = 0; i < n; i++) {
                int64_t row = is_replica(run) ? begin + i : r;
                int64_t word = is_replica(run) ? r : begin + i;
                if (has_bits(plan)) {
                    ((uint32_t *)(void *)state)[word_at(plan, row, word)] = ~plane[i];
                    continue;
                }
                for (int bit = 0; bit < 32; bit++) {
                    ((int8_t *)state)[plan->lanes * row + 32 * word + bit] = (plane[i] >> bit) & 1u ? -1 : 1;
                }
            }
        }
    }
    if (packed != NULL && is_replica(run)) {
        glb_unpack_replicas(program, run, plan, packed, NULL, 0, plan->lanes / 32, (uint32_t *)(void *)state);
    }
    for (int32_t chain = 0; packed != NULL && !is_replica(run) && chain < run->n_chains; chain++) {
        unpack_chain(program, run, plan, packed + bytes * chain, chain, state);
    }
    for (int32_t p = 0; run->clamp != NULL && p < program->n_sites; p++) {
        for (int32_t chain = 0; chain < run->n_chains; chain++) {
            if (lane_of(run, plan, run->clamp, p, chain) != 0) {
                set_spin(run, plan, state, p, chain, lane_of(run, plan, run->clamp, p, chain) > 0);
            }
        }
    }
    if (plan->kernel == GLB_KERNEL_EVENTS) {
        glb_events_start(run, plan, state);
    }
    return GLB_OK;
}

/* Lanes that a kernel may change: those of chains, and not clamped; in the state's order. */
static void fill_free(const glb_ising *program, const glb_run *run, const glb_plan *plan, uint32_t *free) {
    int64_t first = lane_offset(run);
    int64_t last = is_replica(run) ? first + run->n_chains : program->n_sites;
    int64_t rows = is_replica(run) ? program->n_sites : run->n_chains;
    if (has_bits(plan)) {
        memset(free, 0, (size_t)plan->state_bytes);
    }
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t w = 0; w < plan->lanes / 32; w++) {
            uint32_t bits = 0;
            if (run->clamp == NULL) {
                int64_t before = first - 32 * w;
                int64_t within = last - 32 * w;
                bits = within >= 32 ? 0xFFFFFFFFu : within > 0 ? (1u << within) - 1 : 0;
                bits &= before >= 32 ? 0 : before > 0 ? 0xFFFFFFFFu << before : 0xFFFFFFFFu;
                free[word_at(plan, r, w)] = bits;
                continue;
            }
            for (int64_t lane = 32 * w; lane < 32 * w + 32; lane++) {
                int open = lane >= first && lane < last &&
                           (run->clamp == NULL || run->clamp[plan->lanes * r + lane] == 0);
                bits |= (uint32_t)open << (lane % 32);
            }
            free[word_at(plan, r, w)] = bits;
        }
    }
}

/* The chains' own fields in rows of whole units of 64. */
static void fill_own(const glb_ising *program, const glb_run *run, const glb_plan *plan, int32_t *own) {
    int64_t row = ((int64_t)program->n_sites + 63) / 64 * 64;
    for (int32_t chain = 0; run->chain_field != NULL && chain < run->n_chains; chain++) {
        memset(own + row * chain, 0, 4 * (size_t)row);
        memcpy(own + row * chain, run->chain_field + plan->lanes * chain, 4 * (size_t)program->n_sites);
    }
}

/* Spins as bytes, beside the bits, for the blocks first .. last - 1. */
static void fill_bytes(const glb_ising *program, const glb_plan *plan, const uint8_t *state, int32_t first,
                       int32_t last, uint8_t *bytes) {
    const uint32_t *words = (const void *)state;
    int32_t chains = 16 * plan->byte_vectors;
    for (int32_t block = first; block < last; block++) {
        memset(bytes + plan->byte_stride * block, 0, (size_t)plan->byte_stride);
        for (int32_t p = 0; p < program->n_sites; p++) {
            uint8_t *group = bytes + plan->byte_stride * block + (int64_t)4 * chains * (p / 4) + p % 4;
            for (int32_t chain = 0; chain < chains; chain++) {
                uint32_t word = words[word_at(plan, p, (int64_t)block * plan->words + chain / 32)];
                group[4 * chain] = (word >> (chain % 32)) & 1u;
            }
        }
    }
}

/* What the threads of one glb_ising_sweep share. Each takes whole units (blocks of chains, or chains) where there are
 * enough of them (no barrier is needed then), else a share of every colour's positions. */
struct job {
    const glb_ising *program;
    const glb_run *run;
    const glb_plan *plan;
    const glb_output *output;
    const uint8_t *net;
    glb_ising_kernel kernel;
    uint8_t *state;
    uint8_t *bytes;
    int32_t *own;
    uint8_t *fields;
    int one_set_of_planes;
    uint32_t *planes; /* 16 words of which the first four are a tag, then the planes */
    uint32_t *table;
    int64_t entries; /* for each heat */
    const uint32_t *free;
    glb_moves moves;
    glb_events events;
    uint64_t first_sweep;
    int64_t n_sweeps;
    int by_units;
};

static int32_t share(int64_t n, int thread, int n_threads) { return (int32_t)(n * thread / n_threads); }

static uint64_t b_of(const glb_run *run, uint64_t sweep) {
    uint64_t last = (uint64_t)run->n_b - 1;
    return run->b[sweep - 1 < last ? sweep - 1 : last];
}

static void take_sample(const struct job *job, int64_t sample, int32_t begin, int32_t end) {
    int64_t bytes = ((int64_t)job->program->n_sites + 7) / 8;
    if (job->output->samples != NULL && sample < job->output->n_samples) {
        glb_pack_chains(job->program, job->run, job->plan, job->state, begin, end, job->output->samples + bytes * sample,
                    bytes * job->output->n_samples);
    }
}

/* The thresholds of every heat, a row each; nobody may still be reading old ones. */
static void fill_table(const struct job *job, glb_team *team, const glb_heat *heat, int thread, int n_threads) {
    int64_t begin = job->entries * thread / n_threads;
    int64_t end = job->entries * (thread + 1) / n_threads;
    glb_barrier(team);
    for (int64_t k = 0; k < glb_n_heats(job->run); k++) {
        for (int64_t i = begin; i < end; i++) {
            int32_t field = (int32_t)(i - job->plan->sum);
            job->table[job->entries * k + i] = job->run->dynamics == GLB_BY_METROPOLIS
                                                   ? glb_flip_threshold(field, heat[k].b)
                                                   : glb_threshold(field, heat[k].b);
        }
    }
    glb_barrier(team);
}

/* Whether all chains have the same fields. */
static int fields_are_shared(const glb_ising *program, const glb_run *run, const glb_plan *plan) {
    const int32_t *field = run->chain_field;
    int shared = 1;
    for (int64_t chain = 1; field != NULL && shared && chain < run->n_chains; chain++) {
        shared = memcmp(field, field + plan->lanes * chain, 4 * (size_t)program->n_sites) == 0;
    }
    return shared;
}

/* The thresholds of all positions as bit planes, unless those of this b are there from an earlier call. A run's own
 * fields, for which each chain has planes of its own where they differ, are made in every call: nobody knows whose the
 * earlier ones were. */
static void fill_planes(const struct job *job, glb_team *team, uint64_t b, int thread, int n_threads) {
    enum { MOST = 32 * 16 }; /* thresholds in a widest vector of words */
    const glb_ising *program = job->program;
    const int32_t *own = job->run->chain_field;
    const glb_kernels *kernels = glb_kernels_of(job->plan->isa);
    int64_t V = kernels->vector_words;
    int64_t vectors = (program->n_sites + 32 * V - 1) / (32 * V);
    int64_t all = job->one_set_of_planes ? vectors : vectors * job->run->n_chains;
    uint32_t tag[4] = {own == NULL, (uint32_t)b, (uint32_t)(b >> 32), (uint32_t)program->n_sites};
    int there = own == NULL && memcmp(job->planes, tag, sizeof tag) == 0;
    glb_barrier(team); /* everyone has read the tag, and nobody reads old planes */
    for (int64_t v = all * thread / n_threads; !there && v < all * (thread + 1) / n_threads; v++) {
        uint32_t threshold[MOST];
        int64_t first = 32 * V * (v % vectors);
        int64_t n = program->n_sites - first < 32 * V ? program->n_sites - first : 32 * V;
        const int32_t *field = own == NULL ? program->field : own + job->plan->lanes * (v / vectors);
        kernels->thresholds(field + first, n, b, threshold);
        memset(threshold + n, 0, 4 * (size_t)(32 * V - n));
        kernels->planes_of(threshold, job->planes + 16 + 32 * V * v);
    }
    glb_barrier(team);
    if (thread == 0) {
        memcpy(job->planes, tag, sizeof tag);
    }
}

static void work(void *argument, glb_team *team, int thread) {
    const struct job *job = argument;
    const glb_ising *program = job->program;
    const glb_run *run = job->run;
    const glb_plan *plan = job->plan;
    int n = run->n_threads;
    int32_t units = is_replica(run) ? plan->n_blocks : run->n_chains;
    int32_t grain = glb_ising_grain(plan);
    int tempered = run->n_ladders > 0;
    glb_heat heat; /* of a run in which all chains have the sweep's b */
    glb_sweep_data data = {.program = program,
                           .run = run,
                           .plan = plan,
                           .net = job->net,
                           .state = (uint32_t *)(void *)job->state,
                           .spins = (int8_t *)job->state,
                           .free = job->free,
                           .bytes = job->bytes,
                           .own = job->own,
                           .fields = job->fields,
                           .planes = job->planes == NULL ? NULL : job->planes + 16,
                           .plane_words = job->one_set_of_planes ? 0 : glb_plane_words(program, plan),
                           .heat = tempered ? job->moves.heat : &heat,
                           .heat_of_lane = tempered ? job->moves.heat_of_lane : NULL,
                           .table = job->table};
    int32_t first = job->by_units ? share(units, thread, n) : 0;
    int32_t last = job->by_units ? share(units, thread + 1, n) : units;
    /* the chains whose samples this thread packs; its own where units are split, so that it need not wait */
    int64_t per_unit = is_replica(run) ? 32 * (int64_t)plan->words : 1;
    int64_t from = per_unit * first - lane_offset(run);
    int64_t to = per_unit * last - lane_offset(run);
    int32_t chain_begin = job->by_units ? (int32_t)(from < 0 ? 0 : from) : share(run->n_chains, thread, n);
    int32_t chain_end = job->by_units ? (int32_t)(to > run->n_chains ? run->n_chains : to)
                                      : share(run->n_chains, thread + 1, n);
    glb_moments moments = {program, run, plan, job->output, job->state, glb_kernels_of(plan->isa)};
    glb_share own = {first, last, job->by_units ? 0 : thread, job->by_units ? 1 : n};
    int sums = job->output->site_sum != NULL || job->output->edge_sum != NULL;
    int kept = 0; /* states whose moments are not added yet */
    int events = plan->kernel == GLB_KERNEL_EVENTS;
    int whole = plan->kernel == GLB_KERNEL_DENSE || plan->kernel == GLB_KERNEL_INCREMENTAL || events; /* sweeps */
    for (int32_t chain = first; plan->kernel == GLB_KERNEL_INCREMENTAL && chain < last; chain++) {
        glb_kernels_of(plan->isa)->incremental_start(&data, chain);
    }
    for (int64_t s = 0; s < job->n_sweeps; s++) {
        data.sweep = job->first_sweep + (uint64_t)s;
        if (s == 0 || (!tempered && b_of(run, data.sweep) != b_of(run, data.sweep - 1))) {
            if (!tempered) {
                glb_ising_fill(plan, job->net, b_of(run, data.sweep), &heat);
            }
            if (job->planes != NULL) {
                fill_planes(job, team, heat.b, thread, n);
            }
            if (job->table != NULL) {
                fill_table(job, team, data.heat, thread, n);
            }
        }
        if (whole && !events && first < last) {
            glb_part all = {0, 0, program->n_sites, first, last};
            job->kernel(&data, &all);
        }
        if (events) {
            glb_events_sweep(&job->events, data.sweep, heat.b, first, last, thread);
        }
        for (int32_t colour = 0; colour < program->n_colours && !whole; colour++) {
            int32_t begin = program->colour_start[colour];
            int32_t end = program->colour_start[colour + 1];
            glb_part part = {colour, begin, end, first, last};
            if (!job->by_units) {
                /* bit-sliced groups are counted from the colour's begin, words of site planes from position 0 */
                int32_t origin = is_replica(run) ? begin : begin / grain * grain;
                int32_t grains = (end - origin + grain - 1) / grain;
                part.begin = origin + grain * share(grains, thread, n);
                part.end = origin + grain * share(grains, thread + 1, n);
                part.begin = part.begin > begin ? part.begin : begin;
                part.end = part.end < end ? part.end : end;
            }
            if (part.begin < part.end && part.first < part.last) {
                job->kernel(&data, &part);
            }
            if (!job->by_units) {
                glb_barrier(team);
            }
        }
        if (run->moves_every > 0 && data.sweep % (uint64_t)run->moves_every == 0) {
            if (tempered) {
                glb_exchange(&job->moves, data.sweep, team, thread);
            } else if (data.sweep < (uint64_t)run->n_b) {
                glb_resample(&job->moves, data.sweep, team, thread);
            }
            if (job->bytes != NULL) { /* a thread's own blocks */
                fill_bytes(program, plan, job->state, first, last, job->bytes);
            }
        }
        if (job->output->every > 0 && (s + 1) % job->output->every == 0) {
            take_sample(job, (s + 1) / job->output->every - 1, chain_begin, chain_end);
            if (sums) {
                glb_moments_keep(&moments, &own, kept++);
            }
            if (!job->by_units) {
                glb_barrier(team); /* the next sweep must not overtake a thread that still packs */
            }
        }
        if (kept == 64 || (kept > 0 && s + 1 == job->n_sweeps)) {
            glb_moments_turn(&moments, &own, kept);
            if (!job->by_units) {
                glb_barrier(team);
            }
            glb_moments_add(&moments, &own, kept); /* the next state is kept after a colour's barrier */
            kept = 0;
        }
    }
}

int glb_ising_sweep(const glb_ising *program, const glb_run *run, const glb_plan *plan, const uint8_t *net,
                    uint8_t *state, uint8_t *scratch, uint64_t first_sweep, int64_t n_sweeps,
                    const glb_output *output) {
    const glb_kernels *kernels = glb_kernels_of(plan->isa);
    if (kernels == NULL) {
        return GLB_E_ISA;
    }
    int sums = output->site_sum != NULL || output->edge_sum != NULL;
    if (n_sweeps < 0 || first_sweep < 1 || (sums && output->history == NULL)) {
        return GLB_E_SIZE;
    }
    int64_t entries = glb_ising_table_entries(program, run, plan);
    uint32_t *words = (uint32_t *)(void *)scratch;
    uint32_t *free = words + (entries * glb_n_heats(run) + 15) / 16 * 16;
    struct job job = {.program = program,
                      .run = run,
                      .plan = plan,
                      .output = output,
                      .net = net,
                      .state = state,
                      .table = entries > 0 ? words : NULL,
                      .entries = entries,
                      .first_sweep = first_sweep,
                      .n_sweeps = n_sweeps,
                      .by_units = (is_replica(run) ? plan->n_blocks : run->n_chains) >= run->n_threads};
    switch (plan->kernel) {
    case GLB_KERNEL_BITS:
        job.kernel = kernels->bits;
        break;
    case GLB_KERNEL_BYTES:
        job.kernel = kernels->bytes;
        break;
    case GLB_KERNEL_FILTER:
        job.kernel = kernels->filter;
        break;
    case GLB_KERNEL_DENSE:
        job.kernel = kernels->dense;
        job.bytes = (uint8_t *)(free + (plan->rows * plan->words * plan->n_blocks + 15) / 16 * 16);
        job.by_units = 1;
        fill_bytes(program, plan, state, 0, plan->n_blocks, job.bytes);
        break;
    case GLB_KERNEL_INDEPENDENT:
        if (run->chain_field != NULL && n_sweeps <= FEW_SWEEPS && kernels->fresh != NULL) {
            job.kernel = kernels->fresh;
            break;
        }
        job.kernel = kernels->independent;
        job.one_set_of_planes = fields_are_shared(program, run, plan);
        job.planes = free + (plan->state_bytes / 4 + 15) / 16 * 16;
        break;
    case GLB_KERNEL_DIAGONALS:
        job.kernel = kernels->diagonals;
        job.own = (int32_t *)(void *)(free + (plan->state_bytes / 4 + 15) / 16 * 16);
        fill_own(program, run, plan, job.own);
        break;
    case GLB_KERNEL_LATTICE:
        job.kernel = kernels->lattice;
        break;
    case GLB_KERNEL_CHIP:
        job.kernel = kernels->chip;
        if (first_sweep < run->chip->first_sweep ||
            first_sweep + (uint64_t)n_sweeps > run->chip->first_sweep + (uint64_t)run->chip->n_sweeps) {
            return GLB_E_SIZE;
        }
        break;
    case GLB_KERNEL_INCREMENTAL:
        job.kernel = kernels->incremental;
        job.fields = (uint8_t *)(free + (plan->state_bytes / 4 + 15) / 16 * 16);
        job.by_units = 1;
        break;
    case GLB_KERNEL_SITES:
        job.kernel = kernels->sites;
        break;
    case GLB_KERNEL_EVENTS: {
        uint8_t *memory = scratch + plan->scratch_bytes - glb_events_scratch_bytes(program, run);
        job.events = (glb_events){.program = program, .run = run, .plan = plan, .state = state, .memory = memory};
        job.by_units = 1;
        glb_events_clear(&job.events);
        break;
    }
    default:
        job.kernel = kernels->exact;
    }
    int masked = plan->kernel != GLB_KERNEL_BITS && plan->kernel != GLB_KERNEL_LATTICE &&
                 plan->kernel != GLB_KERNEL_INDEPENDENT;
    if ((masked || run->clamp != NULL) && plan->kernel != GLB_KERNEL_EVENTS) {
        fill_free(program, run, plan, free);
        job.free = free;
    }
    if (run->moves_every > 0) {
        uint8_t *memory = scratch + plan->scratch_bytes - glb_moves_bytes(program, run, plan);
        job.moves = glb_moves_in(program, run, plan, memory);
        job.moves.output = output;
        job.moves.state = state;
        job.moves.moves_before = (int64_t)((first_sweep - 1) / (uint64_t)run->moves_every);
        glb_fill_heats(&job.moves, net);
    }
    int rc = glb_parallel(run->n_threads, work, &job);
    return rc == GLB_OK && plan->kernel == GLB_KERNEL_EVENTS ? glb_events_end(&job.events, output->updates) : rc;
}
