/* A reference chip: any graph, or with CHIP_KING a square lattice with both diagonals; its energy is a model. */
#include "chip.h"

#if CHIP_KING
const char chip_name[24] = "firmware-king";
enum { SIDE = CHIP_KING, ACROSS = SIDE * (SIDE - 1), DIAGONAL = (SIDE - 1) * (SIDE - 1) };

uint32_t chip_edges(void) { return 2 * ACROSS + 2 * DIAGONAL; }

void chip_edge(uint32_t number, uint16_t pair[2]) {
    uint32_t row;
    uint32_t column;
    uint32_t step = 1; /* to the right */
    if (number < ACROSS) {
        row = number / (SIDE - 1);
        column = number % (SIDE - 1);
    } else if (number < 2 * ACROSS) {
        row = (number - ACROSS) / SIDE;
        column = (number - ACROSS) % SIDE;
        step = SIDE;
    } else {
        uint32_t left = number < 2 * ACROSS + DIAGONAL ? 0 : 1; /* down to the right, then down to the left */
        uint32_t k = (number - 2 * ACROSS) % DIAGONAL;
        row = k / (SIDE - 1);
        column = k % (SIDE - 1) + left;
        step = SIDE + 1 - 2 * left;
    }
    pair[0] = (uint16_t)(row * SIDE + column);
    pair[1] = (uint16_t)(pair[0] + step);
}

int chip_has_edge(uint16_t one, uint16_t other) {
    int rows = one / SIDE - other / SIDE;
    int columns = one % SIDE - other % SIDE;
    return one != other && rows >= -1 && rows <= 1 && columns >= -1 && columns <= 1;
}
#else
const char chip_name[24] = "firmware-any";

uint32_t chip_edges(void) { return 0; }

void chip_edge(uint32_t number, uint16_t pair[2]) {
    (void)number;
    pair[0] = pair[1] = 0;
}

int chip_has_edge(uint16_t one, uint16_t other) { return one != other; }
#endif

/* 20 pJ an update and 1 nJ a thousand ticks: chosen, not measured; HELLO says that the counter is no instrument. */
uint64_t chip_picojoules(uint64_t updates, uint64_t ticks) { return 20 * updates + ticks; }
