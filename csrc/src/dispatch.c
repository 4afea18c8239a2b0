/* Which instruction sets this machine has, and their kernels. */
#include "ising.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define GLB_X86 1
#else
#define GLB_X86 0
#endif
#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
#define GLB_ARM64 1
#else
#define GLB_ARM64 0
#endif

int glb_isa_available(int isa) {
#if defined(GLB_EMULATED_AVX512) /* tests/emulate_avx512.h */
    return isa >= GLB_ISA_PORTABLE && isa <= GLB_ISA_AVX512ICL;
#elif GLB_X86
    __builtin_cpu_init();
    switch (isa) {
    case GLB_ISA_PORTABLE:
    case GLB_ISA_SSE2:
        return 1;
    case GLB_ISA_AVX2:
        return __builtin_cpu_supports("avx2") != 0;
    case GLB_ISA_AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    case GLB_ISA_AVX512ICL:
        return glb_isa_available(GLB_ISA_AVX512) && __builtin_cpu_supports("avx512vbmi") &&
               __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512vnni") &&
               __builtin_cpu_supports("avx512bitalg") && __builtin_cpu_supports("gfni");
    default:
        return 0;
    }
#else
    return isa == GLB_ISA_PORTABLE || (GLB_ARM64 && isa == GLB_ISA_NEON);
#endif
}

int glb_isa_best(void) {
    int isa = GLB_N_ISA - 1;
    while (!glb_isa_available(isa)) {
        isa--;
    }
    return isa;
}

const glb_kernels *glb_kernels_of(int isa) {
    if (!glb_isa_available(isa)) {
        return NULL;
    }
    switch (isa) {
#if GLB_X86
    case GLB_ISA_SSE2:
        return &glb_kernels_sse2;
    case GLB_ISA_AVX2:
        return &glb_kernels_avx2;
    case GLB_ISA_AVX512:
        return &glb_kernels_avx512;
    case GLB_ISA_AVX512ICL:
        return &glb_kernels_avx512icl;
#endif
#if GLB_ARM64
    case GLB_ISA_NEON:
        return &glb_kernels_neon;
#endif
    default:
        return &glb_kernels_portable;
    }
}
