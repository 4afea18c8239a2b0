/* What the host writes: programs and what belongs to a run. One copy, no allocation. */
#ifndef GLAUBER_MEMORY_H
#define GLAUBER_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "chip.h"
#include "wire.h"

typedef struct {
    uint32_t n_sites;
    uint32_t n_entries;
    uint32_t n_colours;
    uint32_t row_start[CHIP_SITES + 1];
    uint32_t colour_start[CHIP_COLOURS + 1];
    int32_t field[CHIP_SITES];
    int16_t weight[CHIP_ENTRIES];
    uint16_t neighbour[CHIP_ENTRIES];
    uint16_t site[CHIP_SITES];
    uint64_t beta[CHIP_TABLE];
    int32_t own_field[CHIP_SITES];
    uint32_t held[CHIP_CELLS];
    uint32_t state[CHIP_CELLS];
    int32_t sums[CHIP_SUMS];
} memory;

extern memory mem;

/* Where a segment lies, and how many bytes it has room for; NULL for an unknown number. */
uint8_t *memory_segment(uint32_t number, size_t *room);

/* Bytes that a segment of the present program has; those of runs are as large as their room. */
size_t memory_size(uint32_t number);

/* CRC-32 over segments first .. last - 1, one after another, each with its size in bytes. */
uint32_t memory_crc(uint32_t first, uint32_t last, const size_t sizes[WIRE_SEGMENTS]);

/* Whether rows, colours, weights, couplings and these fields make sense; `where` says which position does not. */
uint32_t memory_check(const int32_t *field, uint32_t *where);

#endif
