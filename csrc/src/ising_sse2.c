/* The Ising kernel for sse2. */
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define GLB_KERNEL glb_ising_kernel_sse2
#define GLB_VECTOR_BYTES 16
#include "ising_kernel.h"
#else
typedef int glb_nothing_here; /* ISO C forbids an empty file */
#endif
