/* Every error code of the interface: one thing broken in a valid program at a time. */
#include "testing.h"

enum { TINY = 4 };

/* A valid path of four sites in two colours, {0, 1} and {2, 3}: 0-2, 2-1, 1-3. */
struct tiny {
    int32_t colour_start[3], site[TINY], position[TINY], neighbour[6], weight[6], field[TINY], edge[6];
    int64_t row_start[TINY + 1];
    uint64_t b[1];
    glb_ising ising;
    glb_run run;
};

static void make_tiny(struct tiny *t) {
    static const struct tiny arrays = {.colour_start = {0, 2, 4},
                                       .site = {3, 1, 0, 2},
                                       .position = {2, 1, 3, 0},
                                       .neighbour = {2, 2, 3, 0, 1, 1},
                                       .weight = {1, 2, 3, 1, 2, 3},
                                       .field = {0, -1, 1, 0},
                                       .edge = {0, 2, 2, 1, 1, 3},
                                       .row_start = {0, 1, 3, 5, 6},
                                       .b = {1u << 30}};
    *t = arrays;
    t->ising = (glb_ising){.n_sites = TINY,
                           .n_colours = 2,
                           .colour_start = t->colour_start,
                           .site = t->site,
                           .position = t->position,
                           .row_start = t->row_start,
                           .neighbour = t->neighbour,
                           .weight = t->weight,
                           .field = t->field,
                           .n_edges = 3,
                           .edge = t->edge};
    t->run = (glb_run){.layout = GLB_REPLICA_PLANES, .n_chains = 5, .b = t->b, .n_b = 1, .n_threads = 1};
}

static int ising_check(const struct tiny *t) {
    glb_traits traits = {0};
    return glb_ising_check(&t->ising, &traits);
}

static int ising_check_run(const struct tiny *t) {
    glb_traits traits = {0};
    glb_plan plan;
    int rc = glb_ising_check(&t->ising, &traits);
    return rc != GLB_OK ? rc : glb_ising_plan(&t->ising, &traits, &t->run, &plan);
}

static int ising_sweep(const struct tiny *t, uint64_t first, int64_t n) {
    glb_traits traits = {0};
    glb_plan plan;
    glb_output output = {0};
    int rc = glb_ising_check(&t->ising, &traits) | glb_ising_plan(&t->ising, &traits, &t->run, &plan);
    CHECK(rc == GLB_OK && plan.lanes == 32, "the tiny program is valid");
    uint8_t *net = allocate_aligned(glb_ising_net_bytes(&t->ising, &traits, &plan));
    uint8_t *state = allocate_aligned(plan.state_bytes);
    uint8_t *scratch = allocate_aligned(plan.scratch_bytes);
    memset(scratch, 0, (size_t)plan.scratch_bytes);
    rc = glb_ising_net(&t->ising, &traits, &plan, net) | glb_ising_start(&t->ising, &t->run, &plan, NULL, state);
    CHECK(rc == GLB_OK, "the tiny program starts");
    rc = glb_ising_sweep(&t->ising, &t->run, &plan, net, state, scratch, first, n, &output);
    free(net);
    free(state);
    free(scratch);
    return rc;
}

/* Breaks one thing in a fresh valid program, and expects one code. */
#define REFUSED(code, call, ...)                                                                                       \
    do {                                                                                                               \
        struct tiny t;                                                                                                 \
        make_tiny(&t);                                                                                                 \
        __VA_ARGS__;                                                                                                   \
        int got = (call);                                                                                              \
        CHECK(got == (code), "%s: got %d, want %s", #__VA_ARGS__, got, #code);                                         \
    } while (0)

static void test_ising_errors(void) {
    glb_traits traits = {0};
    glb_plan plan;
    struct tiny valid;
    make_tiny(&valid);
    CHECK(glb_ising_check(&valid.ising, &traits) == GLB_OK && traits.sum == 6 && traits.weight_sum == 5 &&
              traits.max_weight == 3 && !traits.one_parity,
          "the traits of the tiny program: %d, %d, %d", (int)traits.sum, (int)traits.weight_sum,
          (int)traits.max_weight);
    CHECK(ising_check_run(&valid) == GLB_OK, "a valid run");
    CHECK(ising_sweep(&valid, 1, 2) == GLB_OK && ising_sweep(&valid, 1, 0) == GLB_OK, "valid sweeps");

    REFUSED(GLB_E_SIZE, ising_check(&t), t.ising.n_sites = 0);
    REFUSED(GLB_E_SIZE, ising_check(&t), t.ising.n_sites = -1);
    REFUSED(GLB_E_SIZE, ising_check(&t), t.ising.n_colours = 0);
    REFUSED(GLB_E_SIZE, ising_check(&t), t.ising.n_colours = TINY + 1);
    REFUSED(GLB_E_SIZE, ising_check(&t), t.ising.n_edges = -1);
    REFUSED(GLB_E_ORDER, ising_check(&t), t.colour_start[0] = 1);
    REFUSED(GLB_E_ORDER, ising_check(&t), t.colour_start[2] = 3);
    REFUSED(GLB_E_ORDER, ising_check(&t), t.colour_start[1] = 0);
    REFUSED(GLB_E_ORDER, ising_check(&t), t.colour_start[1] = 5);
    REFUSED(GLB_E_ORDER, ising_check(&t), t.row_start[0] = 1);
    REFUSED(GLB_E_ORDER, ising_check(&t), t.row_start[2] = 0);
    REFUSED(GLB_E_INDEX, ising_check(&t), t.site[2] = TINY);
    REFUSED(GLB_E_INDEX, ising_check(&t), t.site[0] = -1);
    REFUSED(GLB_E_ORDER, ising_check(&t), t.site[0] = 1);
    REFUSED(GLB_E_ORDER, ising_check(&t), t.position[0] = 3);
    REFUSED(GLB_E_INDEX, ising_check(&t), t.neighbour[5] = TINY);
    REFUSED(GLB_E_INDEX, ising_check(&t), t.neighbour[0] = -1);
    REFUSED(GLB_E_INDEX, ising_check(&t), t.edge[5] = TINY);
    REFUSED(GLB_E_INDEX, ising_check(&t), t.edge[0] = -1);
    REFUSED(GLB_E_LOOP, ising_check(&t), t.neighbour[3] = 2);
    REFUSED(GLB_E_ORDER, ising_check(&t), t.neighbour[4] = 0);
    REFUSED(GLB_E_ORDER, ising_check(&t), (t.neighbour[3] = 1, t.neighbour[4] = 0));
    REFUSED(GLB_E_COLOUR, ising_check(&t), t.neighbour[3] = 3);
    REFUSED(GLB_E_RANGE, ising_check(&t), t.weight[2] = (1 << 30) - 3);
    REFUSED(GLB_OK, ising_check(&t), t.weight[2] = (1 << 30) - 4);
    REFUSED(GLB_E_RANGE, ising_check(&t), t.weight[0] = INT32_MIN);
    REFUSED(GLB_E_RANGE, ising_check(&t), t.field[3] = 1 << 30);
    REFUSED(GLB_E_RANGE, ising_check(&t), t.field[3] = INT32_MIN);

    REFUSED(GLB_E_SIZE, ising_check_run(&t), t.run.n_chains = 0);
    REFUSED(GLB_E_SIZE, ising_check_run(&t), t.run.layout = 2);
    REFUSED(GLB_E_SIZE, ising_check_run(&t), t.run.layout = -1);
    REFUSED(GLB_E_SIZE, ising_check_run(&t), t.run.n_b = 0);
    REFUSED(GLB_E_SIZE, ising_check_run(&t), t.run.n_threads = 0);
    REFUSED(GLB_E_RANGE, ising_check_run(&t), t.b[0] = UINT64_C(1) << 63);
    REFUSED(GLB_OK, ising_check_run(&t), t.b[0] = (UINT64_C(1) << 63) - 1);
    REFUSED(GLB_E_SIZE, ising_check_run(&t), t.ising.n_sites = 0);
    REFUSED(GLB_E_LOOP, ising_check_run(&t), t.neighbour[3] = 2);
    int32_t *field = NEW(int32_t, TINY * 32);
    field[1 * 32 + 4] = -((1 << 30) - 5); /* position 1 has couplings of 5 steps; chain 4 is the last */
    REFUSED(GLB_E_RANGE, ising_check_run(&t), t.run.chain_field = field);
    field[1 * 32 + 4] += 1;
    REFUSED(GLB_OK, ising_check_run(&t), t.run.chain_field = field);
    valid.run.chain_field = field;
    CHECK(glb_ising_plan(&valid.ising, &traits, &valid.run, &plan) == GLB_OK && plan.sum == (1 << 30) - 1,
          "the sum counts the fields of each chain: %d", (int)plan.sum);
    field[1 * 32 + 4] = 0;
    field[1 * 32 + 5] = INT32_MIN; /* a lane that is no chain's */
    REFUSED(GLB_OK, ising_check_run(&t), t.run.chain_field = field);
    free(field);

    REFUSED(GLB_E_KERNEL, ising_check_run(&t), t.run.kernel = GLB_KERNEL_SITES);
    REFUSED(GLB_E_KERNEL, ising_check_run(&t), t.run.kernel = 99);
    REFUSED(GLB_E_KERNEL, ising_check_run(&t), (t.run.kernel = GLB_KERNEL_BITS, t.weight[0] = 16));
    REFUSED(GLB_OK, ising_check_run(&t), (t.run.kernel = GLB_KERNEL_BITS, t.weight[0] = 15));
    REFUSED(GLB_E_KERNEL, ising_check_run(&t), (t.run.kernel = GLB_KERNEL_EXACT, t.run.layout = GLB_SITE_PLANES));
    REFUSED(GLB_E_SIZE, ising_sweep(&t, 0, 1), (void)0);
    REFUSED(GLB_E_SIZE, ising_sweep(&t, 1, -1), (void)0);
    REFUSED(GLB_E_ISA, ising_check_run(&t), t.run.isa = GLB_N_ISA);
    REFUSED(GLB_E_ISA, ising_check_run(&t), t.run.isa = -1);
    REFUSED(GLB_E_THREAD, ising_sweep(&t, 1, 1), t.run.n_threads = 257);
}

/* The tiny path with three states, weights or tables. */
static glb_potts tiny_potts(const struct tiny *t, const int32_t *field) {
    return (glb_potts){.n_sites = TINY,
                       .n_states = 3,
                       .n_colours = 2,
                       .colour_start = t->colour_start,
                       .site = t->site,
                       .row_start = t->row_start,
                       .neighbour = t->neighbour,
                       .weight = t->weight,
                       .field = field};
}

static void test_potts_errors(void) {
    struct tiny t;
    int32_t field[3 * TINY] = {0, 4, -5};
    int32_t table[9 + 3] = {0};
    int64_t table_start[6] = {0, 3, 0, 0, 0, 0};
    uint8_t allowed[3 * TINY];
    int32_t clamp[5 * TINY];
    int64_t sum = 0;
    make_tiny(&t);
    memset(allowed, 1, sizeof allowed);
    for (int i = 0; i < 5 * TINY; i++) {
        clamp[i] = -1;
    }
    const glb_potts valid = tiny_potts(&t, field);
    CHECK(glb_potts_check(&valid, &sum) == GLB_OK && sum == 6, "the largest max |h| + sum |w| is %d", (int)sum);
    CHECK(glb_potts_check_run(&valid, &t.run) == GLB_OK, "a valid Potts run");

#define BROKEN(code, ...)                                                                                              \
    do {                                                                                                               \
        glb_potts p = valid;                                                                                           \
        __VA_ARGS__;                                                                                                   \
        int got = glb_potts_check(&p, &sum);                                                                           \
        CHECK(got == (code), "%s: got %d, want %s", #__VA_ARGS__, got, #code);                                         \
    } while (0)
    BROKEN(GLB_E_SIZE, p.n_sites = 0);
    BROKEN(GLB_E_ORDER, p.n_colours = 1);
    BROKEN(GLB_E_SIZE, p.n_states = 1);
    BROKEN(GLB_E_SIZE, p.n_states = 65537);
    BROKEN(GLB_E_SIZE, p.weight = NULL);
    BROKEN(GLB_E_SIZE, p.table_start = table_start; p.table = table; p.table_size = 12);
    BROKEN(GLB_OK, p.weight = NULL; p.table_start = table_start; p.table = table; p.table_size = 12);
    BROKEN(GLB_E_INDEX, p.weight = NULL; p.table_start = table_start; p.table = table; p.table_size = 11);
    table_start[5] = -1;
    BROKEN(GLB_E_INDEX, p.weight = NULL; p.table_start = table_start; p.table = table; p.table_size = 12);
    table_start[5] = 0;
    table[3] = (1 << 30) - 5; /* in both tables of position 1, whose largest field is 0 */
    BROKEN(GLB_E_RANGE, p.weight = NULL; p.table_start = table_start; p.table = table; p.table_size = 12);
    field[3 * 3 + 2] = -(1 << 30);
    BROKEN(GLB_E_RANGE, (void)0);
    field[3 * 3 + 2] = 0;
    t.weight[1] = -(1 << 30);
    BROKEN(GLB_E_RANGE, (void)0);
    t.weight[1] = 2;
    memset(allowed + 3 * 2, 0, 3);
    BROKEN(GLB_E_ALLOWED, p.allowed = allowed);
    allowed[3 * 2 + 1] = 1;
    BROKEN(GLB_OK, p.allowed = allowed);
#undef BROKEN

    glb_potts masked = valid;
    masked.allowed = allowed; /* position 2 may be in state 1 only */
    clamp[4 * TINY + 2] = 1;
    t.run.potts_clamp = clamp;
    CHECK(glb_potts_check_run(&masked, &t.run) == GLB_OK, "clamped to an allowed state");
    clamp[4 * TINY + 2] = 0;
    CHECK(glb_potts_check_run(&masked, &t.run) == GLB_E_ALLOWED, "clamped to a state that is not allowed");
    clamp[4 * TINY + 2] = 3;
    CHECK(glb_potts_check_run(&masked, &t.run) == GLB_E_INDEX, "clamped to a state that does not exist");
    clamp[4 * TINY + 2] = -2;
    CHECK(glb_potts_check_run(&masked, &t.run) == GLB_E_INDEX, "a clamp below -1");
    t.run.potts_clamp = NULL;

    glb_run run = t.run;
    run.layout = GLB_SITE_PLANES;
    CHECK(glb_potts_check_run(&valid, &run) == GLB_E_SIZE, "Potts has one layout");
    run = t.run;
    run.n_chains = 0;
    CHECK(glb_potts_check_run(&valid, &run) == GLB_E_SIZE, "no chains");
    run = t.run;
    run.n_b = 0;
    CHECK(glb_potts_check_run(&valid, &run) == GLB_E_SIZE, "no temperature");
    run = t.run;
    run.n_threads = 0;
    CHECK(glb_potts_check_run(&valid, &run) == GLB_E_SIZE, "no threads");
    t.b[0] = UINT64_C(1) << 63;
    CHECK(glb_potts_check_run(&valid, &t.run) == GLB_E_RANGE, "b = 2^63");
    t.b[0] = 1;
    int32_t chain_field[5 * TINY * 3] = {0};
    t.run.chain_field = chain_field;
    chain_field[5 * TINY * 3 - 1] = -(1 << 30);
    CHECK(glb_potts_check_run(&valid, &t.run) == GLB_E_RANGE, "a chain's field of -2^30");
    chain_field[5 * TINY * 3 - 1] = 1 << 30;
    CHECK(glb_potts_check_run(&valid, &t.run) == GLB_E_RANGE, "a chain's field of 2^30");
    chain_field[5 * TINY * 3 - 1] = 0;

    int32_t state[5 * TINY];
    int32_t initial[5 * TINY] = {0};
    uint8_t scratch[1]; /* not reached */
    glb_output output = {0};
    initial[7] = 3;
    CHECK(glb_potts_start(&valid, &t.run, initial, state) == GLB_E_INDEX, "a start outside the states");
    initial[7] = -1;
    CHECK(glb_potts_start(&valid, &t.run, initial, state) == GLB_E_INDEX, "a negative start");
    CHECK(glb_potts_sweep(&valid, &t.run, state, scratch, 0, 1, &output, NULL) == GLB_E_SIZE, "sweep 0 is the start");
    CHECK(glb_potts_sweep(&valid, &t.run, state, scratch, 1, -1, &output, NULL) == GLB_E_SIZE, "sweeps below 0");
    t.run.n_threads = 257;
    CHECK(glb_potts_sweep(&valid, &t.run, state, scratch, 1, 1, &output, NULL) == GLB_E_THREAD, "too many threads");
}

void test_errors(void) {
    test_ising_errors();
    test_potts_errors();
}
