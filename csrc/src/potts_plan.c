/* Which vector form computes a Potts run, and what the form reads about the program. */
#include <string.h>

#include "ising.h"
#include "potts.h"

/* Nanoseconds or so of a step with AVX-512, q = 4, few weights: only the ratios matter. */
enum {
    ONE_STEP = 40,
    ONE_NEIGHBOUR = 2,
    SITES_STEP = 37,
    SITES_SLOT = 7, /* a gather and its sums */
    CHAINS_STEP = 24,
    CHAINS_NEIGHBOUR = 3,
    SITE_BYTES_STEP = 60,
    SITE_BYTES_DISTANCE = 2,
    CHAIN_BYTES_STEP = 48,
    CHAIN_BYTES_NEIGHBOUR = 2
};

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static int64_t absolute(int64_t x) { return x < 0 ? -x : x; }

/* What q fields lie apart. */
static int64_t range_of(const int32_t *field, int64_t q) {
    int64_t low = field[0];
    int64_t high = field[0];
    for (int64_t k = 1; k < q; k++) {
        low = field[k] < low ? field[k] : low;
        high = field[k] > high ? field[k] : high;
    }
    return high - low;
}

/* The largest gap between the fields of two states. A neighbour adds an equal-state weight to one of them at most. */
static int64_t largest_gap(const glb_potts *program, const glb_run *run) {
    int64_t q = program->n_states;
    int64_t most = 0;
    for (int32_t p = 0; p < program->n_sites; p++) {
        int64_t own = 0;
        int64_t sum = 0;
        if (run->chain_field == NULL) {
            own = range_of(program->field + p * q, q);
        }
        for (int64_t chain = 0; run->chain_field != NULL && chain < run->n_chains; chain++) {
            int64_t range = range_of(run->chain_field + (chain * program->n_sites + p) * q, q);
            own = range > own ? range : own;
        }
        for (int64_t r = program->row_start[p]; r < program->row_start[p + 1]; r++) {
            if (program->weight != NULL) {
                sum += absolute(program->weight[r]);
            } else {
                const int32_t *table = program->table + program->table_start[r];
                int64_t largest = 0;
                for (int64_t t = 0; t < q * q; t++) {
                    largest = absolute(table[t]) > largest ? absolute(table[t]) : largest;
                }
                sum += 2 * largest;
            }
        }
        most = own + sum > most ? own + sum : most;
    }
    return most;
}

/* The largest number of neighbours of positions first .. last - 1. */
static int64_t slots_of(const glb_potts *program, int32_t first, int32_t last) {
    int64_t slots = 0;
    for (int32_t p = first; p < last; p++) {
        int64_t degree = program->row_start[p + 1] - program->row_start[p];
        slots = degree > slots ? degree : slots;
    }
    return slots;
}

static int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }

static int32_t larger(int32_t a, int32_t b) { return a > b ? a : b; }

/* How many units a thread computes, one after the other. */
static int64_t share(const glb_run *run, int64_t chains_per_unit) {
    int64_t units = (run->n_chains + chains_per_unit - 1) / chains_per_unit;
    return (units + run->n_threads - 1) / run->n_threads;
}

/* Where everything is, once the form is chosen. */
static void place(const glb_potts *program, const glb_run *run, glb_potts_plan *plan) {
    int64_t n = program->n_sites;
    int64_t spins = 0;
    int64_t groups = 0;
    int64_t entries = 0;
    int64_t rows = 0;
    int64_t fields = 0;
    switch (plan->form) {
    case GLB_POTTS_SITES:
        groups = plan->n_groups * (int64_t)sizeof(glb_potts_group);
        entries = 4 * plan->n_entries;
        break;
    case GLB_POTTS_CHAINS:
        spins = round_up(run->n_chains, plan->V) * n;
        break;
    case GLB_POTTS_SITE_BYTES:
        plan->row = round_up(n + 2 * GLB_POTTS_PAD, 64);
        groups = plan->n_groups * (int64_t)sizeof(glb_potts_byte_group);
        entries = 4 * plan->n_distances;
        rows = 4 * plan->V * (plan->n_groups * (1 + program->n_states) + plan->n_distances);
        spins = plan->row * run->n_chains;
        break;
    default:
        fields = n * program->n_states;
        spins = round_up(run->n_chains, 4 * plan->V) * n;
    }
    plan->entries = round_up(groups, 64);
    plan->rows = plan->entries + round_up(entries, 64);
    plan->fields = plan->rows + round_up(rows, 64);
    plan->spins = plan->fields + round_up(fields, 64);
    plan->open = plan->spins + round_up(spins, 64);
    plan->size = plan->open + (run->potts_clamp != NULL ? round_up(spins, 64) : 0);
}

glb_potts_plan glb_potts_plan_run(const glb_potts *program, const glb_run *run, int without_site_bytes) {
    const glb_kernels *kernels = glb_kernels_of(run->isa);
    glb_potts_plan plan = {.form = GLB_POTTS_ONE_BY_ONE};
    if (kernels == NULL || kernels->potts == NULL || run->kernel == GLB_KERNEL_EXACT ||
        program->n_states > GLB_POTTS_STATES || program->table_size > INT32_MAX ||
        (int64_t)program->n_sites * program->n_states > INT32_MAX) {
        return plan;
    }
    int32_t V = kernels->vector_words;
    int64_t n = program->n_sites;
    plan.V = V;
    plan.n_weights = largest_gap(program, run) + 1;
    if (plan.n_weights > INT32_MAX) {
        return plan;
    }
    /* In a register a table is free. In the first cache it beats floats by a third, where more weights are looked up than
     * made, in one sweep or in the many that share a b; in registers of AVX-512 floats are as fast as that. */
    int64_t looked_up = (run->n_b == 1 ? 16 : 1) * n * run->n_chains * program->n_states;
    int64_t most = V == GLB_POTTS_FEW ? GLB_POTTS_FEW : GLB_POTTS_TABLE;
    if (plan.n_weights <= GLB_POTTS_FEW || (plan.n_weights <= most && plan.n_weights <= looked_up)) {
        plan.n_table = plan.n_weights;
    }
    int64_t n_groups = 0;
    int64_t n_byte_groups = 0;
    int64_t slots = 0;
    int64_t byte_slots = 0;
    for (int32_t c = 0; c < program->n_colours; c++) {
        int32_t begin = program->colour_start[c];
        int32_t end = program->colour_start[c + 1];
        for (int32_t first = begin; first < end; first += V, n_groups++) {
            slots += slots_of(program, first, smaller(first + V, end));
        }
        for (int32_t start = begin & ~3; start < end; start += 4 * V, n_byte_groups++) {
            byte_slots += slots_of(program, larger(start, begin), smaller(start + 4 * V, end));
        }
    }
    plan.n_entries = V * (program->n_states * n_groups + 2 * slots);
    int64_t cost = share(run, 1) * (n * ONE_STEP + program->row_start[n] * ONE_NEIGHBOUR);
    int64_t chains_cost = share(run, V) * (n * CHAINS_STEP + program->row_start[n] * CHAINS_NEIGHBOUR);
    if (chains_cost < cost) {
        plan.form = GLB_POTTS_CHAINS;
        cost = chains_cost;
    }
    int64_t sites_cost = share(run, 1) * (n_groups * SITES_STEP + slots * SITES_SLOT);
    if (sites_cost < cost && plan.n_entries <= INT32_MAX) {
        plan.form = GLB_POTTS_SITES;
        plan.n_groups = n_groups;
        cost = sites_cost;
    }
    if (kernels->potts_bytes != NULL && program->weight != NULL && program->allowed == NULL &&
        run->chain_field == NULL && plan.n_weights <= V) {
        int64_t block_cost =
            share(run, 4 * V) * (n * CHAIN_BYTES_STEP + program->row_start[n] * CHAIN_BYTES_NEIGHBOUR);
        if (block_cost < cost) {
            plan.form = GLB_POTTS_CHAIN_BYTES;
            cost = block_cost;
        }
        int64_t paying = (cost / share(run, 1) - n_byte_groups * SITE_BYTES_STEP) / SITE_BYTES_DISTANCE;
        if (!without_site_bytes && byte_slots <= paying) {
            plan.form = GLB_POTTS_SITE_BYTES;
            plan.n_groups = n_byte_groups;
            /* far more are not worth the memory */
            plan.n_distances = paying < 8 * byte_slots ? paying : 8 * byte_slots;
        }
    }
    place(program, run, &plan);
    return plan;
}

/* Rows of V positions of a colour side by side. */
static void fill_groups(const glb_potts *program, const glb_potts_plan *plan, glb_potts_group *groups,
                        uint32_t *entries) {
    int64_t g = 0;
    int32_t at = 0;
    int32_t V = plan->V;
    for (int32_t c = 0; c < program->n_colours; c++) {
        for (int32_t first = program->colour_start[c]; first < program->colour_start[c + 1]; first += V, g++) {
            int32_t left = program->colour_start[c + 1] - first;
            glb_potts_group group = {.first = first, .count = smaller(left, V), .entry = at};
            group.slots = (int32_t)slots_of(program, first, first + group.count);
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

/* A position's fields below their largest, `apart` bytes from each other. Gaps, all that counts, stay as they are. */
static void put_fields(const glb_potts *program, int64_t position, uint8_t *target, int64_t apart) {
    const int32_t *field = program->field + position * program->n_states;
    int32_t best = field[0];
    for (int32_t k = 1; k < program->n_states; k++) {
        best = larger(best, field[k]);
    }
    for (int32_t k = 0; k < program->n_states; k++) {
        target[apart * k] = (uint8_t)((uint32_t)field[k] - (uint32_t)best);
    }
}

/* The place of a distance among a group's n, or n. The next is often beside the last that was found. */
static int64_t find(const int32_t *known, int64_t n, int64_t last, int32_t distance) {
    for (int64_t i = 1; i <= n; i++) {
        int64_t at = last + i < n ? last + i : last + i - n;
        if (known[at] == distance) {
            return at;
        }
    }
    return n;
}

/* On a lattice in colour order nearly all positions of a group have neighbours at the same few distances. */
static int fill_byte_groups(const glb_potts *program, const glb_potts_plan *plan, glb_potts_byte_group *groups,
                            int32_t *distances, uint8_t *rows) {
    int32_t B = 4 * plan->V;
    int64_t n_rows = 0;
    int64_t n_distances = 0;
    for (int32_t c = 0; c < program->n_colours; c++) {
        int32_t begin = program->colour_start[c];
        int32_t end = program->colour_start[c + 1];
        for (int32_t start = begin & ~3; start < end; start += B) {
            glb_potts_byte_group group = {.start = start, .distance = n_distances, .row = n_rows};
            int32_t *known = distances + n_distances;
            uint8_t *row = rows + B * n_rows;
            uint8_t *weights = row + B * (1 + program->n_states);
            int64_t n = 0;
            int64_t last = 0;
            memset(row, 0, (size_t)(weights - row));
            for (int32_t p = larger(start, begin); p < smaller(start + B, end); p++) {
                row[p - start] = 0xFF;
                put_fields(program, p, row + B + p - start, B);
                for (int64_t r = program->row_start[p]; r < program->row_start[p + 1]; r++) {
                    last = find(known, n, last, program->neighbour[r] - p);
                    uint8_t *weight = weights + B * last;
                    if (last == n) {
                        if (n_distances + n == plan->n_distances) {
                            return 0;
                        }
                        known[n++] = program->neighbour[r] - p;
                        memset(weight, 0, (size_t)B);
                    }
                    weight[p - start] = (uint8_t)(weight[p - start] + (uint32_t)program->weight[r]);
                }
            }
            group.n_distances = (int32_t)n;
            n_distances += n;
            n_rows += 1 + program->n_states + n;
            *groups++ = group;
        }
    }
    return 1;
}

int glb_potts_fill(const glb_potts *program, const glb_potts_plan *plan, uint8_t *scratch) {
    void *groups = scratch;
    void *entries = scratch + plan->entries;
    if (plan->form == GLB_POTTS_SITES) {
        fill_groups(program, plan, groups, entries);
    } else if (plan->form == GLB_POTTS_SITE_BYTES) {
        return fill_byte_groups(program, plan, groups, entries, scratch + plan->rows);
    } else if (plan->form == GLB_POTTS_CHAIN_BYTES) {
        for (int64_t p = 0; p < program->n_sites; p++) {
            put_fields(program, p, scratch + plan->fields + p * program->n_states, 1);
        }
    }
    return 1;
}
