/* What the Ising driver (ising.c) and the kernels (ising_kernel.h, one object per instruction set) share. */
#ifndef GLAUBER_ISING_H
#define GLAUBER_ISING_H

#include "glauber/contract.h"
#include "glauber/core.h"

/* A sweep's constants, and where a kernel finds its data. A "word" is 32 lanes that are decided together. */
typedef struct {
    const glb_ising *program;
    const glb_run *run;
    int8_t *state;
    const uint32_t *free;  /* a bit per lane, by word: clear when the lane is clamped or padding */
    const uint32_t *table; /* thresholds of the fields -sum .. sum, or NULL to compute each */
    int64_t row;           /* lanes per row of the state */
    int64_t sum;           /* bound on |field| */
    uint64_t b;
    uint64_t sweep;
} glb_ising_sweep_data;

/* Updates the positions begin .. end - 1, all of one colour, in the rows' words word_begin .. word_end - 1 (replica
 * planes) or of the chains chain_begin .. chain_end - 1 (site planes). */
typedef struct {
    int32_t begin;
    int32_t end;
    int32_t lane_begin; /* replica planes: first word of 32 chains; site planes: first chain */
    int32_t lane_end;
} glb_ising_part;

typedef void (*glb_ising_kernel)(const glb_ising_sweep_data *data, const glb_ising_part *part);

void glb_ising_kernel_portable(const glb_ising_sweep_data *data, const glb_ising_part *part);
void glb_ising_kernel_sse2(const glb_ising_sweep_data *data, const glb_ising_part *part);
void glb_ising_kernel_avx2(const glb_ising_sweep_data *data, const glb_ising_part *part);
void glb_ising_kernel_avx512(const glb_ising_sweep_data *data, const glb_ising_part *part);

/* The kernel of a level, or NULL where this machine does not have it (dispatch.c). */
glb_ising_kernel glb_ising_kernel_for(int isa);

#endif
