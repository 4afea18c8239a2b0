/* Sums over kept sweeps of a run (moments.c). */
#ifndef GLAUBER_MOMENTS_H
#define GLAUBER_MOMENTS_H

#include "ising.h"

/* Units (blocks of chains, or chains) first .. last - 1, of whose words thread `thread` of `n_threads` takes its share. */
typedef struct {
    int32_t first;
    int32_t last;
    int thread;
    int n_threads;
} glb_share;

/* What is summed, and where. */
typedef struct {
    const glb_ising *program;
    const glb_run *run;
    const glb_plan *plan;
    const glb_output *output;
    const uint8_t *state;
    const glb_kernels *kernels;
} glb_moments;

/* Keeps the present state as number `kept`, 0 .. 63. */
void glb_moments_keep(const glb_moments *moments, const glb_share *share, int kept);

/* Histories of the states kept; then, when all threads have done this, adding them up. */
void glb_moments_turn(const glb_moments *moments, const glb_share *share, int kept);
void glb_moments_add(const glb_moments *moments, const glb_share *share, int kept);

#endif
