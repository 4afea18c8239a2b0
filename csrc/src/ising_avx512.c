/* The Ising kernel for avx512. */
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
#endif
#define GLB_KERNEL glb_ising_kernel_avx512
#define GLB_VECTOR_BYTES 64
#include "ising_kernel.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int glb_nothing_here; /* ISO C forbids an empty file */
#endif
