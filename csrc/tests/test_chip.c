/* Chips with flaws: one without any is the ideal machine; memory of exact size for everything else; what is refused. */
#include "testing.h"

enum { N = 40, EDGES_N = 70, CHAINS = 70, NOISES = 2, MODES = 1 };

struct bench {
    struct graph graph;
    glb_ising program;
    glb_run run;
    glb_chip chip;
    glb_noise noise[NOISES];
    uint64_t b[1];
    uint32_t *gain, *slope;
    int64_t *offset;
    int32_t *weight, *field, *mode_size, *mode, *memory, *normal;
};

static void make_bench(struct bench *t, int isa) {
    memset(t, 0, sizeof *t);
    t->graph = make_graph(N, 3, EDGES_N);
    int64_t entries = t->graph.row_start[N];
    t->weight = NEW(int32_t, entries);
    t->field = NEW(int32_t, N);
    for (int64_t k = 0; k < entries; k++) {
        t->weight[k] = random_int(-9, 9); /* directed */
    }
    t->gain = NEW(uint32_t, N);
    t->offset = NEW(int64_t, N);
    for (int i = 0; i < N; i++) {
        t->field[i] = random_int(-5, 5);
        t->gain[i] = 1u << 20;
    }
    t->program = (glb_ising){.n_sites = N,
                             .n_colours = t->graph.n_colours,
                             .colour_start = t->graph.colour_start,
                             .site = t->graph.site,
                             .position = t->graph.position,
                             .row_start = t->graph.row_start,
                             .neighbour = t->graph.neighbour,
                             .weight = t->weight,
                             .field = t->field};
    t->b[0] = UINT64_C(1) << 29;
    t->run = (glb_run){.seed = 7, .layout = GLB_REPLICA_PLANES, .n_chains = CHAINS, .first_chain = 3, .b = t->b, .n_b = 1,
                       .n_threads = 1, .isa = isa, .chip = &t->chip};
    int64_t lanes = (CHAINS + 3 + 31) / 32 * 32;
    t->slope = NEW(uint32_t, SWEEPS);
    t->mode = NEW(int32_t, SWEEPS * MODES * lanes);
    t->mode_size = NEW(int32_t, MODES * N);
    t->memory = NEW(int32_t, NOISES * N * lanes);
    t->normal = NEW(int32_t, 1665);
    for (int s = 0; s < SWEEPS; s++) {
        t->slope[s] = 1u << 20;
    }
    for (int k = 0; k < 1665; k++) {
        t->normal[k] = -100000 * (1664 - k);
    }
    t->noise[0] = (glb_noise){.slot = 0, .keep = 1 << 29, .fresh = 929887697};
    t->noise[1] = (glb_noise){.slot = 5, .keep = 1 << 28, .fresh = 1 << 29, .size = 1 << 20};
    t->chip = (glb_chip){.gain = t->gain, .offset = t->offset, .mode_size = t->mode_size, .first_sweep = 1,
                         .n_sweeps = SWEEPS, .slope = t->slope, .mode = t->mode, .noise = t->noise, .memory = t->memory,
                         .normal = t->normal};
}

static void free_bench(struct bench *t) {
    void *all[] = {t->weight, t->field, t->gain, t->offset, t->slope, t->mode, t->mode_size, t->memory, t->normal};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        free(all[i]);
    }
    free_graph(&t->graph);
}

static int plan_of(const struct bench *t, glb_plan *plan) {
    glb_traits traits = {0};
    int rc = glb_ising_check(&t->program, &traits);
    return rc != GLB_OK ? rc : glb_ising_plan(&t->program, &traits, &t->run, plan);
}

/* Packed states after all sweeps. */
static void states(const struct bench *t, uint8_t *packed) {
    glb_plan plan;
    glb_output output = {0};
    glb_traits traits = {0};
    CHECK(plan_of(t, &plan) == GLB_OK, "the bench is valid");
    CHECK(glb_ising_check(&t->program, &traits) == GLB_OK, "the bench is valid");
    uint8_t *state = allocate_aligned(plan.state_bytes);
    uint8_t *scratch = allocate_aligned(plan.scratch_bytes);
    uint8_t *net = allocate_aligned(glb_ising_net_bytes(&t->program, &traits, &plan));
    CHECK(glb_ising_net(&t->program, &traits, &plan, net) == GLB_OK, "net");
    CHECK(glb_ising_start(&t->program, &t->run, &plan, NULL, state) == GLB_OK, "start");
    if (t->run.chip != NULL) {
        CHECK(glb_chip_start(&t->program, &t->run, &plan, 0) == GLB_OK, "noises");
    }
    CHECK(glb_ising_sweep(&t->program, &t->run, &plan, net, state, scratch, 1, SWEEPS, &output) == GLB_OK, "sweeps");
    CHECK(glb_ising_pack(&t->program, &t->run, &plan, state, packed) == GLB_OK, "pack");
    free(state);
    free(scratch);
    free(net);
}

static void test_readout(struct bench *t) {
    enum { BYTES = (N + 7) / 8, KEPT = 3 };
    uint32_t cut[5][N];
    uint8_t samples[CHAINS * KEPT * BYTES];
    uint8_t before[sizeof samples];
    glb_readout readout = {cut[0], cut[1], cut[2], cut[3], cut[4]};
    memset(cut, 0, sizeof cut);
    for (size_t i = 0; i < sizeof samples; i++) {
        samples[i] = (uint8_t)random_u64();
    }
    uint8_t right[sizeof samples];
    memcpy(right, samples, sizeof right);
    CHECK(glb_read_out(&readout, &t->run, N, 1, 2, KEPT, samples, NULL) == GLB_OK, "readout");
    CHECK(memcmp(samples, right, sizeof right) == 0, "without errors a reading is right");
    memset(cut[0], 0xFF, sizeof cut[0]); /* always late */
    for (size_t i = 0; i < sizeof before; i++) {
        before[i] = (uint8_t)~right[i];
    }
    CHECK(glb_read_out(&readout, &t->run, N, 1, 2, KEPT, samples, before) == GLB_OK, "readout");
    CHECK(memcmp(samples, before, sizeof before) == 0, "a late reading is of the sweep before");
    CHECK(glb_read_out(&readout, &t->run, N, 1, 0, KEPT, samples, before) == GLB_E_SIZE, "no interval");
}

void test_chip(void) {
    enum { BYTES = (N + 7) / 8 };
    uint8_t ideal[CHAINS * BYTES], flawed[CHAINS * BYTES], first[CHAINS * BYTES];
    for (int isa = 0; isa < GLB_N_ISA; isa++) {
        struct bench t;
        glb_plan plan;
        if (!glb_isa_available(isa)) {
            continue;
        }
        random_start(5);
        make_bench(&t, isa);
        t.run.chip = NULL;
        t.run.kernel = GLB_KERNEL_EXACT;
        states(&t, ideal);
        t.run.chip = &t.chip;
        t.run.kernel = GLB_KERNEL_AUTO;
        states(&t, flawed);
        CHECK(memcmp(ideal, flawed, sizeof ideal) == 0, "a chip without flaws is the ideal machine");
        t.gain[3] = 3u << 19;
        t.offset[7] = -(INT64_C(1) << 33);
        t.chip.n_modes = MODES;
        t.mode_size[9] = 1 << 25;
        for (int k = 0; k < SWEEPS * MODES * 32; k++) {
            t.mode[k] = random_int(-(1 << 24), 1 << 24);
        }
        t.chip.n_noises = NOISES;
        states(&t, flawed);
        CHECK(memcmp(ideal, flawed, sizeof ideal) != 0, "flaws change samples");
        if (isa == 0) {
            memcpy(first, flawed, sizeof first);
        }
        CHECK(memcmp(first, flawed, sizeof first) == 0, "flawed samples are those of the portable kernels");
        t.run.n_threads = 3;
        states(&t, flawed);
        CHECK(memcmp(first, flawed, sizeof first) == 0, "and do not depend on threads");
        if (isa == 0) {
            test_readout(&t);
        }
#define REFUSED_CHIP(code, breaking, mending)                                                                          \
    do {                                                                                                               \
        breaking;                                                                                                      \
        CHECK(plan_of(&t, &plan) == (code), #breaking);                                                                \
        mending;                                                                                                       \
    } while (0)
        REFUSED_CHIP(GLB_E_RANGE, t.gain[0] = 1u << 23, t.gain[0] = 1u << 20);
        REFUSED_CHIP(GLB_E_RANGE, t.offset[0] = INT64_C(1) << 40, t.offset[0] = 0);
        REFUSED_CHIP(GLB_E_RANGE, t.b[0] = UINT64_C(1) << 40, t.b[0] = 1u << 29);
        REFUSED_CHIP(GLB_E_RANGE, t.noise[0].keep = 1 << 30, t.noise[0].keep = 0);
        REFUSED_CHIP(GLB_E_INDEX, t.noise[1].slot = 0, t.noise[1].slot = 5);
        REFUSED_CHIP(GLB_E_SIZE, t.chip.fine = GLB_MAX_FINE + 1, t.chip.fine = 0);
        REFUSED_CHIP(GLB_E_SIZE, t.chip.n_modes = GLB_MAX_MODES + 1, t.chip.n_modes = 1);
        REFUSED_CHIP(GLB_E_KERNEL, t.run.layout = GLB_SITE_PLANES, t.run.layout = GLB_REPLICA_PLANES);
        REFUSED_CHIP(GLB_E_KERNEL, t.run.dynamics = GLB_BY_METROPOLIS, t.run.dynamics = GLB_BY_HEAT_BATH);
        REFUSED_CHIP(GLB_E_KERNEL, t.run.kernel = GLB_KERNEL_EXACT, t.run.kernel = GLB_KERNEL_AUTO);
        CHECK(plan_of(&t, &plan) == GLB_OK, "mended");
        glb_output output = {0};
        CHECK(glb_ising_sweep(&t.program, &t.run, &plan, NULL, NULL, NULL, 2, SWEEPS, &output) == GLB_E_SIZE,
              "sweeps beyond the modes that were made");
        t.run.chip = NULL;
        CHECK(plan_of(&t, &plan) == GLB_OK && glb_chip_start(&t.program, &t.run, &plan, 0) == GLB_E_KERNEL, "no chip");
        free_bench(&t);
    }
}
