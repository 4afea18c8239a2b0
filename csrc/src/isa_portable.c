/* The kernels in plain 32-bit words, for any compiler. */
#define GLB_KERNELS glb_kernels_portable
#define GLB_VECTOR_BYTES 4
#include "kernels.h"
