/* The contract's pure functions as calls, so that tests can reach them. */
#include "chip.h"
#include "ising.h"

int glb_contract_version(void) { return GLB_CONTRACT_VERSION; }

void glb_test_threefry(const uint32_t key[4], const uint32_t counter[4], uint32_t out[4]) {
    glb_key k;
    k.k[4] = 0x1BD11BDAu;
    for (int i = 0; i < 4; i++) {
        k.k[i] = key[i];
        k.k[4] ^= key[i];
    }
    glb_threefry(&k, counter[0], counter[1], counter[2], counter[3], out);
}

uint32_t glb_test_threshold(int32_t field, uint64_t b) { return glb_threshold(field, b); }

int glb_test_thresholds(int isa, const int32_t *field, int64_t n, uint64_t b, uint32_t *out) {
    const glb_kernels *kernels = glb_kernels_of(isa);
    if (kernels == NULL) {
        return GLB_E_ISA;
    }
    kernels->thresholds(field, n, b, out);
    return GLB_OK;
}

int glb_test_dit_sums(int isa, const int32_t *field, const uint8_t *allowed, uint64_t b, uint32_t shift, int32_t n,
                      uint64_t *out) {
    const glb_kernels *kernels = glb_kernels_of(isa);
    if (kernels == NULL) {
        return GLB_E_ISA;
    }
    kernels->dit_sums(field, allowed, b, shift, n, out);
    return GLB_OK;
}

uint64_t glb_test_exp2(uint64_t x) { return glb_exp2(x); }

int32_t glb_test_normal(const int32_t *table, uint32_t u) { return glb_normal(table, u); }
