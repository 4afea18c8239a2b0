/* Which instruction sets this machine has. */
#include "ising.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define GLB_X86 1
#else
#define GLB_X86 0
#endif

int glb_isa_best(void) {
#if GLB_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq")) {
        return GLB_ISA_AVX512;
    }
    return __builtin_cpu_supports("avx2") ? GLB_ISA_AVX2 : GLB_ISA_SSE2;
#else
    return GLB_ISA_PORTABLE;
#endif
}

glb_ising_kernel glb_ising_kernel_for(int isa) {
    if (isa < GLB_ISA_PORTABLE || isa > glb_isa_best()) {
        return NULL;
    }
    switch (isa) {
#if GLB_X86
    case GLB_ISA_SSE2:
        return glb_ising_kernel_sse2;
    case GLB_ISA_AVX2:
        return glb_ising_kernel_avx2;
    case GLB_ISA_AVX512:
        return glb_ising_kernel_avx512;
#endif
    default:
        return glb_ising_kernel_portable;
    }
}
