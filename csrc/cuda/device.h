/* How one source is compiled for a GPU, and for tests on the host.
 *
 * The kernels keep to what C and CUDA C++ have in common. On a GPU (NVRTC or nvcc) the macros below are CUDA's own words;
 * a host stand-in (csrc/tests/cuda_shim.h) defines GLB_SHIM and all of them itself, runs the threads one after another
 * and notes what each one reads and writes. All kernels take the same arguments: the job and two numbers.
 */
#ifndef GLAUBER_CUDA_DEVICE_H
#define GLAUBER_CUDA_DEVICE_H

#include "glauber/contract.h"

#if !defined(GLB_SHIM)
#define GLB_KERNEL(name) extern "C" __global__ void name(const glb_gpu_job job, const uint64_t first, const uint64_t second)
#define GLB_SHARED(type, name, size) __shared__ type name[size]
#define GLB_BARRIER() __syncthreads()
#define GLB_BLOCK ((int64_t)blockIdx.x)
#define GLB_N_BLOCKS ((int64_t)gridDim.x)
#define GLB_IN_BLOCK ((int32_t)threadIdx.x)
#define GLB_BLOCK_SIZE ((int32_t)blockDim.x)
#define GLB_UNROLL _Pragma("unroll")

/* Memory that threads share. _BITS: only these bits of a word belong to the thread, or are looked at. A word is read and
 * written whole, and other threads may be writing its other bits: a word is never torn on a GPU. */
#define GLB_GET(array, i) ((array)[i])
#define GLB_PUT(array, i, value) ((array)[i] = (value))
#define GLB_GET_BITS(array, i, bits) ((array)[i] & (bits))
#define GLB_PUT_BITS(array, i, bits, value) ((array)[i] = ((array)[i] & ~(bits)) | ((value) & (bits)))
#endif

/* A grid's threads share `count` items. */
#define GLB_FOR_EACH(i, count)                                                                                         \
    for (int64_t i = GLB_BLOCK * GLB_BLOCK_SIZE + GLB_IN_BLOCK; i < (count); i += GLB_N_BLOCKS * GLB_BLOCK_SIZE)
/* A block's threads share the items begin .. end - 1. */
#define GLB_FOR_EACH_IN_BLOCK(i, begin, end)                                                                           \
    for (int64_t i = (begin) + GLB_IN_BLOCK; i < (end); i += GLB_BLOCK_SIZE)

/* Sums of products of four bytes: spins are 0 or 1, weights signed or, the lower halves of larger ones, unsigned. */
GLB_FUNCTION int32_t glb_dot4(uint32_t spins, uint32_t weights, int32_t sum) {
#if defined(__CUDA_ARCH__)
    return __dp4a((int)weights, (int)spins, sum);
#else
    for (int i = 0; i < 4; i++) {
        sum += (int32_t)((spins >> (8 * i)) & 0xFFu) * (int8_t)((weights >> (8 * i)) & 0xFFu);
    }
    return sum;
#endif
}

GLB_FUNCTION int32_t glb_dot4_unsigned(uint32_t spins, uint32_t weights, int32_t sum) {
#if defined(__CUDA_ARCH__)
    return (int32_t)__dp4a(weights, spins, (uint32_t)sum);
#else
    for (int i = 0; i < 4; i++) {
        sum += (int32_t)(((spins >> (8 * i)) & 0xFFu) * ((weights >> (8 * i)) & 0xFFu));
    }
    return sum;
#endif
}

#endif
