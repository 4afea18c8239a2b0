/* The chip behind the controller, and how much of it the controller's memory allows. */
#ifndef GLAUBER_CHIP_H
#define GLAUBER_CHIP_H

#include <stdint.h>

#ifndef CHIP_KING
#define CHIP_KING 0 /* above 0: a king's graph of so many rows and columns instead of any graph */
#endif

#ifndef CHIP_SCALE
#define CHIP_SCALE 64 /* memory: 64 takes 1.2 MB */
#endif

enum {
    CHIP_SITES = CHIP_KING ? CHIP_KING * CHIP_KING : 64 * CHIP_SCALE, /* p-bits */
    CHIP_ENTRIES = 1024 * CHIP_SCALE,                                 /* directed couplings */
    CHIP_COLOURS = 64 * CHIP_SCALE,
    CHIP_CELLS = 512 * CHIP_SCALE, /* words of state: sites x words of 32 chains, or chains x words of 32 sites */
    CHIP_TABLE = 64 * CHIP_SCALE,  /* temperatures in one run */
    CHIP_SUMS = 2048 * CHIP_SCALE, /* sums of moments */
    CHIP_WEIGHT_BITS = 16,
    CHIP_FIELD_BITS = 24,
    CHIP_CODE_BITS = 12 /* of the bias converter */
};

#ifndef CHIP_STREAM
#define CHIP_STREAM 65536 /* bytes of samples that wait for the host; a power of two */
#endif
#ifndef CHIP_FRAME
#define CHIP_FRAME 4096 /* body bytes of a frame, at most */
#endif

extern const char chip_name[24];

/* Couplings that the chip has, as pairs of p-bits; 0 for any graph. */
uint32_t chip_edges(void);
void chip_edge(uint32_t number, uint16_t pair[2]);
int chip_has_edge(uint16_t one, uint16_t other);

/* Energy so far, picojoules: of a counter on the board, or a model of it. */
uint64_t chip_picojoules(uint64_t updates, uint64_t ticks);

#endif
