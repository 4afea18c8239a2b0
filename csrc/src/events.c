#include "events.h"

#include <string.h>

typedef struct {
    uint32_t tick;
    uint32_t u;
    int32_t position;
} event;

/* A flip that neighbours see from a tick on; ticks count from the sweep's begin. */
typedef struct {
    int64_t tick;
    int32_t position;
    int32_t unused;
} flip;

/* A chain's flips on their way, in order of time. */
typedef struct {
    int64_t n;
    flip flip[];
} queue;

/* A thread's working memory. */
typedef struct {
    int32_t *no_room;
    int64_t *updates; /* by site */
    event *found;     /* as they come */
    event *ordered;   /* by time */
    int32_t *bucket;
} room;

static const int64_t TICKS = INT64_C(1) << 32;

static int64_t round_up(int64_t n) { return (n + 63) / 64 * 64; }

static int64_t queue_bytes(const glb_run *run) {
    return round_up((int64_t)sizeof(queue) + (int64_t)sizeof(flip) * run->clock->room_for_flips);
}

/* Where what neighbours see lies. */
static int64_t seen_at(const glb_run *run, const glb_plan *plan) { return round_up(plan->lanes * run->n_chains); }

static queue *queue_of(const glb_run *run, const glb_plan *plan, uint8_t *state, int32_t chain) {
    return (void *)(state + 2 * seen_at(run, plan) + queue_bytes(run) * chain);
}

int64_t glb_events_state_bytes(const glb_run *run, const glb_plan *plan) {
    int64_t spins = seen_at(run, plan);
    return run->clock->delay == 0 ? spins : 2 * spins + queue_bytes(run) * run->n_chains;
}

static int64_t n_buckets(const glb_run *run) { return INT64_C(1) << glb_ceil_log2((uint32_t)run->clock->room); }

static int64_t room_bytes(const glb_ising *program, const glb_run *run) {
    return 64 + round_up(8 * (int64_t)program->n_sites) + 2 * round_up((int64_t)sizeof(event) * run->clock->room) +
           round_up(4 * (n_buckets(run) + 1));
}

int64_t glb_events_scratch_bytes(const glb_ising *program, const glb_run *run) {
    return room_bytes(program, run) * run->n_threads;
}

static room room_of(const glb_events *events, int thread) {
    int64_t events_bytes = round_up((int64_t)sizeof(event) * events->run->clock->room);
    uint8_t *at = events->memory + room_bytes(events->program, events->run) * thread;
    room room = {.no_room = (void *)at, .updates = (void *)(at + 64)};
    at += 64 + round_up(8 * (int64_t)events->program->n_sites);
    room.found = (void *)at;
    room.ordered = (void *)(at + events_bytes);
    room.bucket = (void *)(at + 2 * events_bytes);
    return room;
}

/* Flips on their way are the caller's: each has a chain, a position, and a time not before the one ahead of it. */
static int check_flight(const glb_ising *program, const glb_run *run) {
    const glb_clock *clock = run->clock;
    int32_t in_chain = 0;
    for (int64_t i = 0; i < clock->n_in_flight; i++) {
        const int64_t *row = clock->in_flight + 3 * i;
        if (row[0] < 0 || row[0] >= run->n_chains || row[1] < 0 || row[1] >= program->n_sites) {
            return GLB_E_INDEX;
        }
        int follows = i > 0 && row[0] == row[-3];
        in_chain = follows ? in_chain + 1 : 1;
        int in_order = (i == 0 || row[0] >= row[-3]) && (!follows || row[2] >= row[-1]);
        if (row[2] < 0 || (uint64_t)row[2] > clock->delay || !in_order) {
            return GLB_E_ORDER;
        }
        if (in_chain > clock->room_for_flips) {
            return GLB_E_ROOM;
        }
    }
    return GLB_OK;
}

int glb_clock_check(const glb_ising *program, const glb_run *run) {
    const glb_clock *clock = run->clock;
    if (run->layout != GLB_SITE_PLANES || run->dynamics != GLB_BY_HEAT_BATH || run->moves_every > 0) {
        return GLB_E_SIZE;
    }
    if (clock->n_rates < 1 || clock->n_counts < 1 || clock->room < 1 || clock->room > 1 << 30 ||
        clock->room_for_flips < 0 || clock->delay > (uint64_t)GLB_MAX_DELAY << 32) {
        return GLB_E_SIZE;
    }
    for (int32_t p = 0; p < program->n_sites; p++) {
        if (clock->rate[p] < 0 || clock->rate[p] >= clock->n_rates) {
            return GLB_E_INDEX;
        }
    }
    return check_flight(program, run);
}

void glb_events_start(const glb_run *run, const glb_plan *plan, uint8_t *state) {
    const glb_clock *clock = run->clock;
    if (clock->delay == 0) {
        return;
    }
    int8_t *seen = (int8_t *)state + seen_at(run, plan);
    memcpy(seen, state, (size_t)(plan->lanes * run->n_chains));
    for (int32_t chain = 0; chain < run->n_chains; chain++) {
        queue_of(run, plan, state, chain)->n = 0;
    }
    for (int64_t i = 0; i < clock->n_in_flight; i++) {
        const int64_t *row = clock->in_flight + 3 * i;
        queue *flips = queue_of(run, plan, state, (int32_t)row[0]);
        flips->flip[flips->n++] = (flip){.tick = row[2], .position = (int32_t)row[1]};
        int8_t *spin = seen + plan->lanes * row[0] + row[1];
        *spin = (int8_t)-*spin;
    }
}

int64_t glb_events_in_flight(const glb_run *run, const glb_plan *plan, uint8_t *state, int64_t *rows) {
    int64_t n = 0;
    for (int32_t chain = 0; run->clock->delay > 0 && chain < run->n_chains; chain++) {
        const queue *flips = queue_of(run, plan, state, chain);
        for (int64_t i = 0; i < flips->n; i++, n++) {
            if (rows != NULL) {
                rows[3 * n] = chain;
                rows[3 * n + 1] = flips->flip[i].position;
                rows[3 * n + 2] = flips->flip[i].tick;
            }
        }
    }
    return n;
}

void glb_events_clear(const glb_events *events) {
    for (int thread = 0; thread < events->run->n_threads; thread++) {
        room room = room_of(events, thread);
        *room.no_room = 0;
        memset(room.updates, 0, 8 * (size_t)events->program->n_sites);
    }
}

int glb_events_end(const glb_events *events, int64_t *updates) {
    int rc = GLB_OK;
    for (int thread = 0; thread < events->run->n_threads; thread++) {
        room room = room_of(events, thread);
        for (int32_t i = 0; updates != NULL && i < events->program->n_sites; i++) {
            updates[i] += room.updates[i];
        }
        rc = *room.no_room ? GLB_E_ROOM : rc;
    }
    return rc;
}

/* The updates of a chain in a sweep, by position and number; -1 where there is no room for all. */
static int64_t find_events(const glb_events *events, uint64_t sweep, int32_t chain, event *found) {
    enum { CHUNK = 128 };
    const glb_run *run = events->run;
    const glb_clock *clock = run->clock;
    int32_t n_sites = events->program->n_sites;
    glb_key key = glb_make_key(run->seed, GLB_EVENT, 0, run->stream, sweep);
    uint32_t number = run->first_chain + (uint32_t)chain;
    const int8_t *clamp = run->clamp == NULL ? NULL : run->clamp + events->plan->lanes * chain;
    int64_t n = 0;
    for (int32_t begin = 0; begin < n_sites; begin += CHUNK) {
        uint32_t first[CHUNK][4]; /* words 0 to 3 of each position */
        int32_t end = n_sites - begin < CHUNK ? n_sites : begin + CHUNK;
        glb_kernels_of(events->plan->isa)
            ->event_words(&key, (uint32_t)begin, (uint32_t)sweep, number, end - begin, first);
        for (int32_t p = begin; p < end; p++) {
            const uint64_t *counts = clock->counts + (int64_t)clock->n_counts * clock->rate[p];
            const uint32_t *word = first[p - begin];
            uint32_t later[4];
            uint32_t block = 0;
            int32_t count = 0;
            if (clamp != NULL && clamp[p] != 0) {
                continue;
            }
            while (count < clock->n_counts && counts[count] <= word[0]) {
                count++;
            }
            if (n + count > clock->room) {
                return -1;
            }
            for (uint32_t k = 0; k < (uint32_t)count; k++) {
                uint32_t pair[2];
                for (uint32_t i = 0; i < 2; i++) {
                    uint32_t j = 1 + 2 * k + i;
                    if (j / 4 != block) {
                        block = j / 4;
                        glb_threefry(&key, (uint32_t)p, (uint32_t)sweep, number, block, later);
                    }
                    pair[i] = block == 0 ? word[j] : later[j % 4];
                }
                found[n++] = (event){.tick = pair[0], .u = pair[1], .position = p};
            }
        }
    }
    return n;
}

/* By time, those of one tick as they came: about one to a bucket, and what is left by insertion. */
static void order_events(const event *found, int64_t n, int32_t *bucket, event *ordered) {
    uint32_t bits = glb_ceil_log2((uint32_t)(n > 0 ? n : 1));
    int64_t buckets = INT64_C(1) << bits;
    memset(bucket, 0, 4 * (size_t)(buckets + 1));
    for (int64_t i = 0; i < n; i++) {
        bucket[((uint64_t)found[i].tick << bits >> 32) + 1]++;
    }
    for (int64_t k = 0; k < buckets; k++) {
        bucket[k + 1] += bucket[k];
    }
    for (int64_t i = 0; i < n; i++) {
        ordered[bucket[(uint64_t)found[i].tick << bits >> 32]++] = found[i];
    }
    for (int64_t i = 1; i < n; i++) {
        event moved = ordered[i];
        int64_t at = i;
        for (; at > 0 && ordered[at - 1].tick > moved.tick; at--) {
            ordered[at] = ordered[at - 1];
        }
        ordered[at] = moved;
    }
}

/* A chain in a sweep. Returns 0 where there is no room for all that happens. */
static int run_chain(const glb_events *events, uint64_t sweep, uint64_t b, int32_t chain, const room *room) {
    const glb_ising *program = events->program;
    const glb_run *run = events->run;
    const glb_plan *plan = events->plan;
    int delayed = run->clock->delay > 0;
    int8_t *spin = (int8_t *)events->state + plan->lanes * chain;
    int8_t *seen = delayed ? spin + seen_at(run, plan) : spin;
    queue *flips = delayed ? queue_of(run, plan, events->state, chain) : NULL;
    const int32_t *own = run->chain_field != NULL ? run->chain_field + plan->lanes * chain : program->field;
    int64_t n = find_events(events, sweep, chain, room->found);
    int64_t next = 0; /* flip to be seen */
    if (n < 0) {
        return 0;
    }
    order_events(room->found, n, room->bucket, room->ordered);
    for (int64_t i = 0; i <= n; i++) {
        const event *now = room->ordered + i; /* the last is the sweep's end */
        int64_t until = i < n ? (int64_t)now->tick : TICKS - 1;
        while (delayed && next < flips->n && flips->flip[next].tick <= until) {
            int32_t p = flips->flip[next++].position;
            seen[p] = (int8_t)-seen[p];
        }
        if (i == n) {
            break;
        }
        int32_t field = own[now->position];
        for (int64_t k = program->row_start[now->position]; k < program->row_start[now->position + 1]; k++) {
            field += program->weight[k] * seen[program->neighbour[k]];
        }
        int8_t drawn = now->u < glb_threshold(field, b) ? 1 : -1;
        room->updates[program->site[now->position]]++;
        if (drawn == spin[now->position]) {
            continue;
        }
        spin[now->position] = drawn;
        if (delayed) {
            if (flips->n == run->clock->room_for_flips) {
                return 0;
            }
            int64_t tick = (int64_t)now->tick + (int64_t)run->clock->delay;
            flips->flip[flips->n++] = (flip){.tick = tick, .position = now->position};
        }
    }
    for (int64_t i = next; delayed && i < flips->n; i++) {
        flips->flip[i - next] = flips->flip[i];
        flips->flip[i - next].tick -= TICKS;
    }
    if (delayed) {
        flips->n -= next;
    }
    return 1;
}

void glb_events_sweep(const glb_events *events, uint64_t sweep, uint64_t b, int32_t first, int32_t last, int thread) {
    room room = room_of(events, thread);
    for (int32_t chain = first; chain < last && !*room.no_room; chain++) {
        *room.no_room = !run_chain(events, sweep, b, chain, &room);
    }
}
