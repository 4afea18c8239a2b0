/* A part of a run of p-dits (dits.c). */
#ifndef GLAUBER_DITS_H
#define GLAUBER_DITS_H

#include "potts.h"

/* Sums are searched by blocks of this many. */
enum { GLB_DIT_BLOCK = 32 };

int glb_dits_fit(const glb_potts *program, const glb_run *run);
int64_t glb_dits_scratch(const glb_potts *program, const glb_run *run);
int glb_dits_sweep(const glb_potts_job *job);

#endif
