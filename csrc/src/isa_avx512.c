/* The kernels for AVX-512 with F, BW, VL and DQ. */
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#if defined(GLB_EMULATED_AVX512)
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
#endif
#define GLB_KERNELS glb_kernels_avx512
#define GLB_VECTOR_BYTES 64
#define GLB_AVX512 1
#include "kernels.h"
#if defined(__clang__) && !defined(GLB_EMULATED_AVX512)
#pragma clang attribute pop
#endif
#else
typedef int glb_nothing_here; /* ISO C forbids an empty file */
#endif
