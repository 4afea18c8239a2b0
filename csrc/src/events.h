/* Asynchronous p-bits: a chain's updates in order of time (events.c). */
#ifndef GLAUBER_EVENTS_H
#define GLAUBER_EVENTS_H

#include "ising.h"

/* A run's memory beside its state, a share for each thread. */
typedef struct {
    const glb_ising *program;
    const glb_run *run;
    const glb_plan *plan;
    uint8_t *state;
    uint8_t *memory;
} glb_events;

/* Whether the run's clock is one, its flips on their way included. */
int glb_clock_check(const glb_ising *program, const glb_run *run);

/* What neighbours see, where that is another thing than the spins, and flips on their way; behind the spins. */
int64_t glb_events_state_bytes(const glb_run *run, const glb_plan *plan);
void glb_events_start(const glb_run *run, const glb_plan *plan, uint8_t *state);

int64_t glb_events_scratch_bytes(const glb_ising *program, const glb_run *run);
void glb_events_clear(const glb_events *events);

/* One sweep of the chains first .. last - 1. */
void glb_events_sweep(const glb_events *events, uint64_t sweep, uint64_t b, int32_t first, int32_t last, int thread);

/* Adds the threads' updates by site to `updates`, or says that there was no room for all. */
int glb_events_end(const glb_events *events, int64_t *updates);

#endif
