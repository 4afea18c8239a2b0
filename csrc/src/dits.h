/* A part of a run of p-dits (dits.c). */
#ifndef GLAUBER_DITS_H
#define GLAUBER_DITS_H

#include "glauber/contract.h"
#include "glauber/core.h"

typedef struct {
    const glb_potts *program;
    const glb_run *run;
    const glb_output *output;
    int32_t *state;
    uint8_t *scratch;
    int32_t *samples;
    uint64_t first_sweep;
    int64_t n_sweeps;
} glb_dits_job;

/* Sums are searched by blocks of this many. */
enum { GLB_DIT_BLOCK = 32 };

int glb_dits_fit(const glb_potts *program, const glb_run *run);
int64_t glb_dits_scratch(const glb_potts *program, const glb_run *run);
int glb_dits_sweep(const glb_dits_job *job);

#endif
