/* The diagonal net of site planes: for each 64 positions the distances that many neighbours share, and the rest. */
#include <string.h>

#include "ising.h"

enum { UNIT = 64, SHARED_BY = 10, SLOTS = 512 };

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Distances and how often they occur among 64 positions; when the table is full, further ones are on no diagonal. */
struct counts {
    int64_t distance[SLOTS];
    int count[SLOTS];
    int used[SLOTS]; /* slots in the order of first use */
    int n_used;
};

static int slot_of(const struct counts *counts, int64_t distance) {
    uint32_t slot = (uint32_t)(uint64_t)(distance * 2654435761) % SLOTS;
    while (counts->count[slot] != 0 && counts->distance[slot] != distance) {
        slot = (slot + 1) % SLOTS;
    }
    return (int)slot;
}

static void count_distances(const glb_ising *program, int32_t first, int32_t last, struct counts *counts) {
    memset(counts->count, 0, sizeof counts->count);
    counts->n_used = 0;
    for (int32_t p = first; p < last; p++) {
        for (int64_t k = program->row_start[p]; k < program->row_start[p + 1]; k++) {
            int slot = slot_of(counts, (int64_t)program->neighbour[k] - p);
            if (counts->count[slot] == 0) {
                if (counts->n_used >= SLOTS / 2) {
                    continue;
                }
                counts->used[counts->n_used++] = slot;
                counts->distance[slot] = (int64_t)program->neighbour[k] - p;
            }
            counts->count[slot]++;
        }
    }
}

/* A value of WIDTH bytes at an index. */
static void put_value(uint8_t *at, int width, int64_t index, int32_t value) {
    uint32_t bits = (uint32_t)value;
    for (int i = 0; i < width; i++) {
        at[width * index + i] = (uint8_t)(bits >> (8 * i));
    }
}

glb_diagonals_net glb_diagonals_net_fill(const glb_ising *program, const glb_plan *plan, const glb_diagonals_net *head,
                                         uint8_t *net) {
    int width = plan->width;
    int64_t n_units = round_up(program->n_sites, UNIT) / UNIT;
    int32_t n_diagonals = 0;
    int32_t n_off = 0;
    glb_diagonals_unit *units = net == NULL ? NULL : (void *)(net + head->units);
    glb_diagonal *diagonals = net == NULL ? NULL : (void *)(net + head->diagonals);
    glb_off_diagonal *off = net == NULL ? NULL : (void *)(net + head->off);
    for (int64_t number = 0; number < n_units; number++) {
        struct counts counts;
        int index[SLOTS]; /* the diagonal of a slot */
        int32_t first = (int32_t)(UNIT * number);
        int32_t last = first + UNIT < program->n_sites ? first + UNIT : program->n_sites;
        glb_diagonals_unit unit = {.diagonal = n_diagonals, .off = n_off};
        count_distances(program, first, last, &counts);
        for (int i = 0; i < counts.n_used; i++) {
            int slot = counts.used[i];
            index[slot] = -1;
            if (counts.count[slot] >= SHARED_BY) {
                index[slot] = n_diagonals;
                if (net != NULL) {
                    diagonals[n_diagonals].distance = counts.distance[slot];
                }
                n_diagonals++;
                unit.n_diagonals++;
            }
        }
        for (int32_t p = first; p < last; p++) {
            int32_t sum = 0;
            for (int64_t k = program->row_start[p]; k < program->row_start[p + 1]; k++) {
                int slot = slot_of(&counts, (int64_t)program->neighbour[k] - p);
                int on = counts.count[slot] != 0 ? index[slot] : -1;
                int32_t twice = (int32_t)(2 * (uint32_t)program->weight[k]);
                sum += program->weight[k];
                if (on >= 0) {
                    if (net != NULL) {
                        put_value(net + head->weights + (int64_t)UNIT * width * on, width, p - first, twice);
                    }
                    continue;
                }
                if (net != NULL) {
                    off[n_off] = (glb_off_diagonal){program->neighbour[k], twice, p - first};
                }
                n_off++;
                unit.n_off++;
            }
            if (net != NULL) {
                put_value(net + head->base, width, p, program->field[p] - sum);
                put_value(net + head->base_without_fields, width, p, -sum);
            }
        }
        if (net != NULL) {
            units[number] = unit;
        }
    }
    glb_diagonals_net result = {.n_units = n_units};
    result.units = 64;
    result.diagonals = round_up(result.units + n_units * (int64_t)sizeof(glb_diagonals_unit), 64);
    result.off = round_up(result.diagonals + n_diagonals * (int64_t)sizeof(glb_diagonal), 64);
    result.base = round_up(result.off + n_off * (int64_t)sizeof(glb_off_diagonal), 64);
    result.base_without_fields = result.base + UNIT * width * n_units;
    result.weights = result.base_without_fields + UNIT * width * n_units;
    result.size = result.weights + (int64_t)UNIT * width * n_diagonals;
    return result;
}
