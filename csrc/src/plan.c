/* How a run is computed: the kernel, the layout of its memory, and the program in the kernel's own form. */
#include <string.h>

#include "chip.h"
#include "events.h"
#include "moves.h"
#include "state.h"

enum { MAX_LEVELS = 32, CACHE_BYTES = 1 << 19, ROWS_BEYOND = 64, MOST_ENTRIES = 1 << 27, MOST_SLOTS = 1 << 30 };

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* States move across the whole job, so it has no shards; temperatures ascend. */
static int check_moves(const glb_run *run) {
    if (run->n_ladders < 0 || run->moves_every < 0 || (run->n_ladders > 0 && run->moves_every == 0)) {
        return GLB_E_SIZE;
    }
    if (run->n_ladders > 0 && (run->n_b < 2 || run->n_chains != run->n_ladders * run->n_b)) {
        return GLB_E_SIZE;
    }
    if (run->moves_every > 0 && run->first_chain != 0) {
        return GLB_E_SIZE;
    }
    for (int64_t k = 1; run->moves_every > 0 && k < run->n_b; k++) {
        if (run->b[k] < run->b[k - 1]) {
            return GLB_E_RANGE;
        }
    }
    return GLB_OK;
}

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
    if (run->dynamics != GLB_BY_HEAT_BATH && (run->dynamics != GLB_BY_METROPOLIS || run->moves_every > 0)) {
        return GLB_E_SIZE;
    }
    int rc = run->clock == NULL ? GLB_OK : glb_clock_check(program, run);
    if (rc == GLB_OK && run->chip != NULL) {
        rc = glb_chip_check(program, run);
    }
    return rc == GLB_OK ? check_moves(run) : rc;
}

/* The bound on every field with the chains' own fields in place of the program's. */
static int sum_with_fields(const glb_ising *program, const glb_run *run, int64_t lanes, int64_t *sum) {
    int replica = run->layout == GLB_REPLICA_PLANES;
    int64_t offset = run->first_chain % 32;
    if (!replica && program->row_start[program->n_sites] == 0) {
        for (int64_t chain = 0; chain < run->n_chains; chain++) {
            const int32_t *row = run->chain_field + lanes * chain;
            int64_t largest = glb_kernels_of(run->isa)->largest_magnitude(row, program->n_sites);
            *sum = largest > *sum ? largest : *sum;
        }
        return *sum < INT64_C(1) << 30 ? GLB_OK : GLB_E_RANGE;
    }
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

int64_t glb_levels(const glb_traits *traits) { return (traits->one_parity ? 1 : 2) * traits->sum + 1; }

/* A table pays when a sweep looks up more thresholds than the table has entries. */
int64_t glb_ising_table_entries(const glb_ising *program, const glb_run *run, const glb_plan *plan) {
    int64_t updates = (int64_t)program->n_sites * run->n_chains;
    int looks_up = plan->kernel == GLB_KERNEL_EXACT || plan->kernel == GLB_KERNEL_SITES;
    return looks_up && (2 * plan->sum + 1) * glb_n_heats(run) <= updates && plan->sum < 1 << 20 ? 2 * plan->sum + 1 : 0;
}

int32_t glb_ising_grain(const glb_plan *plan) {
    if (plan->kernel == GLB_KERNEL_DIAGONALS) {
        return 64;
    }
    if (plan->kernel == GLB_KERNEL_INDEPENDENT || plan->kernel == GLB_KERNEL_LATTICE) {
        return 32 * glb_kernels_of(plan->isa)->vector_words;
    }
    return plan->kernel == GLB_KERNEL_BITS ? glb_kernels_of(plan->isa)->vector_words / plan->words : 1;
}

/* Whether a kernel can compute a run whose bound on the fields is plan->sum. */
static int fits(const glb_ising *program, const glb_traits *traits, const glb_run *run, const glb_plan *plan,
                int kernel) {
    const glb_kernels *kernels = glb_kernels_of(run->isa);
    int replica = run->layout == GLB_REPLICA_PLANES;
    int one_heat = run->n_ladders % 32 == 0; /* in a block, which has words of 32 chains */
    if (run->clock != NULL) {
        return kernel == GLB_KERNEL_EVENTS;
    }
    if (run->chip != NULL) {
        return kernel == GLB_KERNEL_CHIP;
    }
    if (run->dynamics == GLB_BY_METROPOLIS) {
        return kernel == (replica ? GLB_KERNEL_EXACT : GLB_KERNEL_SITES);
    }
    switch (kernel) {
    case GLB_KERNEL_EXACT:
        return replica;
    case GLB_KERNEL_BITS:
        return replica && one_heat && run->chain_field == NULL && glb_levels(traits) <= MAX_LEVELS &&
               program->row_start[program->n_sites] <= MOST_ENTRIES;
    case GLB_KERNEL_BYTES:
        return replica && one_heat && kernels->bytes != NULL && plan->sum < 64;
    case GLB_KERNEL_FILTER:
        return replica && one_heat && kernels->filter != NULL;
    case GLB_KERNEL_DENSE:
        return replica && one_heat && kernels->dense != NULL && traits->max_weight <= INT16_MAX && traits->slots <= MOST_SLOTS;
    case GLB_KERNEL_SITES:
        return !replica;
    case GLB_KERNEL_LATTICE:
        return !replica && run->moves_every == 0 && run->chain_field == NULL && glb_levels(traits) <= MAX_LEVELS &&
               program->row_start[program->n_sites] <= MOST_ENTRIES;
    case GLB_KERNEL_INCREMENTAL: /* a state that comes from another chain has other fields */
        return !replica && run->moves_every == 0 && program->row_start[program->n_sites] <= MOST_ENTRIES;
    case GLB_KERNEL_INDEPENDENT:
        return !replica && program->row_start[program->n_sites] == 0 && run->n_b == 1;
    case GLB_KERNEL_DIAGONALS:
        return !replica && kernels->diagonals != NULL && program->row_start[program->n_sites] <= MOST_ENTRIES;
    default:
        return 0;
    }
}

/* Whether so much of the matrix is there that multiplying by its zeros costs less than looking neighbours up. In vectors
 * of 16 bytes a product takes almost half as long as a neighbour whose fields have 16 bits. */
static int is_dense(const glb_ising *program, const glb_traits *traits, const glb_run *run, const glb_plan *plan) {
    int64_t passes = traits->max_weight <= INT8_MAX ? 1 : 2;
    int narrow = glb_kernels_of(run->isa)->vector_words == 4 && plan->sum <= INT16_MAX;
    return passes * traits->slots <= (narrow ? 2 : 4) * program->row_start[program->n_sites];
}

/* Whether a kernel that fits may also be fast. */
static int suits(const glb_ising *program, const glb_traits *traits, const glb_run *run, const glb_plan *plan,
                 int kernel) {
    int64_t entries = program->row_start[program->n_sites];
    switch (kernel) {
    case GLB_KERNEL_DENSE:
        return is_dense(program, traits, run, plan);
    case GLB_KERNEL_LATTICE: /* each neighbour out of line costs a vector an operation of its own */
        return !glb_incremental_is_dense(program) && 8 * traits->in_line >= 7 * entries;
    case GLB_KERNEL_DIAGONALS:
        return !glb_incremental_is_dense(program) && 2 * traits->in_line >= entries;
    case GLB_KERNEL_INCREMENTAL: /* threads cannot share a chain's fields */
        return run->n_threads <= run->n_chains;
    default:
        return 1;
    }
}

static int choose_kernel(const glb_ising *program, const glb_traits *traits, const glb_run *run,
                         const glb_plan *plan) {
    static const int fastest_first[] = {GLB_KERNEL_INDEPENDENT, GLB_KERNEL_LATTICE, GLB_KERNEL_DIAGONALS,
                                        GLB_KERNEL_INCREMENTAL, GLB_KERNEL_SITES,   GLB_KERNEL_DENSE,
                                        GLB_KERNEL_BITS,        GLB_KERNEL_BYTES,   GLB_KERNEL_FILTER,
                                        GLB_KERNEL_EXACT,       GLB_KERNEL_EVENTS,      GLB_KERNEL_CHIP};
    if (run->kernel != GLB_KERNEL_AUTO) {
        return fits(program, traits, run, plan, run->kernel) ? run->kernel : GLB_E_KERNEL;
    }
    for (size_t i = 0; i < sizeof fastest_first / sizeof fastest_first[0]; i++) {
        if (fits(program, traits, run, plan, fastest_first[i]) && suits(program, traits, run, plan, fastest_first[i])) {
            return fastest_first[i];
        }
    }
    return GLB_E_KERNEL;
}

static int32_t n_blocks(const glb_plan *plan) {
    return (int32_t)(round_up(plan->lanes / 32, plan->words) / plan->words);
}

/* Whether a block of twice the words has one temperature; the exact kernel needs none. */
static int may_double(const glb_run *run, const glb_plan *plan) {
    return plan->kernel == GLB_KERNEL_EXACT || run->n_ladders % (64 * plan->words) == 0;
}

int glb_ising_plan(const glb_ising *program, const glb_traits *traits, const glb_run *run, glb_plan *plan) {
    int rc = check_run(program, run);
    const glb_kernels *kernels = glb_kernels_of(run->isa);
    *plan = (glb_plan){.sum = traits->sum, .isa = run->isa, .in_order = traits->in_order, .words = 1};
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
    plan->width = plan->sum < 64 ? 1 : plan->sum <= INT16_MAX ? 2 : 4;
    plan->kernel = choose_kernel(program, traits, run, plan);
    if (plan->kernel < 0) {
        return plan->kernel;
    }
    int64_t n_words = plan->lanes / 32 * run->n_chains; /* of free bits */
    plan->state_bytes = plan->lanes * run->n_chains;
    if (has_padded_rows(plan)) {
        plan->rows = round_up(n, 512) / 32 + 2 * GLB_SITE_PAD;
        n_words = plan->rows * run->n_chains;
        plan->state_bytes = 4 * n_words;
    }
    if (plan->kernel == GLB_KERNEL_EVENTS) {
        plan->state_bytes = glb_events_state_bytes(run, plan);
    }
    if (replica) {
        plan->rows = n + ROWS_BEYOND;
        int most = plan->kernel == GLB_KERNEL_CHIP ? 1 : plan->kernel == GLB_KERNEL_DENSE ? 2 : kernels->vector_words;
        while (2 * plan->words <= most && 32 * plan->words < plan->lanes && may_double(run, plan) &&
               (plan->words == 1 || 8 * plan->words * n <= CACHE_BYTES)) {
            plan->words *= 2;
        }
        plan->n_blocks = n_blocks(plan);
        /* Threads with blocks of their own need no barrier and share no spins. Half a block is half as fast only where it
         * is bit-sliced. */
        while (plan->kernel != GLB_KERNEL_BITS && plan->words > 1 && plan->n_blocks < run->n_threads) {
            plan->words /= 2;
            plan->n_blocks = n_blocks(plan);
        }
        n_words = plan->rows * plan->words * plan->n_blocks;
        plan->state_bytes = 4 * n_words;
    }
    plan->scratch_bytes = 4 * (round_up(glb_ising_table_entries(program, run, plan) * glb_n_heats(run), 16) + round_up(n_words, 16));
    if (plan->kernel == GLB_KERNEL_INDEPENDENT) {
        int64_t rows = run->chain_field == NULL ? 1 : run->n_chains;
        plan->scratch_bytes += 64 + 4 * rows * glb_plane_words(program, plan); /* a tag, and 32 bits a position */
    }
    if (plan->kernel == GLB_KERNEL_DIAGONALS && run->chain_field != NULL) {
        plan->scratch_bytes += 4 * round_up(n, 64) * run->n_chains;
    }
    if (plan->kernel == GLB_KERNEL_INCREMENTAL) {
        plan->scratch_bytes += (plan->width == 4 ? 4 : 2) * round_up(n, 64) * run->n_chains;
    }
    if (plan->kernel == GLB_KERNEL_DENSE) {
        int few = run->first_chain % 32 + (int64_t)run->n_chains <= 16;
        plan->byte_vectors = few ? 1 : 2 * plan->words;
        plan->byte_stride = round_up(n, 4) / 4 * 64 * plan->byte_vectors;
        plan->scratch_bytes += plan->byte_stride * plan->n_blocks;
    }
    plan->scratch_bytes += glb_moves_bytes(program, run, plan); /* at the end */
    if (plan->kernel == GLB_KERNEL_EVENTS) {
        plan->scratch_bytes += glb_events_scratch_bytes(program, run); /* at the end too; there are no moves then */
    }
    return GLB_OK;
}

int64_t glb_ising_net_bytes(const glb_ising *program, const glb_traits *traits, const glb_plan *plan) {
    switch (plan->kernel) {
    case GLB_KERNEL_BITS:
        return glb_bits_net_fill(program, traits, plan, NULL, NULL).size;
    case GLB_KERNEL_BYTES:
    case GLB_KERNEL_FILTER:
        return glb_wide_net_head(program).terms + (int64_t)sizeof(glb_term) * program->row_start[program->n_sites];
    case GLB_KERNEL_DENSE:
        return glb_dense_net_head(program, traits).size;
    case GLB_KERNEL_DIAGONALS:
        return glb_diagonals_net_fill(program, plan, NULL, NULL).size;
    case GLB_KERNEL_LATTICE:
        return glb_lattice_net_fill(program, traits, plan, NULL, NULL).size;
    case GLB_KERNEL_INCREMENTAL:
        return glb_incremental_net_head(program, plan).size;
    default:
        return 0;
    }
}

int glb_ising_net(const glb_ising *program, const glb_traits *traits, const glb_plan *plan, uint8_t *net) {
    if (plan->kernel == GLB_KERNEL_BITS) {
        glb_bits_net head = glb_bits_net_fill(program, traits, plan, NULL, NULL);
        memcpy(net, &head, sizeof head);
        glb_bits_net_fill(program, traits, plan, &head, net);
    } else if (plan->kernel == GLB_KERNEL_BYTES || plan->kernel == GLB_KERNEL_FILTER) {
        glb_wide_net_fill(program, plan, net);
    } else if (plan->kernel == GLB_KERNEL_DENSE) {
        glb_dense_net_fill(program, traits, net);
    } else if (plan->kernel == GLB_KERNEL_DIAGONALS) {
        glb_diagonals_net head = glb_diagonals_net_fill(program, plan, NULL, NULL);
        memset(net, 0, (size_t)head.size);
        memcpy(net, &head, sizeof head);
        glb_diagonals_net_fill(program, plan, &head, net);
    } else if (plan->kernel == GLB_KERNEL_LATTICE) {
        glb_lattice_net head = glb_lattice_net_fill(program, traits, plan, NULL, NULL);
        memset(net, 0, (size_t)head.size);
        memcpy(net, &head, sizeof head);
        glb_lattice_net_fill(program, traits, plan, &head, net);
    } else if (plan->kernel == GLB_KERNEL_INCREMENTAL) {
        glb_incremental_net_fill(program, plan, net);
    }
    return GLB_OK;
}
