/* Power-on self-test of the machine contract. */
#ifndef GLAUBER_SELFTEST_H
#define GLAUBER_SELFTEST_H

enum glb_selftest_result {
    GLB_SELFTEST_OK = 0,
    GLB_SELFTEST_GENERATOR = 1, /* Threefry gives other words than Random123 */
    GLB_SELFTEST_THRESHOLD = 2  /* the threshold function or its table is wrong */
};

int glb_selftest(void);

#endif
