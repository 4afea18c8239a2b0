/* The bit-sliced net: groups of positions, and the operations that add up their levels. */
#include <string.h>

#include "ising.h"

/* What a position adds of its k-th neighbour, in units of the level. */
static int64_t step_of(const glb_ising *program, int32_t position, int64_t k, int64_t scale) {
    int64_t at = program->row_start[position] + k;
    if (at >= program->row_start[position + 1]) {
        return 0;
    }
    return scale * program->weight[at];
}

/* One operation of a group: plane `plane` of what the k-th neighbours add. Returns the lanes that have it. */
static uint32_t make_operation(const glb_ising *program, int32_t first, int32_t count, int64_t k, int plane,
                               int64_t scale, int W, glb_operation *operation, int32_t *gather) {
    uint32_t kept = 0;
    uint32_t inverted = 0;
    uint32_t site_lanes = (1u << W) - 1;
    int32_t start = -1;
    int consecutive = 1;
    for (int32_t i = 0; i < count; i++) {
        int64_t step = step_of(program, first + i, k, scale);
        int64_t magnitude = step < 0 ? -step : step;
        gather[i] = 0;
        if ((magnitude >> plane) & 1) {
            int32_t neighbour = program->neighbour[program->row_start[first + i] + k];
            gather[i] = neighbour;
            start = kept == 0 ? neighbour - i : start;
            consecutive = consecutive && start >= 0 && neighbour - i == start;
            kept |= site_lanes << (W * i);
            inverted |= step < 0 ? site_lanes << (W * i) : 0u;
        }
    }
    *operation = (glb_operation){.source = consecutive ? start : -1, .inverted = (uint16_t)inverted,
                                 .kept = (uint16_t)kept};
    return kept;
}

/* What the sums of `count` positions from `first` on start from, and the lanes that belong to them. */
static glb_group make_group(const glb_ising *program, const glb_traits *traits, int32_t first, int32_t count,
                            int64_t scale, int W) {
    glb_group group = {.first = first, .lanes = (uint16_t)((1u << (W * count)) - 1u)};
    for (int32_t i = 0; i < count; i++) {
        int32_t p = first + i;
        int64_t base = traits->sum + program->field[p];
        for (int64_t k = program->row_start[p]; k < program->row_start[p + 1]; k++) {
            base -= program->weight[k] < 0 ? -(int64_t)program->weight[k] : program->weight[k];
        }
        base = base * scale / 2;
        for (int plane = 0; plane < 5; plane++) {
            uint32_t lanes = (base >> plane) & 1 ? ((1u << W) - 1) << (W * i) : 0u;
            group.base[plane] = (uint16_t)(group.base[plane] | lanes);
        }
    }
    return group;
}

static int64_t largest_degree(const glb_ising *program, int32_t first, int32_t count) {
    int64_t largest = 0;
    for (int32_t p = first; p < first + count; p++) {
        int64_t degree = program->row_start[p + 1] - program->row_start[p];
        largest = degree > largest ? degree : largest;
    }
    return largest;
}

/* Fills the net, or only works out its head where it is NULL. */
glb_bits_net glb_bits_net_fill(const glb_ising *program, const glb_traits *traits, const glb_plan *plan,
                             const glb_bits_net *head, uint8_t *net) {
    int W = plan->words;
    int32_t G = glb_kernels_of(plan->isa)->vector_words / W;
    int64_t scale = traits->one_parity ? 1 : 2;
    int64_t levels = glb_levels(traits);
    int32_t n_groups = 0;
    int32_t n_operations = 0;
    int32_t n_gather = 0;
    glb_group *groups = net == NULL ? NULL : (void *)(net + head->groups);
    glb_operation *operations = net == NULL ? NULL : (void *)(net + head->operations);
    int32_t *gathered = net == NULL ? NULL : (void *)(net + head->gather);
    int32_t *colour_group = net == NULL ? NULL : (void *)(net + head->colour_group);
    int n_bits = levels <= 8 ? 3 : levels <= 16 ? 4 : 5;
    for (int32_t c = 0; c < program->n_colours; c++) {
        if (net != NULL) {
            colour_group[c] = n_groups;
        }
        for (int32_t first = program->colour_start[c]; first < program->colour_start[c + 1]; first += G) {
            int32_t left = program->colour_start[c + 1] - first;
            int32_t count = left < G ? left : G;
            int64_t degree = largest_degree(program, first, count);
            glb_group group = make_group(program, traits, first, count, scale, W);
            group.operation = n_operations;
            for (int plane = 0; plane < n_bits; plane++) {
                for (int64_t k = 0; k < degree; k++) {
                    glb_operation operation;
                    int32_t from[16] = {0};
                    if (make_operation(program, first, count, k, plane, scale, W, &operation, from) == 0) {
                        continue;
                    }
                    if (operation.source < 0) {
                        operation.source = -1 - n_gather;
                        if (net != NULL) {
                            memcpy(gathered + n_gather, from, 4 * (size_t)G);
                        }
                        n_gather += G;
                    }
                    if (net != NULL) {
                        operations[n_operations] = operation;
                    }
                    n_operations++;
                    group.count[plane]++;
                }
            }
            if (net != NULL) {
                groups[n_groups] = group;
            }
            n_groups++;
        }
    }
    glb_bits_net result = {.levels = {n_bits, (int32_t)traits->sum, 3 - (int32_t)scale}};
    result.groups = (int64_t)sizeof result;
    result.operations = result.groups + n_groups * (int64_t)sizeof(glb_group);
    result.gather = result.operations + n_operations * (int64_t)sizeof(glb_operation);
    result.colour_group = result.gather + 4 * ((int64_t)n_gather + 16); /* a vector may read past the last index */
    result.size = result.colour_group + 4 * (int64_t)program->n_colours;
    return result;
}
