#define _POSIX_C_SOURCE 200112L /* posix_memalign */
#include "testing.h"

#include <stdarg.h>

int checks = 0;
int failures = 0;

void check_at(const char *file, int line, int ok, const char *format, ...) {
    va_list arguments;
    checks++;
    if (ok) {
        return;
    }
    failures++;
    printf("%s:%d: ", file, line);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

void *allocate(size_t count, size_t size) {
    void *memory = calloc(count > 0 ? count : 1, size);
    if (memory == NULL) {
        printf("out of memory\n");
        exit(99);
    }
    return memory;
}

uint8_t *allocate_aligned(int64_t size) {
    void *memory = NULL;
    if (size < 0 || posix_memalign(&memory, 64, size > 0 ? (size_t)size : 1) != 0) {
        printf("no memory of %lld bytes\n", (long long)size);
        exit(99);
    }
    memset(memory, 0xA5, size > 0 ? (size_t)size : 1); /* nobody may count on zeros */
    return memory;
}

static uint64_t random_state;

void random_start(uint64_t state) { random_state = state; }

uint64_t random_u64(void) {
    uint64_t z = (random_state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

int32_t random_int(int32_t low, int32_t high) {
    return (int32_t)(low + (int64_t)(random_u64() % (uint64_t)((int64_t)high - low + 1)));
}

/* Edges between positions of one or two distances for each pair of colours, as a lattice in colour order has them. */
static void choose_near(struct graph *g, const int32_t *colour) {
    int32_t room = g->n_edges;
    g->n_edges = 0;
    for (int32_t a = 0; a < g->n; a++) {
        for (int32_t c = colour[a] + 1; c < g->n_colours; c++) {
            for (int32_t step = 0; step <= 1; step++) {
                int32_t b = a - g->colour_start[colour[a]] + g->colour_start[c] + step * (1 + colour[a]);
                if (b < g->colour_start[c + 1] && g->n_edges < room) {
                    g->edge[2 * g->n_edges] = a;
                    g->edge[2 * g->n_edges++ + 1] = b;
                }
            }
        }
    }
}

static void choose_anywhere(struct graph *g, const int32_t *colour) {
    for (int32_t e = 0; e < g->n_edges; e++) {
        int32_t a, b;
        int twice;
        do {
            a = random_int(0, g->n - 1);
            b = random_int(0, g->n - 1);
            twice = 0;
            for (int32_t k = 0; k < e; k++) {
                const int32_t *edge = g->edge + 2 * k;
                twice |= (edge[0] == a && edge[1] == b) || (edge[0] == b && edge[1] == a);
            }
        } while (colour[a] == colour[b] || twice);
        g->edge[2 * e] = a;
        g->edge[2 * e + 1] = b;
    }
}

static struct graph make(int32_t n, int32_t n_colours, int32_t n_edges,
                         void (*choose)(struct graph *g, const int32_t *colour)) {
    struct graph g = {.n = n, .n_colours = n_colours, .n_edges = n_colours > 1 ? n_edges : 0};
    g.colour_start = NEW(int32_t, n_colours + 1);
    g.site = NEW(int32_t, n);
    g.position = NEW(int32_t, n);
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
        g.position[g.site[p]] = p;
    }
    choose(&g, colour);
    for (int32_t e = 0; e < 2 * g.n_edges; e++) {
        g.row_start[g.edge[e] + 1]++;
    }
    for (int32_t p = 0; p < n; p++) {
        g.row_start[p + 1] += g.row_start[p];
    }
    for (int32_t e = 0; e < 2 * g.n_edges; e++) {
        int32_t own = g.edge[e];
        int64_t at = g.row_start[own] + fill[own]++;
        for (; at > g.row_start[own] && g.neighbour[at - 1] > g.edge[e ^ 1]; at--) { /* rows ascend */
            g.neighbour[at] = g.neighbour[at - 1];
            g.row_edge[at] = g.row_edge[at - 1];
        }
        g.neighbour[at] = g.edge[e ^ 1];
        g.row_edge[at] = e / 2;
    }
    free(colour);
    free(fill);
    return g;
}

struct graph make_graph(int32_t n, int32_t n_colours, int32_t n_edges) {
    return make(n, n_colours, n_edges, choose_anywhere);
}

struct graph make_near_graph(int32_t n, int32_t n_colours, int32_t n_edges) {
    return make(n, n_colours, n_edges, choose_near);
}

void free_graph(struct graph *g) {
    free(g->colour_start);
    free(g->site);
    free(g->position);
    free(g->edge);
    free(g->row_start);
    free(g->neighbour);
    free(g->row_edge);
}
