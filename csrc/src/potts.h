/* What a Potts run (potts.c), its plan (potts_plan.c), its vectors (potts_vectors.c) and its kernels (kernel_potts*.h,
 * once per instruction set) share. */
#ifndef GLAUBER_POTTS_H
#define GLAUBER_POTTS_H

#include "glauber/contract.h"
#include "glauber/core.h"

enum {
    GLB_POTTS_STATES = 16,  /* of the vector kernels, at most */
    GLB_POTTS_FEW = 16,     /* weights, at most, of a table in a register */
    GLB_POTTS_TABLE = 1024, /* and of any table */
    GLB_POTTS_PAD = 64      /* bytes before and behind the spins of a chain by sites: a vector's other positions */
};

enum glb_potts_form {
    GLB_POTTS_ONE_BY_ONE,
    GLB_POTTS_SITES,      /* a chain, V positions of a colour at once */
    GLB_POTTS_CHAINS,     /* V chains of a position at once */
    GLB_POTTS_SITE_BYTES, /* a chain, 4 V positions at once, of which those of one colour count */
    GLB_POTTS_CHAIN_BYTES /* 4 V chains of a position at once */
};

/* Positions of one colour that a vector takes together, for one chain. */
typedef struct {
    int32_t first;
    int32_t count;
    int32_t slots; /* largest number of neighbours */
    int32_t entry; /* where it begins: a vector of the program's fields for each state, then for each slot a vector of
                    * neighbours and one of weights or of where their tables begin */
} glb_potts_group;

/* 4 V positions from a multiple of four on, for one chain, with bytes for every one. */
typedef struct {
    int32_t start;
    int32_t n_distances; /* at which neighbours lie */
    int64_t distance;    /* the first of them */
    int64_t row;         /* the first of its vectors: all ones where the position is of this colour, fields below the
                          * position's largest for each state, and for each distance weights, 0 without an edge */
} glb_potts_byte_group;

typedef struct {
    int form;
    int V;
    int64_t n_weights;     /* gaps that fields can have, and one */
    int64_t n_table;       /* weights in a table: all, or none */
    int64_t n_groups;      /* of the form, where it is by sites */
    int64_t n_entries;     /* words of the groups */
    int64_t n_distances;   /* bytes: as many as pay, at most */
    int64_t row;           /* bytes: from one chain's spins to the next one's */
    int64_t entries;       /* where in the scratch, in bytes, behind the groups; or distances */
    int64_t rows;
    int64_t fields;
    int64_t spins;
    int64_t open;
    int64_t size;
} glb_potts_plan;

/* What glb_potts_sweep was called with, and how it is computed. */
typedef struct {
    const glb_potts *program;
    const glb_run *run;
    const glb_output *output;
    int32_t *state;
    uint8_t *scratch;
    int32_t *samples;
    uint64_t first_sweep;
    int64_t n_sweeps;
    glb_potts_plan plan;
} glb_potts_job;

/* DRAW(q) with a constant for few states, so that loops over states unroll. */
#define GLB_BY_STATES(n_states, DRAW)                                                                                  \
    switch (n_states) {                                                                                                \
    case 2:                                                                                                            \
        DRAW(2)                                                                                                        \
        break;                                                                                                         \
    case 3:                                                                                                            \
        DRAW(3)                                                                                                        \
        break;                                                                                                         \
    case 4:                                                                                                            \
        DRAW(4)                                                                                                        \
        break;                                                                                                         \
    case 5:                                                                                                            \
        DRAW(5)                                                                                                        \
        break;                                                                                                         \
    default:                                                                                                           \
        DRAW(n_states)                                                                                                 \
    }

/* What a kernel reads and writes. */
typedef struct {
    const glb_potts *program;
    const glb_run *run;
    int form;
    uint64_t b;              /* of this sweep */
    const uint32_t *weights; /* of a state by its gap to the best: 16 or more, of which n_table count */
    int64_t n_table;         /* 0: weights are made as they are needed */
    uint8_t *spins; /* but by sites */
    int32_t *state; /* by sites */
    const glb_potts_group *groups;
    const uint32_t *entries;
    int64_t n_groups;
    const glb_potts_byte_group *byte_groups; /* site bytes */
    const int32_t *distances;
    const uint8_t *rows;
    int64_t row;
    const int8_t *fields; /* chain bytes: below the position's largest, [position][state] */
    const uint8_t *open;  /* bytes: as spins, all ones where nothing is clamped; NULL where nothing is anywhere */
    uint64_t sweep;
} glb_potts_data;

typedef void (*glb_potts_kernel)(const glb_potts_data *data, int64_t begin, int64_t end);

/* How vectors compute a run; one by one where none does. without_site_bytes: where glb_potts_fill_bytes did not pay. */
glb_potts_plan glb_potts_plan_run(const glb_potts *program, const glb_run *run, int without_site_bytes);

/* What the form reads about the program, in the scratch. Returns 0 where it would have more distances than pay. */
int glb_potts_fill(const glb_potts *program, const glb_potts_plan *plan, uint8_t *scratch);

/* b of a sweep. */
uint64_t glb_potts_b(const glb_run *run, uint64_t sweep);

/* The state that u draws, by these fields of its states and exact weights; sum: room for as many numbers. */
int32_t glb_potts_draw(const glb_potts *program, int32_t position, const int64_t *field, uint64_t *sum, uint64_t b,
                       uint32_t u);

/* Counts and keeps the states of a chain's positions begin .. end - 1; `spin` begins with the first of them. */
void glb_potts_sample(const glb_potts_job *job, int64_t chain, const int32_t *spin, int32_t begin, int32_t end,
                      int64_t sample);

int glb_potts_sweep_in_vectors(const glb_potts_job *job);

#endif
