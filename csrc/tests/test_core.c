/* Tests of the C core without Python: ctest runs this, CI also under AddressSanitizer and UBSan.
 *
 * What a run must return comes from an oracle below, written from docs/machine.md with one decision at a time and
 * nothing taken from the kernels: any difference, in any bit, is a failure. Every array has exactly the size that
 * the interface promises, on the heap, so that the sanitizer sees each step outside. main returns the failures.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "glauber/contract.h"
#include "glauber/core.h"

static int failures = 0;
static int checks = 0;

static void check_at(int line, int ok, const char *format, ...) {
    va_list arguments;
    checks++;
    if (ok) {
        return;
    }
    failures++;
    printf("test_core.c:%d: ", line);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

#define CHECK(ok, ...) check_at(__LINE__, (ok), __VA_ARGS__)

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count > 0 ? count : 1, size);
    if (memory == NULL) {
        printf("out of memory\n");
        exit(99);
    }
    return memory;
}

#define NEW(type, count) ((type *)allocate((size_t)(count), sizeof(type)))

/* The tests' own random numbers: SplitMix64, so that nothing depends on the generator under test. */
static uint64_t random_state;

static uint64_t random_u64(void) {
    uint64_t z = (random_state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* An integer from low to high, both included. */
static int32_t random_int(int32_t low, int32_t high) {
    return (int32_t)(low + (int64_t)(random_u64() % (uint64_t)((int64_t)high - low + 1)));
}

/* ------------------------------------------------------------------ pure functions */

static void test_threefry(void) {
    /* Random123's kat_vectors, threefry4x32 with 20 rounds: key, counter, output. */
    static const uint32_t known[3][12] = {
        {0, 0, 0, 0, 0, 0, 0, 0, 0x9c6ca96au, 0xe17eae66u, 0xfc10ecd4u, 0x5256a7d8u},
        {0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu,
         0x2a881696u, 0x57012287u, 0xf6c7446eu, 0xa16a6732u},
        {0xa4093822u, 0x299f31d0u, 0x082efa98u, 0xec4e6c89u, 0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u,
         0x59cd1dbbu, 0xb8879579u, 0x86b5d00cu, 0xac8b6d84u},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        glb_test_threefry(known[i], known[i] + 4, out);
        CHECK(memcmp(out, known[i] + 8, sizeof out) == 0, "threefry4x32-20 vector %d: %08x %08x %08x %08x", i, out[0],
              out[1], out[2], out[3]);
    }
    /* the key's words, machine.md section 3: seed low, seed high, purpose + 16 layout + 256 stream, sweep high */
    glb_key key = glb_make_key(UINT64_C(0x0123456789abcdef), 3, 1, 5, UINT64_C(0xfedc000000000001));
    CHECK(key.k[0] == 0x89abcdefu && key.k[1] == 0x01234567u && key.k[2] == 3 + 16 + 5 * 256 && key.k[3] == 0xfedc0000u,
          "glb_make_key: %08x %08x %08x %08x", key.k[0], key.k[1], key.k[2], key.k[3]);
}

static void test_threshold(void) {
    static const int32_t fields[] = {1, 2, 3, 7, 1000, 32767, 32768, (1 << 30) - 1, INT32_MAX};
    CHECK(glb_contract_version() == 1, "contract version %d", glb_contract_version());
    for (int shift = 0; shift < 63; shift++) {
        uint64_t b = (UINT64_C(1) << shift) | (random_u64() & ((UINT64_C(1) << shift) - 1));
        CHECK(glb_test_threshold(0, b) == 0x80000000u, "T(0) with b = %llu", (unsigned long long)b);
        for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
            uint64_t up = glb_test_threshold(fields[i], b);
            uint64_t down = glb_test_threshold(-fields[i], b);
            CHECK(up + down == UINT64_C(1) << 32, "T(x) + T(-x) with field %d, b = %llu", (int)fields[i],
                  (unsigned long long)b);
            CHECK(up >= 0x80000000u && down >= 1, "T outside its half with field %d, b = %llu", (int)fields[i],
                  (unsigned long long)b);
        }
    }
    CHECK(glb_test_threshold((1 << 30) - 1, 0) == 0x80000000u, "b = 0 is a fair coin whatever the field");
    /* far beyond saturation nothing overflows, and no probability is exactly 0 or 1 */
    static const int32_t extreme[] = {1, (1 << 30) - 1, INT32_MAX};
    static const uint64_t cold[] = {GLB_X_MAX - 1, GLB_X_MAX, GLB_X_MAX + 1, (UINT64_C(1) << 63) - 1};
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 4; j++) {
            CHECK(glb_test_threshold(extreme[i], cold[j]) == 0xFFFFFFFFu, "saturation upwards, %d %d", i, j);
            CHECK(glb_test_threshold(-extreme[i], cold[j]) == 1, "saturation downwards, %d %d", i, j);
        }
    }
    /* products that reach 2^64 must saturate before they wrap to 0 */
    for (int k = 2; k < 31; k++) {
        CHECK(glb_test_threshold((int32_t)1 << k, UINT64_C(1) << (64 - k)) == 0xFFFFFFFFu, "2^%d * 2^%d", k, 64 - k);
    }
    CHECK(glb_test_threshold(INT32_MIN, (UINT64_C(1) << 63) - 1) == 1, "the most negative field");
    CHECK(glb_test_exp2(0) == UINT64_C(1) << 62, "exp2(0)");
    for (uint64_t n = 0; n < 62; n++) {
        CHECK(glb_test_exp2(n << 32) == (UINT64_C(1) << 62) >> n, "exp2 at the integer %d", (int)n);
    }
    CHECK(glb_test_exp2(UINT64_C(62) << 32) == 0 && glb_test_exp2(GLB_X_MAX) == 0, "exp2 is 0 from n = 62");
}

/* ------------------------------------------------------------------ error codes */

enum { TINY = 4 };

/* A valid path of four sites in two colours, {0, 1} and {2, 3}: 0-2, 2-1, 1-3. */
struct tiny {
    int32_t colour_start[3], site[TINY], neighbour[6], weight[6], field[TINY], edge[6];
    int64_t row_start[TINY + 1];
    uint64_t b[1];
    glb_ising ising;
    glb_run run;
};

static void make_tiny(struct tiny *t) {
    static const struct tiny arrays = {.colour_start = {0, 2, 4},
                                       .site = {3, 1, 0, 2},
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
                           .row_start = t->row_start,
                           .neighbour = t->neighbour,
                           .weight = t->weight,
                           .field = t->field,
                           .n_edges = 3,
                           .edge = t->edge};
    t->run = (glb_run){.layout = GLB_REPLICA_PLANES, .n_chains = 5, .b = t->b, .n_b = 1, .n_threads = 1};
}

static int ising_check(const struct tiny *t) {
    int64_t sum = -1;
    return glb_ising_check(&t->ising, &sum);
}

static int ising_check_run(const struct tiny *t) {
    int64_t sum = -1;
    return glb_ising_check_run(&t->ising, &t->run, &sum);
}

static int ising_sweep(const struct tiny *t, uint64_t first, int64_t n) {
    int64_t sum = 0;
    int64_t lanes = glb_ising_lanes(&t->ising, &t->run);
    CHECK(glb_ising_check(&t->ising, &sum) == GLB_OK && lanes == 32, "the tiny program is valid");
    int8_t *state = NEW(int8_t, TINY * lanes);
    uint8_t *scratch = NEW(uint8_t, glb_ising_scratch(&t->ising, &t->run, sum));
    glb_output output = {0};
    int rc = glb_ising_sweep(&t->ising, &t->run, sum, state, scratch, first, n, &output);
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
    int64_t sum = 0;
    struct tiny valid;
    make_tiny(&valid);
    CHECK(glb_ising_check(&valid.ising, &sum) == GLB_OK && sum == 6, "the largest |h| + sum |w| is %d", (int)sum);
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
    REFUSED(GLB_E_INDEX, ising_check(&t), t.neighbour[5] = TINY);
    REFUSED(GLB_E_INDEX, ising_check(&t), t.neighbour[0] = -1);
    REFUSED(GLB_E_INDEX, ising_check(&t), t.edge[5] = TINY);
    REFUSED(GLB_E_INDEX, ising_check(&t), t.edge[0] = -1);
    REFUSED(GLB_E_LOOP, ising_check(&t), t.neighbour[3] = 2);
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
    CHECK(glb_ising_check_run(&valid.ising, &valid.run, &sum) == GLB_OK && sum == (1 << 30) - 1,
          "the sum counts the fields of each chain: %d", (int)sum);
    field[1 * 32 + 4] = 0;
    field[1 * 32 + 5] = INT32_MIN; /* a lane that is no chain's */
    REFUSED(GLB_OK, ising_check_run(&t), t.run.chain_field = field);
    free(field);

    REFUSED(GLB_E_SIZE, (int)glb_ising_lanes(&t.ising, &t.run), t.run.n_chains = 0);
    REFUSED(GLB_E_SIZE, (int)glb_ising_lanes(&t.ising, &t.run), t.run.layout = 2);
    REFUSED(GLB_E_SIZE, (int)glb_ising_scratch(&t.ising, &t.run, 6), t.run.layout = 2);
    REFUSED(GLB_E_SIZE, glb_ising_start(&t.ising, &t.run, NULL, NULL), t.run.layout = 2);
    REFUSED(GLB_E_SIZE, glb_ising_pack(&t.ising, &t.run, NULL, NULL), t.run.layout = 2);
    REFUSED(GLB_E_SIZE, glb_ising_sweep(&t.ising, &t.run, 6, NULL, NULL, 1, 1, NULL), t.run.layout = 2);
    REFUSED(GLB_E_SIZE, ising_sweep(&t, 0, 1), (void)0);
    REFUSED(GLB_E_SIZE, ising_sweep(&t, 1, -1), (void)0);
    REFUSED(GLB_E_ISA, ising_sweep(&t, 1, 1), t.run.isa = -1);
    REFUSED(GLB_E_ISA, ising_sweep(&t, 1, 1), t.run.isa = glb_isa_best() + 1);
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

/* ------------------------------------------------------------------ a graph and a job for the identity runs */

struct graph {
    int32_t n, n_colours, n_edges;
    int32_t *colour_start, *site, *neighbour, *edge;
    int32_t *row_edge; /* the edge of each row entry */
    int64_t *row_start;
};

/* n positions in n_colours classes of unequal size, with random edges between different classes. */
static struct graph make_graph(int32_t n, int32_t n_colours, int32_t n_edges) {
    struct graph g = {.n = n, .n_colours = n_colours, .n_edges = n_colours > 1 ? n_edges : 0};
    g.colour_start = NEW(int32_t, n_colours + 1);
    g.site = NEW(int32_t, n);
    g.edge = NEW(int32_t, 2 * g.n_edges);
    g.row_start = NEW(int64_t, n + 1);
    g.neighbour = NEW(int32_t, 2 * g.n_edges);
    g.row_edge = NEW(int32_t, 2 * g.n_edges);
    int32_t *colour = NEW(int32_t, n);
    int32_t *fill = NEW(int32_t, n);
    for (int32_t c = 1; c < n_colours; c++) {
        g.colour_start[c] = n * c / n_colours + (c == 1 && n > 20 ? 2 : 0);
    }
    g.colour_start[n_colours] = n;
    for (int32_t p = 0; p < n; p++) {
        while (g.colour_start[colour[p] + 1] <= p) {
            colour[p]++;
        }
        g.site[p] = (int32_t)((7 * (int64_t)p + 3) % n); /* a permutation while 7 does not divide n */
    }
    for (int32_t e = 0; e < g.n_edges; e++) {
        int32_t a, b;
        do {
            a = random_int(0, n - 1);
            b = random_int(0, n - 1);
        } while (colour[a] == colour[b]);
        g.edge[2 * e] = a;
        g.edge[2 * e + 1] = b;
        g.row_start[a + 1]++;
        g.row_start[b + 1]++;
    }
    for (int32_t p = 0; p < n; p++) {
        g.row_start[p + 1] += g.row_start[p];
    }
    for (int32_t e = 0; e < 2 * g.n_edges; e++) {
        int32_t own = g.edge[e];
        int64_t at = g.row_start[own] + fill[own]++;
        g.neighbour[at] = g.edge[e ^ 1];
        g.row_edge[at] = e / 2;
    }
    free(colour);
    free(fill);
    return g;
}

static void free_graph(struct graph *g) {
    free(g->colour_start);
    free(g->site);
    free(g->edge);
    free(g->row_start);
    free(g->neighbour);
    free(g->row_edge);
}

/* The word of 32 bits that the contract gives a decision: bit by bit, section 4. */
static uint32_t oracle_u(uint64_t seed, uint32_t purpose, int32_t layout, uint32_t stream, uint32_t position,
                         uint64_t sweep, uint32_t chain) {
    const uint32_t key[4] = {(uint32_t)seed, (uint32_t)(seed >> 32), purpose + 16u * (uint32_t)layout + 256u * stream,
                             (uint32_t)(sweep >> 32)};
    uint32_t a = layout == GLB_REPLICA_PLANES ? position : position / 32;
    uint32_t c = layout == GLB_REPLICA_PLANES ? chain / 32 : chain;
    uint32_t bit = layout == GLB_REPLICA_PLANES ? chain % 32 : position % 32;
    uint32_t u = 0;
    for (uint32_t g = 0; g < 8; g++) {
        const uint32_t counter[4] = {a, (uint32_t)sweep, c, g};
        uint32_t word[4];
        glb_test_threefry(key, counter, word);
        for (int w = 0; w < 4; w++) {
            u = u << 1 | ((word[w] >> bit) & 1u);
        }
    }
    return u;
}

/* ------------------------------------------------------------------ Ising */

enum { CHAINS = 71, SWEEPS = 9, EVERY = 2, SAMPLES = SWEEPS / EVERY };

/* A job of CHAINS chains, arrays by [chain][position], and what it must return. */
struct ising_job {
    struct graph graph;
    glb_ising program;
    int32_t *weight, *field;
    uint64_t seed, first_sweep, *b;
    uint32_t stream;
    int64_t n_b;
    int32_t layout;
    int n_chains;         /* of the whole job */
    int32_t *chain_field; /* or NULL */
    int8_t *clamp;        /* or NULL */
    uint8_t *packed;      /* start, [chain][byte], or NULL */
    int8_t *last;         /* [chain][position] */
    uint8_t *samples;     /* [chain][sample][byte] */
    int64_t *site_sum, *edge_sum; /* [chain][site], [chain][edge] */
};

static int64_t bytes_of(const struct ising_job *job) { return ((int64_t)job->graph.n + 7) / 8; }

/* What the job must return, one decision after another. */
static void ising_oracle(struct ising_job *job) {
    const struct graph *g = &job->graph;
    int64_t bytes = bytes_of(job);
    job->last = NEW(int8_t, job->n_chains * g->n);
    job->samples = NEW(uint8_t, job->n_chains * SAMPLES * bytes);
    job->site_sum = NEW(int64_t, job->n_chains * g->n);
    job->edge_sum = NEW(int64_t, job->n_chains * g->n_edges);
    for (int chain = 0; chain < job->n_chains; chain++) {
        int8_t *s = job->last + (int64_t)chain * g->n;
        const int8_t *clamp = job->clamp == NULL ? NULL : job->clamp + (int64_t)chain * g->n;
        for (int32_t p = 0; p < g->n; p++) {
            uint32_t u = oracle_u(job->seed, GLB_START, job->layout, job->stream, (uint32_t)p, 0, (uint32_t)chain);
            s[p] = u < 0x80000000u ? 1 : -1;
            if (job->packed != NULL) {
                s[p] = (job->packed[bytes * chain + g->site[p] / 8] >> g->site[p] % 8) & 1 ? 1 : -1;
            }
            s[p] = clamp != NULL && clamp[p] != 0 ? clamp[p] : s[p];
        }
        for (int i = 0; i < SWEEPS; i++) {
            uint64_t sweep = job->first_sweep + (uint64_t)i;
            uint64_t b = job->b[sweep <= (uint64_t)job->n_b ? sweep - 1 : (uint64_t)job->n_b - 1];
            for (int32_t p = 0; p < g->n; p++) { /* positions go colour by colour */
                int32_t field = job->chain_field != NULL ? job->chain_field[(int64_t)chain * g->n + p] : job->field[p];
                for (int64_t k = g->row_start[p]; k < g->row_start[p + 1]; k++) {
                    field += job->weight[k] * s[g->neighbour[k]];
                }
                if (clamp == NULL || clamp[p] == 0) {
                    uint32_t u = oracle_u(job->seed, GLB_DECISION, job->layout, job->stream, (uint32_t)p, sweep,
                                          (uint32_t)chain);
                    s[p] = u < glb_test_threshold(field, b) ? 1 : -1;
                }
            }
            if ((i + 1) % EVERY != 0) {
                continue;
            }
            for (int32_t p = 0; p < g->n; p++) {
                int32_t site = g->site[p];
                job->site_sum[(int64_t)chain * g->n + site] += s[p];
                job->samples[(chain * SAMPLES + (i + 1) / EVERY - 1) * bytes + site / 8] |=
                    (uint8_t)((s[p] > 0) << site % 8);
            }
            for (int32_t e = 0; e < g->n_edges; e++) {
                job->edge_sum[(int64_t)chain * g->n_edges + e] += s[g->edge[2 * e]] * s[g->edge[2 * e + 1]];
            }
        }
    }
}

static void free_ising(struct ising_job *job) {
    free_graph(&job->graph);
    free(job->weight);
    free(job->field);
    free(job->b);
    free(job->chain_field);
    free(job->clamp);
    free(job->packed);
    free(job->last);
    free(job->samples);
    free(job->site_sum);
    free(job->edge_sum);
}

/* A program on a graph: symmetric weights up to `limit`, fields up to 2 `limit`. */
static struct ising_job ising_on(struct graph graph, int32_t limit) {
    struct ising_job job = {.graph = graph, .seed = random_u64(), .stream = 0, .first_sweep = 1};
    job.weight = NEW(int32_t, 2 * graph.n_edges);
    job.field = NEW(int32_t, graph.n);
    int32_t *edge_weight = NEW(int32_t, graph.n_edges);
    for (int32_t e = 0; e < graph.n_edges; e++) {
        edge_weight[e] = random_int(-limit, limit);
    }
    for (int64_t k = 0; k < 2 * graph.n_edges; k++) {
        job.weight[k] = edge_weight[graph.row_edge[k]];
    }
    for (int32_t p = 0; p < graph.n; p++) {
        job.field[p] = random_int(-2 * limit, 2 * limit);
    }
    free(edge_weight);
    job.program = (glb_ising){.n_sites = graph.n,
                              .n_colours = graph.n_colours,
                              .colour_start = graph.colour_start,
                              .site = graph.site,
                              .row_start = graph.row_start,
                              .neighbour = graph.neighbour,
                              .weight = job.weight,
                              .field = job.field,
                              .n_edges = graph.n_edges,
                              .edge = graph.edge};
    return job;
}

/* Runs the chains first .. first + n - 1 as a shard, in one or two parts, and compares every bit with the oracle. */
static void ising_shard(const struct ising_job *job, int first, int n, int isa, int threads, int parts) {
    const struct graph *g = &job->graph;
    int64_t bytes = bytes_of(job);
    int64_t sum = 0;
    int wrong = 0;
    glb_run run = {.seed = job->seed,
                   .stream = job->stream,
                   .layout = job->layout,
                   .n_chains = n,
                   .first_chain = (uint32_t)first,
                   .b = job->b,
                   .n_b = job->n_b,
                   .n_threads = threads,
                   .isa = isa};
    int64_t row = glb_ising_lanes(&job->program, &run);
    int replica = job->layout == GLB_REPLICA_PLANES;
    int64_t lanes = row * (replica ? g->n : n);
    int32_t *chain_field = NEW(int32_t, lanes);
    int8_t *clamp = NEW(int8_t, lanes);
    int8_t *state = NEW(int8_t, lanes);
    uint8_t *samples = NEW(uint8_t, n * SAMPLES * bytes);
    uint8_t *packed = NEW(uint8_t, n * bytes);
    int64_t *site_sum = NEW(int64_t, g->n * n);
    int64_t *edge_sum = NEW(int64_t, g->n_edges * n);
    for (int chain = 0; chain < n; chain++) {
        for (int32_t p = 0; p < g->n; p++) {
            int64_t at = replica ? row * p + first % 32 + chain : row * chain + p;
            int64_t from = (int64_t)(first + chain) * g->n + p;
            chain_field[at] = job->chain_field != NULL ? job->chain_field[from] : 0;
            clamp[at] = job->clamp != NULL ? job->clamp[from] : 0;
        }
    }
    run.chain_field = job->chain_field != NULL ? chain_field : NULL;
    run.clamp = job->clamp != NULL ? clamp : NULL;
    int rc = glb_ising_check_run(&job->program, &run, &sum);
    uint8_t *scratch = NEW(uint8_t, glb_ising_scratch(&job->program, &run, sum));
    rc |= glb_ising_start(&job->program, &run, job->packed == NULL ? NULL : job->packed + bytes * first, state);
    glb_output output = {.every = EVERY,
                         .samples = samples,
                         .n_samples = SAMPLES,
                         .site_sum = site_sum,
                         .edge_sum = edge_sum};
    if (parts == 1) {
        rc |= glb_ising_sweep(&job->program, &run, sum, state, scratch, job->first_sweep, SWEEPS, &output);
    } else {
        /* The first part ends on a sample; the second starts from its packed state with fresh working memory. */
        enum { DONE = 2 * EVERY };
        uint8_t *early = NEW(uint8_t, n * (DONE / EVERY) * bytes);
        uint8_t *late = NEW(uint8_t, n * (SAMPLES - DONE / EVERY) * bytes);
        output.samples = early;
        output.n_samples = DONE / EVERY;
        rc |= glb_ising_sweep(&job->program, &run, sum, state, scratch, job->first_sweep, DONE, &output);
        rc |= glb_ising_pack(&job->program, &run, state, packed);
        memset(state, 77, (size_t)lanes);
        memset(scratch, 0xA5, (size_t)glb_ising_scratch(&job->program, &run, sum));
        rc |= glb_ising_start(&job->program, &run, packed, state);
        output.samples = late;
        output.n_samples = SAMPLES - DONE / EVERY;
        rc |= glb_ising_sweep(&job->program, &run, sum, state, scratch, job->first_sweep + DONE, SWEEPS - DONE,
                              &output);
        for (int chain = 0; chain < n; chain++) {
            memcpy(samples + chain * SAMPLES * bytes, early + chain * (DONE / EVERY) * bytes,
                   (size_t)(DONE / EVERY * bytes));
            memcpy(samples + (chain * SAMPLES + DONE / EVERY) * bytes, late + chain * (SAMPLES - DONE / EVERY) * bytes,
                   (size_t)((SAMPLES - DONE / EVERY) * bytes));
        }
        free(early);
        free(late);
    }
    rc |= glb_ising_pack(&job->program, &run, state, packed);
    CHECK(rc == GLB_OK, "an Ising shard was refused: %d", rc);
    wrong |= memcmp(samples, job->samples + first * SAMPLES * bytes, (size_t)(n * SAMPLES * bytes)) != 0 ? 1 : 0;
    for (int chain = 0; chain < n; chain++) {
        int64_t whole = first + chain;
        uint8_t *expected = NEW(uint8_t, bytes);
        for (int32_t p = 0; p < g->n; p++) {
            int64_t at = replica ? row * p + first % 32 + chain : row * chain + p;
            wrong |= state[at] != job->last[whole * g->n + p] ? 2 : 0;
            wrong |= site_sum[(int64_t)p * n + chain] != job->site_sum[whole * g->n + p] ? 4 : 0; /* p as a site */
            expected[g->site[p] / 8] |= (uint8_t)((job->last[whole * g->n + p] > 0) << g->site[p] % 8);
        }
        for (int32_t e = 0; e < g->n_edges; e++) {
            wrong |= edge_sum[(int64_t)e * n + chain] != job->edge_sum[whole * g->n_edges + e] ? 8 : 0;
        }
        wrong |= memcmp(packed + bytes * chain, expected, (size_t)bytes) != 0 ? 16 : 0;
        free(expected);
    }
    CHECK(wrong == 0,
          "Ising, %d sites, layout %d, chains %d + %d, isa %d, %d threads, %d parts: wrong are%s%s%s%s%s", (int)g->n,
          (int)job->layout, first, n, isa, threads, parts, wrong & 1 ? " samples" : "", wrong & 2 ? " last" : "",
          wrong & 4 ? " site sums" : "", wrong & 8 ? " edge sums" : "", wrong & 16 ? " packing" : "");
    free(chain_field);
    free(clamp);
    free(state);
    free(samples);
    free(packed);
    free(site_sum);
    free(edge_sum);
    free(scratch);
}

/* The whole job and shards of it, on every instruction set and 1 to 3 threads. */
static void ising_everywhere(const struct ising_job *job) {
    static const int shards[][2] = {{0, CHAINS}, {0, 1}, {31, 3}, {37, 30}, {33, 38}};
    for (int isa = 0; isa <= glb_isa_best(); isa++) {
        for (int threads = 1; threads <= 3; threads++) {
            for (size_t i = 0; i < sizeof shards / sizeof shards[0]; i++) {
                ising_shard(job, shards[i][0], shards[i][1], isa, threads, 1 + (int)((i + (size_t)threads) % 2));
            }
        }
    }
}

static void test_ising_runs(void) {
    /* sites, colours, edges, largest weight (20000 takes the 32-bit fields), with fields, clamps, start of one's own,
     * one b per sweep, first sweep, stream: sweep 2^32 - 4 carries into the key within the run */
    static const struct {
        int32_t n, colours, edges, limit;
        int fields, clamps, start, anneal;
        uint64_t first_sweep;
        uint32_t stream;
    } cases[] = {
        {45, 3, 110, 6, 0, 0, 0, 1, 1, 0},
        {45, 4, 90, 6, 1, 1, 1, 0, 1, 3},
        {45, 3, 110, 20000, 1, 1, 0, 1, 1, 0},
        {45, 2, 60, 20000, 0, 1, 1, 0, (UINT64_C(1) << 32) - 4, 0},
        {2, 2, 1, 3, 1, 0, 1, 1, 1, 0},
        {1, 1, 0, 3, 0, 0, 0, 0, 1, 0},
        {66, 1, 0, 30000, 1, 1, 0, 0, 1, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int32_t layout = 0; layout < 2; layout++) {
            int32_t n = cases[i].n;
            int32_t limit = cases[i].limit;
            struct ising_job job = ising_on(make_graph(n, cases[i].colours, cases[i].edges), limit);
            job.layout = layout;
            job.n_chains = CHAINS;
            job.first_sweep = cases[i].first_sweep;
            job.stream = cases[i].stream;
            job.n_b = cases[i].anneal ? SWEEPS : 1;
            job.b = NEW(uint64_t, job.n_b);
            for (int64_t k = 0; k < job.n_b; k++) { /* two sweeps in a row share a b: the table stays */
                job.b[k] = (UINT64_C(1) << 32) / (uint64_t)limit * (uint64_t)(k / 2 + 1) / 3;
            }
            job.chain_field = cases[i].fields ? NEW(int32_t, CHAINS * n) : NULL;
            job.clamp = cases[i].clamps ? NEW(int8_t, CHAINS * n) : NULL;
            job.packed = cases[i].start ? NEW(uint8_t, CHAINS * bytes_of(&job)) : NULL;
            for (int32_t k = 0; k < CHAINS * n; k++) {
                if (job.chain_field != NULL) {
                    job.chain_field[k] = random_int(-3 * limit, 3 * limit);
                }
                if (job.clamp != NULL && random_int(0, 3) == 0) {
                    job.clamp[k] = (int8_t)(2 * random_int(0, 1) - 1);
                }
            }
            for (int64_t k = 0; job.packed != NULL && k < CHAINS * bytes_of(&job); k++) {
                job.packed[k] = (uint8_t)random_u64();
            }
            ising_oracle(&job);
            ising_everywhere(&job);
            free_ising(&job);
        }
    }
}

/* Every threshold equal to the lane's random word, or one above it: all 32 planes must be compared. With b = 4 a step
 * of the field moves T by at most 0.7 units, so for a u in the middle of its range there is a field that fits. */
static void test_forced_ties(void) {
    for (int32_t layout = 0; layout < 2; layout++) {
        enum { SITES = 40 };
        struct ising_job job = ising_on(make_graph(SITES, 1, 0), 1);
        int forced = 0;
        job.layout = layout;
        job.n_chains = CHAINS;
        job.n_b = 1;
        job.b = NEW(uint64_t, 1);
        job.b[0] = 4;
        job.chain_field = NEW(int32_t, CHAINS * SITES);
        for (uint32_t chain = 0; chain < CHAINS; chain++) {
            for (uint32_t p = 0; p < SITES; p++) {
                /* the decision of the last sweep, SWEEPS - 1 sweeps after the first */
                uint32_t u = oracle_u(job.seed, GLB_DECISION, layout, 0, p, SWEEPS, chain);
                uint32_t wanted = u + (chain + p) % 2;
                int32_t low = -(1 << 30) + 1;
                int32_t high = (1 << 30) - 1;
                while (high - low > 1) {
                    int32_t middle = low + (high - low) / 2;
                    *(glb_test_threshold(middle, 4) < wanted ? &low : &high) = middle;
                }
                /* T is not monotone by a unit or two, so look around */
                for (int32_t h = low > -(1 << 30) + 9 ? low - 8 : low; h < low + 16 && h < 1 << 30; h++) {
                    if (glb_test_threshold(h, 4) == wanted) {
                        low = h;
                        forced++;
                        break;
                    }
                }
                job.chain_field[chain * SITES + p] = low;
            }
        }
        CHECK(forced > CHAINS * SITES / 5, "only %d of %d decisions could be made ties", forced, CHAINS * SITES);
        ising_oracle(&job);
        ising_everywhere(&job);
        free_ising(&job);
    }
}

/* ------------------------------------------------------------------ Potts */

enum { POTTS_CHAINS = 9 };

struct potts_job {
    struct graph graph;
    glb_potts program;
    int32_t *weight, *table, *field;
    int64_t *table_start;
    uint8_t *allowed;
    uint64_t seed, first_sweep, *b;
    int64_t n_b;
    int32_t *chain_field, *clamp, *initial; /* or NULL */
    int32_t *last;                          /* [chain][position] */
    int32_t *samples;                       /* [chain][sample][site] */
    int64_t *counts;                        /* [chain][site][state] */
};

/* floor(u * total / 2^32), with the compiler's 128 bits where it has them. */
static uint64_t oracle_target(uint32_t u, uint64_t total) {
#ifdef __SIZEOF_INT128__
    __extension__ typedef unsigned __int128 wide;
    return (uint64_t)((wide)u * total >> 32);
#else
    return (uint64_t)u * (total >> 32) + ((uint64_t)u * (total & 0xFFFFFFFFu) >> 32);
#endif
}

static uint32_t oracle_word(uint64_t seed, uint32_t purpose, uint32_t position, uint64_t sweep, uint32_t chain) {
    const uint32_t key[4] = {(uint32_t)seed, (uint32_t)(seed >> 32), purpose, (uint32_t)(sweep >> 32)};
    const uint32_t counter[4] = {position / 4, (uint32_t)sweep, chain, 0};
    uint32_t word[4];
    glb_test_threefry(key, counter, word);
    return word[position % 4];
}

/* Inclusive sums of the states' weights, section 9; returns the last. `allowed` is the site's row, or NULL. */
static uint64_t oracle_sums(int32_t q, const uint8_t *allowed, const int64_t *field, uint64_t b, uint64_t *sums) {
    int64_t best = INT64_MIN;
    uint64_t total = 0;
    uint32_t bits = 0;
    while ((1 << bits) < q) {
        bits++;
    }
    for (int32_t k = 0; k < q; k++) {
        best = (allowed == NULL || allowed[k]) && field[k] > best ? field[k] : best;
    }
    for (int32_t k = 0; k < q; k++) {
        if (allowed == NULL || allowed[k]) {
            uint64_t gap = (uint64_t)(best - field[k]);
            uint64_t x = b > 0 && gap > GLB_X_MAX / b ? GLB_X_MAX : gap * b;
            total += glb_test_exp2(x) >> (q <= 64 ? 31 + bits : bits);
        }
        sums[k] = total;
    }
    return total;
}

static void potts_oracle(struct potts_job *job) {
    const struct graph *g = &job->graph;
    int32_t q = job->program.n_states;
    int64_t *field = NEW(int64_t, q);
    uint64_t *sums = NEW(uint64_t, q);
    job->last = NEW(int32_t, POTTS_CHAINS * g->n);
    job->samples = NEW(int32_t, POTTS_CHAINS * SAMPLES * g->n);
    job->counts = NEW(int64_t, POTTS_CHAINS * g->n * q);
    for (int chain = 0; chain < POTTS_CHAINS; chain++) {
        int32_t *s = job->last + (int64_t)chain * g->n;
        const int32_t *clamp = job->clamp == NULL ? NULL : job->clamp + (int64_t)chain * g->n;
        for (int32_t p = 0; p < g->n; p++) { /* the start: the k-th allowed state */
            uint64_t n_allowed = 0;
            for (int32_t k = 0; k < q; k++) {
                n_allowed += job->allowed == NULL || job->allowed[p * q + k];
            }
            uint64_t skip = (oracle_word(job->seed, GLB_START, (uint32_t)p, 0, (uint32_t)chain) * n_allowed) >> 32;
            for (int32_t k = 0; k < q; k++) {
                if (job->allowed == NULL || job->allowed[p * q + k]) {
                    if (skip-- == 0) {
                        s[p] = k;
                        break;
                    }
                }
            }
            s[p] = job->initial != NULL ? job->initial[chain * g->n + p] : s[p];
            s[p] = clamp != NULL && clamp[p] >= 0 ? clamp[p] : s[p];
        }
        for (int i = 0; i < SWEEPS; i++) {
            uint64_t sweep = job->first_sweep + (uint64_t)i;
            uint64_t b = job->b[sweep <= (uint64_t)job->n_b ? sweep - 1 : (uint64_t)job->n_b - 1];
            for (int32_t p = 0; p < g->n; p++) {
                int32_t state = 0;
                if (clamp != NULL && clamp[p] >= 0) {
                    continue;
                }
                for (int32_t k = 0; k < q; k++) {
                    field[k] = job->chain_field != NULL ? job->chain_field[((int64_t)chain * g->n + p) * q + k]
                                                        : job->field[p * q + k];
                    for (int64_t r = g->row_start[p]; r < g->row_start[p + 1]; r++) {
                        int32_t other = s[g->neighbour[r]];
                        field[k] += job->weight != NULL ? (other == k ? job->weight[r] : 0)
                                                        : job->table[job->table_start[r] + other * q + k];
                    }
                }
                uint64_t total = oracle_sums(q, job->allowed == NULL ? NULL : job->allowed + p * q, field, b, sums);
                uint32_t u = oracle_word(job->seed, GLB_CATEGORICAL, (uint32_t)p, sweep, (uint32_t)chain);
                for (int32_t k = 0; k < q; k++) {
                    state += sums[k] <= oracle_target(u, total);
                }
                s[p] = state;
            }
            for (int32_t p = 0; (i + 1) % EVERY == 0 && p < g->n; p++) {
                job->samples[((int64_t)chain * SAMPLES + (i + 1) / EVERY - 1) * g->n + g->site[p]] = s[p];
                job->counts[((int64_t)chain * g->n + g->site[p]) * q + s[p]]++;
            }
        }
    }
    free(field);
    free(sums);
}

static void potts_shard(const struct potts_job *job, int first, int n, int threads, int parts) {
    const struct graph *g = &job->graph;
    int32_t q = job->program.n_states;
    int wrong = 0;
    glb_run run = {.seed = job->seed,
                   .n_chains = n,
                   .first_chain = (uint32_t)first,
                   .b = job->b,
                   .n_b = job->n_b,
                   .chain_field = job->chain_field == NULL ? NULL : job->chain_field + (int64_t)first * g->n * q,
                   .potts_clamp = job->clamp == NULL ? NULL : job->clamp + (int64_t)first * g->n,
                   .n_threads = threads};
    int32_t *state = NEW(int32_t, n * g->n);
    int32_t *samples = NEW(int32_t, n * SAMPLES * g->n);
    int64_t *counts = NEW(int64_t, n * g->n * q);
    uint8_t *scratch = NEW(uint8_t, glb_potts_scratch(&job->program, &run));
    glb_output output = {.every = EVERY, .n_samples = SAMPLES, .site_sum = counts};
    int64_t sum;
    int rc = glb_potts_check(&job->program, &sum);
    rc |= glb_potts_check_run(&job->program, &run);
    rc |= glb_potts_start(&job->program, &run, job->initial == NULL ? NULL : job->initial + first * g->n, state);
    if (parts == 1) {
        rc |= glb_potts_sweep(&job->program, &run, state, scratch, job->first_sweep, SWEEPS, &output, samples);
    } else {
        for (int done = 0; done < SWEEPS; done += EVERY) { /* a part a sample, and a last one without any */
            int32_t *part = NEW(int32_t, n * g->n);
            int count = SWEEPS - done < EVERY ? SWEEPS - done : EVERY;
            output.n_samples = 1;
            rc |= glb_potts_sweep(&job->program, &run, state, scratch, job->first_sweep + (uint64_t)done, count,
                                  &output, part);
            for (int chain = 0; count == EVERY && chain < n; chain++) {
                memcpy(samples + ((int64_t)chain * SAMPLES + done / EVERY) * g->n, part + chain * g->n,
                       (size_t)g->n * sizeof(int32_t));
            }
            free(part);
        }
    }
    CHECK(rc == GLB_OK, "a Potts shard was refused: %d", rc);
    wrong |= memcmp(state, job->last + first * g->n, (size_t)(n * g->n) * sizeof(int32_t)) != 0 ? 1 : 0;
    wrong |= memcmp(samples, job->samples + first * SAMPLES * g->n, (size_t)(n * SAMPLES * g->n) * sizeof(int32_t)) != 0
                 ? 2
                 : 0;
    wrong |= memcmp(counts, job->counts + first * g->n * q, (size_t)(n * g->n * q) * sizeof(int64_t)) != 0 ? 4 : 0;
    CHECK(wrong == 0, "Potts, q = %d, %s, chains %d + %d, %d threads, %d parts: wrong are%s%s%s", (int)q,
          job->table != NULL ? "tables" : "weights", first, n, threads, parts, wrong & 1 ? " last" : "",
          wrong & 2 ? " samples" : "", wrong & 4 ? " counts" : "");
    free(state);
    free(samples);
    free(counts);
    free(scratch);
}

static glb_potts potts_program(const struct potts_job *job, int32_t q) {
    return (glb_potts){.n_sites = job->graph.n,
                       .n_states = q,
                       .n_colours = job->graph.n_colours,
                       .colour_start = job->graph.colour_start,
                       .site = job->graph.site,
                       .row_start = job->graph.row_start,
                       .neighbour = job->graph.neighbour,
                       .weight = job->weight,
                       .table_start = job->table_start,
                       .table = job->table,
                       .table_size = job->table == NULL ? 0 : 2 * (int64_t)job->graph.n_edges * q * q,
                       .field = job->field,
                       .allowed = job->allowed};
}

static void free_potts(struct potts_job *job) {
    free_graph(&job->graph);
    free(job->weight);
    free(job->table);
    free(job->table_start);
    free(job->field);
    free(job->allowed);
    free(job->b);
    free(job->chain_field);
    free(job->clamp);
    free(job->initial);
    free(job->last);
    free(job->samples);
    free(job->counts);
}

static void test_potts_runs(void) {
    static const struct {
        int32_t n, q, colours, edges, limit;
        int tables, mask, fields, clamps, start, anneal;
    } cases[] = {
        {10, 3, 3, 18, 50, 0, 0, 0, 0, 0, 1}, {10, 3, 3, 18, 50, 1, 1, 0, 1, 1, 0}, {6, 70, 2, 8, 40, 0, 1, 1, 0, 0, 0},
        {6, 70, 2, 8, 40, 1, 0, 0, 1, 1, 1},  {5, 64, 2, 5, 40, 0, 0, 0, 0, 0, 0},  {5, 65, 2, 5, 40, 0, 0, 0, 0, 0, 0},
        {6, 2, 1, 0, 900, 0, 0, 1, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int32_t n = cases[i].n;
        int32_t q = cases[i].q;
        int32_t limit = cases[i].limit;
        struct potts_job job = {.graph = make_graph(n, cases[i].colours, cases[i].edges), .first_sweep = 1};
        int64_t entries = 2 * (int64_t)job.graph.n_edges;
        job.seed = random_u64();
        job.n_b = cases[i].anneal ? SWEEPS : 1;
        job.b = NEW(uint64_t, job.n_b);
        for (int64_t k = 0; k < job.n_b; k++) {
            job.b[k] = (UINT64_C(1) << 32) / (uint64_t)limit * (uint64_t)(k + 1) / 2;
        }
        if (cases[i].tables) {
            /* one table per row entry, and one of an edge's two is the transpose of the other */
            job.table = NEW(int32_t, entries * q * q);
            job.table_start = NEW(int64_t, entries);
            for (int64_t k = 0; k < entries * q * q; k++) {
                job.table[k] = random_int(-limit, limit);
            }
            for (int64_t k = 0; k < entries; k++) {
                job.table_start[k] = (entries - 1 - k) * q * q;
            }
        } else if (entries > 0) {
            job.weight = NEW(int32_t, entries);
            for (int64_t k = 0; k < entries; k++) {
                job.weight[k] = random_int(-limit, limit);
            }
        }
        job.field = NEW(int32_t, n * q);
        for (int32_t k = 0; k < n * q; k++) {
            job.field[k] = random_int(-limit, limit);
        }
        if (cases[i].mask) {
            job.allowed = NEW(uint8_t, n * q);
            for (int32_t k = 0; k < n * q; k++) {
                job.allowed[k] = k % q == k / q % q || random_int(0, 1);
            }
        }
        job.chain_field = cases[i].fields ? NEW(int32_t, POTTS_CHAINS * n * q) : NULL;
        for (int32_t k = 0; job.chain_field != NULL && k < POTTS_CHAINS * n * q; k++) {
            job.chain_field[k] = random_int(-3 * limit, 3 * limit);
        }
        job.clamp = cases[i].clamps ? NEW(int32_t, POTTS_CHAINS * n) : NULL;
        job.initial = cases[i].start ? NEW(int32_t, POTTS_CHAINS * n) : NULL;
        for (int32_t k = 0; k < POTTS_CHAINS * n; k++) {
            int32_t state = k % n % q; /* always allowed, see above */
            if (job.clamp != NULL) {
                job.clamp[k] = random_int(0, 3) == 0 ? state : -1;
            }
            if (job.initial != NULL) {
                job.initial[k] = state;
            }
        }
        job.program = potts_program(&job, q);
        potts_oracle(&job);
        for (int threads = 1; threads <= 3; threads++) {
            for (int parts = 1; parts <= 2; parts++) {
                potts_shard(&job, 0, POTTS_CHAINS, threads, parts);
                potts_shard(&job, 2, 1, threads, parts);
                potts_shard(&job, 3, 5, threads, parts);
            }
        }
        free_potts(&job);
    }
}

/* Two allowed states whose border lies as close to the draw as a field can bring it: on it exactly for q <= 64, where
 * the lower state must lose. A state that is not allowed has the largest field of all, and must not count. */
static void test_potts_ties(void) {
    static const int32_t sizes[] = {3, 64, 65, 300};
    for (int i = 0; i < 4; i++) {
        enum { SITES = 40 };
        int32_t q = sizes[i];
        int exact = 0;
        struct potts_job job = {.graph = make_graph(SITES, 1, 0), .seed = random_u64(), .first_sweep = 1, .n_b = 1};
        int64_t *field = NEW(int64_t, q);
        uint64_t *sums = NEW(uint64_t, q);
        job.b = NEW(uint64_t, 1);
        job.b[0] = 4;
        job.field = NEW(int32_t, SITES * q);
        job.allowed = NEW(uint8_t, SITES * q);
        job.chain_field = NEW(int32_t, POTTS_CHAINS * SITES * q);
        for (int32_t k = 0; k < SITES * q; k++) {
            job.allowed[k] = k % q == 0 || k % q == q - 1;
        }
        for (int32_t at = 0; at < POTTS_CHAINS * SITES; at++) {
            uint32_t u = oracle_word(job.seed, GLB_CATEGORICAL, (uint32_t)(at % SITES), SWEEPS, (uint32_t)(at / SITES));
            int64_t low = -(1 << 30) + 1;
            int64_t high = (1 << 30) - 1;
            uint64_t target = 0;
            while (high - low > 1) { /* the last state's field; sums[0] is the border */
                field[q - 1] = (low + high) / 2;
                target = oracle_target(u, oracle_sums(q, job.allowed, field, 4, sums));
                *(target < sums[0] ? &low : &high) = field[q - 1];
            }
            for (int64_t h = high - 4; h <= high + 4; h++) {
                if (h <= -(1 << 30) || h >= 1 << 30) {
                    continue;
                }
                field[q - 1] = h;
                target = oracle_target(u, oracle_sums(q, job.allowed, field, 4, sums));
                if (target >= sums[0]) {
                    break;
                }
            }
            exact += target == sums[0];
            for (int32_t k = 0; k < q; k++) {
                job.chain_field[(int64_t)at * q + k] = k == 0 ? 0 : k == q - 1 ? (int32_t)field[k] : (1 << 30) - 1;
            }
        }
        CHECK(q > 64 || exact > POTTS_CHAINS * SITES / 8, "only %d of %d draws with %d states could be made ties",
              exact, POTTS_CHAINS * SITES, (int)q);
        job.program = potts_program(&job, q);
        potts_oracle(&job);
        potts_shard(&job, 0, POTTS_CHAINS, 1, 1);
        free_potts(&job);
        free(field);
        free(sums);
    }
}

/* The top of a Potts draw: the largest u must still find a state, and the long product must be exact. */
static void test_potts_target(void) {
    for (int i = 0; i < 10000; i++) {
        uint32_t u = i % 3 == 0 ? 0xFFFFFFFFu - (uint32_t)i / 3 : (uint32_t)random_u64();
        uint64_t total = 1 + random_u64() % (UINT64_C(1) << (1 + i % 63));
        uint64_t target = glb_potts_target(u, total);
        CHECK(target == oracle_target(u, total) && target < total, "target of u = %u, total = %llu", u,
              (unsigned long long)total);
    }
}

int main(void) {
    random_state = 20240229; /* any number; fixed, so that a failure comes again */
    test_threefry();
    test_threshold();
    test_ising_errors();
    test_potts_errors();
    test_ising_runs();
    test_forced_ties();
    test_potts_runs();
    test_potts_ties();
    test_potts_target();
    printf("%d checks, %d failures, instruction sets 0 to %d\n", checks, failures, glb_isa_best());
    return failures < 100 ? failures : 100; /* an exit status has eight bits */
}
