/* The Ising kernel for portable. */
#define GLB_KERNEL glb_ising_kernel_portable
#define GLB_VECTOR_BYTES 0
#include "ising_kernel.h"
