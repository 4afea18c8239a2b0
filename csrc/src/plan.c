/* How a run is computed: the kernel, the layout of its memory, and the program in the kernel's own form. */
#include <string.h>

#include "ising.h"

enum { MAX_LEVELS = 32, CACHE_BYTES = 1 << 19, ROWS_BEYOND = 64, MOST_ENTRIES = 1 << 27, MOST_SLOTS = 1 << 30 };

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static int check_run(const glb_ising *program, const glb_run *run) {
    if (run->n_chains < 1 || program->n_sites < 1 || run->n_b < 1 || run->n_threads < 1) {
        return GLB_E_SIZE;
    }
    if (run->layout != GLB_REPLICA_PLANES && run->layout != GLB_SITE_PLANES) {
        return GLB_E_SIZE;
    }
    for (int64_t i = 0; i < run->n_b; i++) {
        if (run->b[i] >> 63) {
            return GLB_E_RANGE;
        }
    }
    return GLB_OK;
}

/* The bound on every field with the chains' own fields in place of the program's. */
static int sum_with_fields(const glb_ising *program, const glb_run *run, int64_t lanes, int64_t *sum) {
    int replica = run->layout == GLB_REPLICA_PLANES;
    int64_t offset = run->first_chain % 32;
    for (int32_t p = 0; p < program->n_sites; p++) {
        int64_t weights = 0;
        for (int64_t k = program->row_start[p]; k < program->row_start[p + 1]; k++) {
            weights += program->weight[k] < 0 ? -(int64_t)program->weight[k] : program->weight[k];
        }
        for (int32_t chain = 0; chain < run->n_chains; chain++) {
            int64_t field = run->chain_field[replica ? lanes * p + offset + chain : lanes * chain + p];
            int64_t total = weights + (field < 0 ? -field : field);
            if (total >= INT64_C(1) << 30) {
                return GLB_E_RANGE;
            }
            *sum = total > *sum ? total : *sum;
        }
    }
    return GLB_OK;
}

static int64_t n_levels(const glb_traits *traits) { return (traits->one_parity ? 1 : 2) * traits->sum + 1; }

/* A table pays when a sweep looks up more thresholds than the table has entries. */
int64_t glb_ising_table_entries(const glb_ising *program, const glb_run *run, const glb_plan *plan) {
    int64_t updates = (int64_t)program->n_sites * run->n_chains;
    int looks_up = plan->kernel == GLB_KERNEL_EXACT || plan->kernel == GLB_KERNEL_SITES;
    return looks_up && 2 * plan->sum + 1 <= updates && plan->sum < 1 << 20 ? 2 * plan->sum + 1 : 0;
}

int32_t glb_ising_grain(const glb_plan *plan) {
    return plan->kernel == GLB_KERNEL_BITS ? glb_kernels_of(plan->isa)->vector_words / plan->words : 1;
}

/* Whether a kernel can compute a run whose bound on the fields is plan->sum. */
static int fits(const glb_ising *program, const glb_traits *traits, const glb_run *run, const glb_plan *plan,
                int kernel) {
    const glb_kernels *kernels = glb_kernels_of(run->isa);
    int replica = run->layout == GLB_REPLICA_PLANES;
    switch (kernel) {
    case GLB_KERNEL_EXACT:
        return replica;
    case GLB_KERNEL_BITS:
        return replica && run->chain_field == NULL && n_levels(traits) <= MAX_LEVELS &&
               program->row_start[program->n_sites] <= MOST_ENTRIES;
    case GLB_KERNEL_BYTES:
        return replica && kernels->bytes != NULL && plan->sum < 64;
    case GLB_KERNEL_FILTER:
        return replica && kernels->filter != NULL;
    case GLB_KERNEL_DENSE:
        return replica && kernels->dense != NULL && traits->max_weight <= INT16_MAX && traits->slots <= MOST_SLOTS;
    case GLB_KERNEL_SITES:
        return !replica;
    default:
        return 0;
    }
}

/* Whether so much of the matrix is there that multiplying by its zeros costs less than looking neighbours up. */
static int is_dense(const glb_ising *program, const glb_traits *traits) {
    int64_t passes = traits->max_weight <= INT8_MAX ? 1 : 2;
    return passes * traits->slots <= 4 * program->row_start[program->n_sites];
}

static int choose_kernel(const glb_ising *program, const glb_traits *traits, const glb_run *run,
                         const glb_plan *plan) {
    static const int fastest_first[] = {GLB_KERNEL_SITES, GLB_KERNEL_BITS, GLB_KERNEL_BYTES, GLB_KERNEL_FILTER,
                                        GLB_KERNEL_EXACT};
    if (run->kernel != GLB_KERNEL_AUTO) {
        return fits(program, traits, run, plan, run->kernel) ? run->kernel : GLB_E_KERNEL;
    }
    if (is_dense(program, traits) && fits(program, traits, run, plan, GLB_KERNEL_DENSE)) {
        return GLB_KERNEL_DENSE;
    }
    for (size_t i = 0; i < sizeof fastest_first / sizeof fastest_first[0]; i++) {
        if (fits(program, traits, run, plan, fastest_first[i])) {
            return fastest_first[i];
        }
    }
    return GLB_E_KERNEL;
}

int glb_ising_plan(const glb_ising *program, const glb_traits *traits, const glb_run *run, glb_plan *plan) {
    int rc = check_run(program, run);
    const glb_kernels *kernels = glb_kernels_of(run->isa);
    *plan = (glb_plan){.sum = traits->sum, .isa = run->isa, .words = 1};
    if (rc != GLB_OK) {
        return rc;
    }
    if (kernels == NULL) {
        return GLB_E_ISA;
    }
    int64_t n = program->n_sites;
    int replica = run->layout == GLB_REPLICA_PLANES;
    plan->lanes = round_up(replica ? run->first_chain % 32 + (int64_t)run->n_chains : n, 32);
    if (run->chain_field != NULL) {
        plan->sum = 0;
        rc = sum_with_fields(program, run, plan->lanes, &plan->sum);
        if (rc != GLB_OK) {
            return rc;
        }
    }
    plan->kernel = choose_kernel(program, traits, run, plan);
    if (plan->kernel < 0) {
        return plan->kernel;
    }
    int64_t n_words = plan->lanes / 32 * run->n_chains; /* of free bits */
    plan->state_bytes = plan->lanes * run->n_chains;
    if (replica) {
        plan->rows = n + ROWS_BEYOND;
        int most = plan->kernel == GLB_KERNEL_DENSE ? 2 : kernels->vector_words;
        while (2 * plan->words <= most && 32 * plan->words < plan->lanes &&
               (plan->words == 1 || 8 * plan->words * n <= CACHE_BYTES)) {
            plan->words *= 2;
        }
        if (plan->kernel == GLB_KERNEL_DENSE && plan->words == 2 && plan->lanes / 64 < run->n_threads) {
            plan->words = 1; /* threads share blocks only */
        }
        plan->n_blocks = (int32_t)(round_up(plan->lanes / 32, plan->words) / plan->words);
        n_words = plan->rows * plan->words * plan->n_blocks;
        plan->state_bytes = 4 * n_words;
    }
    plan->scratch_bytes = 4 * (round_up(glb_ising_table_entries(program, run, plan), 16) + round_up(n_words, 16));
    if (plan->kernel == GLB_KERNEL_DENSE) {
        int few = run->first_chain % 32 + (int64_t)run->n_chains <= 16;
        plan->byte_vectors = few ? 1 : 2 * plan->words;
        plan->byte_stride = round_up(n, 4) / 4 * 64 * plan->byte_vectors;
        plan->scratch_bytes += plan->byte_stride * plan->n_blocks;
    }
    return GLB_OK;
}

/* The bit-sliced net */

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
static glb_bits_net bits_net(const glb_ising *program, const glb_traits *traits, const glb_plan *plan,
                             const glb_bits_net *head, uint8_t *net) {
    int W = plan->words;
    int32_t G = glb_kernels_of(plan->isa)->vector_words / W;
    int64_t scale = traits->one_parity ? 1 : 2;
    int64_t levels = n_levels(traits);
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
    glb_bits_net result = {.n_bits = n_bits, .field_offset = (int32_t)traits->sum, .field_scale = 3 - (int32_t)scale};
    result.groups = (int64_t)sizeof result;
    result.operations = result.groups + n_groups * (int64_t)sizeof(glb_group);
    result.gather = result.operations + n_operations * (int64_t)sizeof(glb_operation);
    result.colour_group = result.gather + 4 * ((int64_t)n_gather + 16); /* a vector may read past the last index */
    result.size = result.colour_group + 4 * (int64_t)program->n_colours;
    return result;
}

/* The net of the byte and filter kernels */

static glb_wide_net wide_head(const glb_ising *program) {
    glb_wide_net head = {.base = 64};
    head.terms = round_up(head.base + 4 * (int64_t)program->n_sites, 64);
    return head;
}

static void wide_net(const glb_ising *program, const glb_plan *plan, uint8_t *net) {
    glb_wide_net head = wide_head(program);
    memcpy(net, &head, sizeof head);
    int32_t *base = (void *)(net + head.base);
    glb_term *terms = (void *)(net + head.terms);
    uint32_t repeat = plan->kernel == GLB_KERNEL_BYTES ? 0x01010101u : plan->sum <= INT16_MAX ? 0x00010001u : 1u;
    uint32_t mask = plan->kernel == GLB_KERNEL_BYTES ? 0xFFu : plan->sum <= INT16_MAX ? 0xFFFFu : 0xFFFFFFFFu;
    for (int32_t p = 0; p < program->n_sites; p++) {
        int32_t sum = 0;
        for (int64_t k = program->row_start[p]; k < program->row_start[p + 1]; k++) {
            sum += program->weight[k];
            terms[k].neighbour = program->neighbour[k];
            terms[k].twice = ((2 * (uint32_t)program->weight[k]) & mask) * repeat;
        }
        base[p] = -sum;
    }
}

/* The dense net */

void glb_dense_range(const glb_ising *program, int32_t four, int32_t *begin, int32_t *end) {
    int32_t last = four + 4 < program->n_sites ? four + 4 : program->n_sites;
    int32_t low = INT32_MAX;
    int32_t high = -1;
    for (int64_t k = program->row_start[four]; k < program->row_start[last]; k++) {
        low = program->neighbour[k] < low ? program->neighbour[k] : low;
        high = program->neighbour[k] > high ? program->neighbour[k] : high;
    }
    *begin = high < 0 ? 0 : low / 4;
    *end = high < 0 ? 0 : high / 4 + 1;
}

static glb_dense_net dense_head(const glb_ising *program, const glb_traits *traits) {
    glb_dense_net head = {.base = 64, .passes = traits->max_weight <= INT8_MAX ? 1 : 2};
    head.blocks = round_up(head.base + 4 * (int64_t)program->n_sites, 64);
    head.weights = round_up(head.blocks + (int64_t)sizeof(glb_dense_block) * ((program->n_sites + 3) / 4), 64);
    head.size = head.weights + head.passes * traits->slots;
    return head;
}

static void dense_net(const glb_ising *program, const glb_traits *traits, uint8_t *net) {
    glb_dense_net head = dense_head(program, traits);
    int32_t *base = (void *)(net + head.base);
    glb_dense_block *blocks = (void *)(net + head.blocks);
    int64_t at = head.weights;
    memset(net, 0, (size_t)head.size);
    memcpy(net, &head, sizeof head);
    for (int32_t p = 0; p < program->n_sites; p++) {
        glb_dense_block *block = blocks + p / 4;
        if (p % 4 == 0) {
            glb_dense_range(program, p, &block->begin, &block->end);
            block->weights = at;
            at += 16 * (int64_t)head.passes * (block->end - block->begin);
        }
        for (int64_t k = program->row_start[p]; k < program->row_start[p + 1]; k++) {
            int32_t neighbour = program->neighbour[k];
            int32_t weight = program->weight[k];
            int64_t place = block->weights + 16 * (int64_t)(neighbour / 4 - block->begin) + 4 * (p % 4) + neighbour % 4;
            base[p] -= weight;
            if (neighbour / 4 == p / 4) {
                block->inner[p % 4][neighbour % 4] = weight;
                block->coupled = 1;
            }
            if (head.passes == 1) {
                net[place] = (uint8_t)weight;
            } else { /* weight = 256 upper + lower with a lower half from 0 to 255 */
                net[place] = (uint8_t)((uint32_t)weight >> 8);
                net[place + 16 * (int64_t)(block->end - block->begin)] = (uint8_t)weight;
            }
        }
    }
}

int64_t glb_ising_net_bytes(const glb_ising *program, const glb_traits *traits, const glb_plan *plan) {
    switch (plan->kernel) {
    case GLB_KERNEL_BITS:
        return bits_net(program, traits, plan, NULL, NULL).size;
    case GLB_KERNEL_BYTES:
    case GLB_KERNEL_FILTER:
        return wide_head(program).terms + (int64_t)sizeof(glb_term) * program->row_start[program->n_sites];
    case GLB_KERNEL_DENSE:
        return dense_head(program, traits).size;
    default:
        return 0;
    }
}

int glb_ising_net(const glb_ising *program, const glb_traits *traits, const glb_plan *plan, uint8_t *net) {
    if (plan->kernel == GLB_KERNEL_BITS) {
        glb_bits_net head = bits_net(program, traits, plan, NULL, NULL);
        memcpy(net, &head, sizeof head);
        bits_net(program, traits, plan, &head, net);
    } else if (plan->kernel == GLB_KERNEL_BYTES || plan->kernel == GLB_KERNEL_FILTER) {
        wide_net(program, plan, net);
    } else if (plan->kernel == GLB_KERNEL_DENSE) {
        dense_net(program, traits, net);
    }
    return GLB_OK;
}
