/* Tests of the C core without Python: ctest runs this, CI also under AddressSanitizer and UBSan.
 *
 * The exit status is the number of failures, at most 100.
 */
#include "testing.h"

int main(void) {
    random_start(20240229); /* any number; fixed, so that a failure comes again */
#if defined(__aarch64__)
    CHECK(glb_isa_available(GLB_ISA_NEON) && glb_isa_best() == GLB_ISA_NEON, "no NEON on 64-bit ARM");
#else
    CHECK(!glb_isa_available(GLB_ISA_NEON), "NEON where there is none");
#endif
    test_chip();
    test_contract();
    test_errors();
    test_events();
    test_ising();
    test_moves();
    test_potts();
    printf("%d checks, %d failures, best instruction set %d\n", checks, failures, glb_isa_best());
    return failures < 100 ? failures : 100; /* an exit status has eight bits */
}
