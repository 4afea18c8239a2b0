/* Power-on self-test: the controller must compute what docs/machine.md says before it may sample. */
#include "selftest.h"

#include "glauber/contract.h"

int glb_selftest(void) {
    /* Threefry4x32, 20 rounds, zero key and counter: the known answer of Random123. */
    static const uint32_t known[4] = {0x9c6ca96au, 0xe17eae66u, 0xfc10ecd4u, 0x5256a7d8u};
    glb_key key = {{0, 0, 0, 0, 0x1BD11BDAu}};
    uint32_t word[4];
    glb_threefry(&key, 0, 0, 0, 0, word);
    for (int i = 0; i < 4; i++) {
        if (word[i] != known[i]) {
            return GLB_SELFTEST_GENERATOR;
        }
    }
    /* b = 2^32 makes a field of one step one power of two: T(1) = 2^32 / (1 + 1/2), and T(-1) is the rest. */
    uint64_t b = UINT64_C(1) << 32;
    if (glb_threshold(0, b) != 0x80000000u || glb_threshold(1, b) != 2863311530u) {
        return GLB_SELFTEST_THRESHOLD;
    }
    if ((uint64_t)glb_threshold(-1, b) + glb_threshold(1, b) != UINT64_C(1) << 32) {
        return GLB_SELFTEST_THRESHOLD;
    }
    return GLB_SELFTEST_OK;
}
