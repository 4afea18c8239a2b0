/* What happens to whole chains between sweeps: exchanges of tempering, and resampling of a population (moves.c). */
#ifndef GLAUBER_MOVES_H
#define GLAUBER_MOVES_H

#include "ising.h"
#include "parallel.h"

/* A run's moves and their working memory. */
typedef struct {
    const glb_ising *program;
    const glb_run *run;
    const glb_plan *plan;
    const glb_output *output;
    uint8_t *state;
    int64_t moves_before;  /* moves before the first sweep of the call */
    glb_heat *heat;        /* tempering: of each temperature */
    int32_t *heat_of_lane; /* tempering, exact kernel: which of them, by lane; padding lanes have the last */
    uint32_t *mask;        /* tempering: a bit for each chain that exchanges with the chain n_ladders after it */
    int64_t *energy;       /* by chain, in steps */
    int32_t *source;       /* resampling: the parent of each chain */
    int32_t *family;       /* resampling: the new families */
    uint8_t *packed;       /* resampling: the states as they were */
} glb_moves;

/* 0 for a run without moves. */
int64_t glb_moves_bytes(const glb_ising *program, const glb_run *run, const glb_plan *plan);
glb_moves glb_moves_in(const glb_ising *program, const glb_run *run, const glb_plan *plan, uint8_t *memory);

/* All temperatures of a tempered run, made once for all its sweeps. */
void glb_fill_heats(const glb_moves *moves, const uint8_t *net);

/* The exchanges, or the resampling, after a sweep, by all threads of a team together. */
void glb_exchange(const glb_moves *moves, uint64_t sweep, glb_team *team, int thread);
void glb_resample(const glb_moves *moves, uint64_t sweep, glb_team *team, int thread);

#endif
