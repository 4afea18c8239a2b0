/* What happens to whole chains between sweeps: exchanges of tempering (moves.c). */
#ifndef GLAUBER_MOVES_H
#define GLAUBER_MOVES_H

#include "ising.h"
#include "parallel.h"

/* Working memory; glb_moves_bytes of it, cut by glb_moves_in. */
typedef struct {
    glb_heat *heat;        /* tempering: of each temperature */
    int32_t *heat_of_lane; /* tempering, exact kernel: which of them, by lane; padding lanes have the last */
    int64_t *energy;       /* by lane (replica planes) or chain, in steps */
    uint32_t *mask;        /* by lane or chain: exchanges with the chain n_ladders after it */
} glb_moves;

/* 0 for a run without moves. */
int64_t glb_moves_bytes(const glb_run *run, const glb_plan *plan);
glb_moves glb_moves_in(const glb_run *run, const glb_plan *plan, uint8_t *memory);

/* All temperatures of a tempered run, made once for all its sweeps. */
void glb_fill_heats(const glb_run *run, const glb_plan *plan, const uint8_t *net, glb_moves *moves);

/* The exchanges after a sweep, by all threads of a team together. */
void glb_exchange(const glb_ising *program, const glb_run *run, const glb_plan *plan, const glb_output *output,
                  const glb_moves *moves, uint8_t *state, uint64_t sweep, glb_team *team, int thread);

#endif
