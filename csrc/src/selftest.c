/* The contract's pure functions as calls, so that tests can reach them. */
#include "glauber/contract.h"
#include "glauber/core.h"

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

uint64_t glb_test_exp2(uint64_t x) { return glb_exp2(x); }
