/* The kernels for SSE2, which every x86-64 has. */
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define GLB_KERNELS glb_kernels_sse2
#define GLB_VECTOR_BYTES 16
#include "kernels.h"
#else
typedef int glb_nothing_here; /* ISO C forbids an empty file */
#endif
