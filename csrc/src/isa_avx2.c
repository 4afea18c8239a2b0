/* The kernels for AVX2. */
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif
#define GLB_KERNELS glb_kernels_avx2
#define GLB_VECTOR_BYTES 32
#define GLB_AVX2 1
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int glb_nothing_here; /* ISO C forbids an empty file */
#endif
