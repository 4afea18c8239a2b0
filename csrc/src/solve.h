/* What the parts of the solver share: presolve.c, lanes.c, crossover.c and the lanes' kernel (kernel_lanes.h). */
#ifndef GLAUBER_SOLVE_H
#define GLAUBER_SOLVE_H

#include "glauber/contract.h"
#include "glauber/core.h"

/* The fourth word of a counter says what the solver draws; the first three say for which site, sweep and lane. */
enum glb_draw {
    GLB_DRAW_STEP = 0,     /* uphill steps, 16 bits each */
    GLB_DRAW_START = 1,
    GLB_DRAW_EXCHANGE = 2,
    GLB_DRAW_LANE = 3,     /* which lane is harvested */
    GLB_DRAW_RESAMPLE = 4,
    GLB_DRAW_TIE = 5       /* whether a crossover takes a part that gains nothing */
};

/* A net of lanes: what each field starts from with all spins -1, then a term for each row entry. */
typedef struct {
    int32_t neighbour;
    uint32_t twice; /* 2 x weight, repeated in 8 or 16 bits where that is the gains' width */
} glb_lanes_term;

static inline int64_t glb_lanes_terms_at(const glb_graph *graph) {
    return ((int64_t)graph->n_sites * 4 + 63) / 64 * 64;
}

/* Dense graphs have rows of twice the weights of all sites in place of terms, and keep every lane's fields in the
 * scratch. It pays where a site has neighbours enough: adding up a field takes one operation for each of them, a flip one
 * for every site, but few flip. */
enum { GLB_MOST_DENSE = 4096 };

static inline int glb_lanes_are_dense(const glb_graph *graph, int width) {
    int64_t n = graph->n_sites;
    return width > 1 && n <= GLB_MOST_DENSE && 3 * graph->row_start[n] >= n * n;
}

/* Numbers in a row: whole vectors, and one more, so that rows of one site do not all fall into one line of the cache. */
static inline int64_t glb_lanes_stride(const glb_graph *graph, int width) {
    int64_t per_vector = 64 / width;
    return (graph->n_sites + per_vector - 1) / per_vector * per_vector + per_vector;
}

typedef struct {
    int32_t *made;   /* 0 at first */
    uint64_t *spins; /* that the fields belong to */
    uint8_t *fields; /* [lane][site] */
} glb_lanes_fields;

/* What else is in the scratch: crossover's numbers and states, or masks of lanes. */
static inline int64_t glb_lanes_fields_at(const glb_graph *graph, int width) {
    return (GLB_LANES * width * (int64_t)graph->n_sites + 63) / 64 * 64;
}

static inline glb_lanes_fields glb_lanes_fields_of(const glb_lanes *lanes, int width) {
    uint8_t *at = lanes->scratch + glb_lanes_fields_at(lanes->graph, width);
    int64_t spins = ((int64_t)lanes->graph->n_sites * 8 + 63) / 64 * 64;
    return (glb_lanes_fields){(int32_t *)(void *)at, (uint64_t *)(void *)(at + 64), at + 64 + spins};
}

/* One sweep of all lanes over all sites in order. energy is each lane's, doubled changes included. */
typedef void (*glb_lanes_kernel)(glb_lanes *lanes, int width);

/* Whether rows are sound, and the sums of all sites but one below the limit. */
int glb_check_sums(const glb_graph *graph, int32_t but);

/* Spins of one lane as -1 and +1. */
void glb_lane_spins(const glb_lanes *lanes, int lane, int8_t *spins);
void glb_lane_set(glb_lanes *lanes, int lane, const int8_t *spins, int64_t energy);

int64_t glb_energy_of(const glb_graph *graph, const int8_t *spins);

/* Flips spins as long as that lowers the energy; returns the energy. */
int64_t glb_descend(const glb_graph *graph, int8_t *spins, int64_t energy, int32_t *work);

/* Takes over into the best state each part of `other` that lowers its energy. `work` is 3 n numbers. */
void glb_cross(glb_lanes *lanes, const int8_t *other, int lane, int32_t *work);

/* A lane slid downhill becomes the best if it is better, else is crossed with it if `cross`. */
void glb_lane_harvest(glb_lanes *lanes, int lane, int cross);

#endif
