/* What a Potts run (potts.c) and its kernel (kernel_potts.h, once per instruction set) share. */
#ifndef GLAUBER_POTTS_H
#define GLAUBER_POTTS_H

#include "glauber/contract.h"
#include "glauber/core.h"

enum { GLB_POTTS_STATES = 16 }; /* of the vector kernel */

/* Positions of one colour that a vector takes together, for one chain. */
typedef struct {
    int32_t first;
    int32_t count;
    int32_t slots; /* largest number of neighbours */
    int32_t entry; /* where it begins: a vector of the program's fields for each state, then for each slot a vector of
                    * neighbours and one of weights or of where their tables begin */
} glb_potts_group;

typedef struct {
    const glb_potts *program;
    const glb_run *run;
    const uint32_t *weights; /* of a state by its gap to the best, for this sweep's b */
    int64_t n_weights;
    int by_sites;
    uint8_t *spins; /* by chains */
    int32_t *state; /* by sites */
    const glb_potts_group *groups;
    const uint32_t *entries;
    int64_t n_groups;
    uint64_t sweep;
} glb_potts_data;

typedef void (*glb_potts_kernel)(const glb_potts_data *data, int64_t begin, int64_t end);

#endif
