/* The table of docs/machine.md, section 6. */
#include "glauber/contract.h"

const uint32_t glb_exp2_table[256] = {
#include "glauber/exp2_table.inc"
};
