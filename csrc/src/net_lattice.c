/* The lattice net: for each vector of positions the distances at which neighbours lie, and which positions have one there. */
#include <string.h>

#include "ising.h"

enum { MOST = 2048 }; /* distances of a vector that are looked for; further ones may come up twice, which does no harm */

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* The distances of a group's operations in one plane, in the order of first use. */
struct distances {
    int32_t of[MOST];
    int32_t n;
    int32_t last; /* where the last one was found: the next is often beside it */
};

/* Whether it is new; its number goes to `last`. */
static int find(struct distances *known, int32_t distance) {
    int32_t n = known->n < MOST ? known->n : MOST;
    for (int32_t i = 1; i <= n; i++) {
        int32_t at = (known->last + i) % n;
        if (known->of[at] == distance) {
            known->last = at;
            return 0;
        }
    }
    if (known->n < MOST) {
        known->of[known->n] = distance;
    }
    known->last = known->n++;
    return 1;
}

static void set_bit(uint32_t *words, int64_t bit) { words[bit / 32] |= 1u << (bit % 32); }

/* Positions first .. last - 1 and their group's masks, NULL where they are only counted. */
static glb_lattice_group fill_group(const glb_ising *program, const glb_traits *traits, int32_t first, int32_t last,
                                    int n_bits, int64_t V, glb_lattice_operation *operations, uint32_t *masks) {
    int64_t scale = traits->one_parity ? 1 : 2;
    int64_t start = first / (32 * V) * 32 * V;
    glb_lattice_group group = {.word = (int32_t)(start / 32)};
    for (int32_t p = first; masks != NULL && p < last; p++) {
        int64_t base = traits->sum + program->field[p];
        for (int64_t k = program->row_start[p]; k < program->row_start[p + 1]; k++) {
            base -= program->weight[k] < 0 ? -(int64_t)program->weight[k] : program->weight[k];
        }
        base = base * scale / 2;
        set_bit(masks, p - start);
        for (int plane = 0; plane < n_bits; plane++) {
            if ((base >> plane) & 1) {
                set_bit(masks + V * (1 + plane), p - start);
            }
        }
    }
    int32_t n_operations = 0;
    for (int plane = 0; plane < n_bits; plane++) {
        struct distances known;
        known.n = known.last = 0;
        for (int32_t p = first; p < last; p++) {
            for (int64_t k = program->row_start[p]; k < program->row_start[p + 1]; k++) {
                int64_t step = scale * program->weight[k];
                int32_t distance = program->neighbour[k] - p;
                if (!(((step < 0 ? -step : step) >> plane) & 1)) {
                    continue;
                }
                int is_new = find(&known, distance);
                if (masks == NULL) {
                    continue;
                }
                int32_t at = n_operations + known.last;
                uint32_t *kept = masks + V * (1 + n_bits + 2 * (int64_t)at);
                if (is_new) {
                    operations[at].distance = distance;
                }
                set_bit(kept, p - start);
                if (step < 0) {
                    set_bit(kept + V, p - start);
                }
            }
        }
        group.count[plane] = known.n;
        n_operations += known.n;
    }
    return group;
}

glb_lattice_net glb_lattice_net_fill(const glb_ising *program, const glb_traits *traits, const glb_plan *plan,
                                     const glb_lattice_net *head, uint8_t *net) {
    int64_t V = glb_kernels_of(plan->isa)->vector_words;
    int64_t levels = glb_levels(traits);
    int n_bits = levels <= 8 ? 3 : levels <= 16 ? 4 : 5;
    int32_t n_groups = 0;
    int64_t n_operations = 0;
    int64_t n_masks = 0;
    glb_lattice_group *groups = net == NULL ? NULL : (void *)(net + head->groups);
    glb_lattice_operation *operations = net == NULL ? NULL : (void *)(net + head->operations);
    uint32_t *masks = net == NULL ? NULL : (void *)(net + head->masks);
    int32_t *colour_group = net == NULL ? NULL : (void *)(net + head->colour_group);
    for (int32_t c = 0; c < program->n_colours; c++) {
        if (net != NULL) {
            colour_group[c] = n_groups;
        }
        int32_t end = program->colour_start[c + 1];
        for (int32_t first = program->colour_start[c]; first < end;) {
            int64_t next = first / (32 * V) * 32 * V + 32 * V;
            int32_t last = next < end ? (int32_t)next : end;
            glb_lattice_group group =
                fill_group(program, traits, first, last, n_bits, V, net == NULL ? NULL : operations + n_operations,
                           net == NULL ? NULL : masks + n_masks);
            group.operation = n_operations;
            group.mask = n_masks;
            int64_t count = 0;
            for (int plane = 0; plane < n_bits; plane++) {
                count += group.count[plane];
            }
            if (net != NULL) {
                groups[n_groups] = group;
            }
            n_groups++;
            n_operations += count;
            n_masks += V * (1 + n_bits + 2 * count);
            first = last;
        }
    }
    glb_lattice_net result = {.levels = {n_bits, (int32_t)traits->sum, traits->one_parity ? 2 : 1}};
    result.groups = round_up((int64_t)sizeof result, 64);
    result.operations = round_up(result.groups + n_groups * (int64_t)sizeof(glb_lattice_group), 64);
    result.masks = round_up(result.operations + n_operations * (int64_t)sizeof(glb_lattice_operation), 64);
    result.colour_group = round_up(result.masks + 4 * n_masks, 64);
    result.size = result.colour_group + 4 * (int64_t)program->n_colours;
    return result;
}
