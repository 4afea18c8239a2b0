/* The kernels for NEON, which every 64-bit ARM has. */
#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
#define GLB_KERNELS glb_kernels_neon
#define GLB_VECTOR_BYTES 16
#include "kernels.h"
#else
typedef int glb_nothing_here; /* ISO C forbids an empty file */
#endif
