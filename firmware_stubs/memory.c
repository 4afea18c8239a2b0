#include "memory.h"

#include "frame.h"

memory mem;

uint8_t *memory_segment(uint32_t number, size_t *room) {
#define SEGMENT(name, array)                                                                                           \
    case name:                                                                                                         \
        *room = sizeof array;                                                                                          \
        return (uint8_t *)array
    switch (number) {
        SEGMENT(WIRE_ROW_START, mem.row_start);
        SEGMENT(WIRE_NEIGHBOUR, mem.neighbour);
        SEGMENT(WIRE_WEIGHT, mem.weight);
        SEGMENT(WIRE_FIELD, mem.field);
        SEGMENT(WIRE_COLOURS, mem.colour_start);
        SEGMENT(WIRE_SITE, mem.site);
        SEGMENT(WIRE_BETA, mem.beta);
        SEGMENT(WIRE_OWN_FIELD, mem.own_field);
        SEGMENT(WIRE_HELD, mem.held);
        SEGMENT(WIRE_STATE_WORDS, mem.state);
        SEGMENT(WIRE_SUMS, mem.sums);
    default:
        *room = 0;
        return NULL;
    }
#undef SEGMENT
}

size_t memory_size(uint32_t number) {
    size_t room;
    switch (number) {
    case WIRE_ROW_START:
        return 4 * ((size_t)mem.n_sites + 1);
    case WIRE_NEIGHBOUR:
    case WIRE_WEIGHT:
        return 2 * (size_t)mem.n_entries;
    case WIRE_FIELD:
        return 4 * (size_t)mem.n_sites;
    case WIRE_COLOURS:
        return 4 * ((size_t)mem.n_colours + 1);
    case WIRE_SITE:
        return 2 * (size_t)mem.n_sites;
    default:
        return memory_segment(number, &room) == NULL ? 0 : room;
    }
}

uint32_t memory_crc(uint32_t first, uint32_t last, const size_t sizes[WIRE_SEGMENTS]) {
    uint32_t crc = 0;
    for (uint32_t k = first; k < last; k++) {
        size_t room;
        const uint8_t *bytes = memory_segment(k, &room);
        if (bytes != NULL) {
            crc = crc32_of(crc, bytes, sizes[k]);
        }
    }
    return crc;
}

static uint32_t magnitude(int32_t x) { return x < 0 ? 0u - (uint32_t)x : (uint32_t)x; }

uint32_t memory_check(const int32_t *field, uint32_t *where) {
    uint32_t n = mem.n_sites;
    *where = 0;
    if (mem.row_start[0] != 0 || mem.row_start[n] != mem.n_entries || mem.colour_start[0] != 0 ||
        mem.colour_start[mem.n_colours] != n) {
        return WIRE_ROWS;
    }
    for (uint32_t k = 0; k < mem.n_colours; k++) {
        *where = k;
        if (mem.colour_start[k] >= mem.colour_start[k + 1] || mem.colour_start[k + 1] > n) {
            return WIRE_ROWS;
        }
    }
    uint32_t colour = 0;
    uint32_t upward = 0; /* entries whose neighbour has the higher position: each coupling is there in both rows */
    for (uint32_t p = 0; p < n; p++) {
        *where = p;
        while (p >= mem.colour_start[colour + 1]) {
            colour++;
        }
        if (mem.row_start[p] > mem.row_start[p + 1] || mem.row_start[p + 1] > mem.n_entries || mem.site[p] >= CHIP_SITES) {
            return WIRE_ROWS;
        }
        uint32_t sum = magnitude(field[p]);
        for (uint32_t k = mem.row_start[p]; k < mem.row_start[p + 1]; k++) {
            uint32_t q = mem.neighbour[k];
            if (q >= n || (q >= mem.colour_start[colour] && q < mem.colour_start[colour + 1])) {
                return WIRE_ROWS; /* a neighbour of the same colour would be updated at the same time */
            }
            if (!chip_has_edge(mem.site[p], mem.site[q])) {
                return WIRE_EDGE;
            }
            upward += q > p;
            sum += sum < 1u << 30 ? magnitude(mem.weight[k]) : 0;
        }
        if (sum >= 1u << 30) { /* the arithmetic's limit: docs/machine.md, section 1 */
            return WIRE_ROWS;
        }
    }
    return 2 * upward == mem.n_entries ? WIRE_OK : WIRE_ROWS; /* moments have room for half of the entries */
}
