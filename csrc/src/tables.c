/* What the kernels look up in place of computing a threshold: made once for all sweeps that share a b. */
#include <string.h>

#include "ising.h"

/* Which levels have a 1 in each plane of their threshold. */
static void fill_pick(const glb_level_scale *levels, uint64_t b, uint8_t pick[32][8]) {
    memset(pick, 0, 32 * 8);
    for (int level = 0; level < 1 << levels->n_bits; level++) {
        uint32_t threshold = glb_threshold(levels->field_scale * level - levels->field_offset, b);
        for (int plane = 0; plane < 32; plane++) {
            pick[plane][level / 4] |= (uint8_t)(((threshold >> (31 - plane)) & 1u) << (level % 4));
        }
    }
}

static void fill_top(uint64_t b, uint8_t top[128]) {
    for (int32_t field = -64; field < 64; field++) {
        top[field & 127] = (uint8_t)(glb_threshold(field, b) >> 24);
    }
}

/* ceil(a / b) */
static uint64_t quotient(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }

/* A piece of the upper halves of thresholds, `size` y long. */
static void fill_piece(int32_t piece, int32_t size, uint64_t Y, uint16_t *from, uint16_t *rise) {
    int32_t start = (int32_t)(glb_threshold(size * piece, Y) >> 16);
    int32_t middle = (int32_t)(glb_threshold(size * piece + size / 2, Y) >> 16);
    int32_t end = (int32_t)(glb_threshold(size * (piece + 1), Y) >> 16);
    int32_t bend = middle - (start + end) / 2; /* the curve leaves the chord by at most this: meet it half way */
    *from = (uint16_t)(start + bend / 2);
    *rise = (uint16_t)(end - start);
}

/* docs/decisions/0007 derives the numbers. One y is 10 / 8192 bits, which is Y = 5242880 in units of 2^-32. */
static void fill_filter(int64_t sum, uint64_t b, glb_filter *filter) {
    const uint64_t Y = 5242880;
    for (int32_t piece = -32; piece < 32; piece++) {
        fill_piece(piece, 256, Y, &filter->start[piece & 63], &filter->rise[piece & 63]);
    }
    for (int32_t piece = 0; piece < 16; piece++) {
        uint16_t start;
        uint16_t rise;
        fill_piece(piece, 512, Y, &start, &rise);
        filter->coarse[0][piece] = (uint8_t)start;
        filter->coarse[1][piece] = (uint8_t)(start >> 8);
        filter->coarse[2][piece] = (uint8_t)rise;
        filter->coarse[3][piece] = (uint8_t)(rise >> 8);
    }
    /* a field of one step is b / Y of y; from 8192 on any field but 0 is beyond the last piece */
    uint64_t step = b > 8192 * Y ? 8192 * Y : b;
    uint64_t clamp = step == 0 ? (uint64_t)sum : quotient(8191 * Y, step);
    if (clamp > (uint64_t)sum) {
        clamp = (uint64_t)sum;
    }
    clamp = clamp < 1 ? 1 : clamp;
    int right = 0;
    int left = 0;
    while (clamp >> right > INT16_MAX) {
        right++;
    }
    clamp >>= right;
    while (clamp << (left + 1) <= INT16_MAX) {
        left++;
    }
    /* y = (field >> right << left) factor / 2^15; of the two shifts one is 0 */
    uint64_t whole = (step << 15) << right;
    uint64_t part = Y << left;
    filter->clamp = (int16_t)clamp;
    filter->left = (int16_t)left;
    filter->right = right;
    filter->half = right == 0 ? 0 : 1 << (right - 1);
    filter->factor = (int16_t)((whole + part / 2) / part);
}

/* What the kernels do with vectors, for one field: with 64 pieces, or the 16 coarse ones. */
void glb_test_bracket(int64_t sum, int32_t field, uint64_t b, int coarse, uint32_t bracket[2]) {
    glb_filter filter;
    fill_filter(sum, b, &filter);
    int32_t narrow = (field + filter.half) >> filter.right;
    narrow = narrow > filter.clamp ? filter.clamp : narrow < -filter.clamp ? -filter.clamp : narrow;
    int32_t y = (narrow * (1 << filter.left) * filter.factor + (1 << 14)) >> 15;
    y = y > 8191 ? 8191 : y < -8191 ? -8191 : y;
    uint32_t piece = coarse ? (uint32_t)(y < 0 ? -y : y) / 512 : (uint32_t)(y >> 8) & 63u;
    uint32_t bound = coarse ? GLB_COARSE_BOUND : GLB_FILTER_BOUND;
    uint32_t t;
    if (coarse) {
        uint32_t start = filter.coarse[0][piece] + 256u * filter.coarse[1][piece];
        uint32_t rise = filter.coarse[2][piece] + 256u * filter.coarse[3][piece];
        t = start + (rise * ((uint32_t)(y < 0 ? -y : y) % 512) >> 9);
        t = y < 0 ? 65535 - t : t;
    } else {
        t = filter.start[piece] + ((uint32_t)filter.rise[piece] * ((uint32_t)y & 255u) >> 8);
    }
    bracket[0] = t > bound ? t - bound : 0;
    bracket[1] = t + bound < 65535 ? t + bound : 65535;
}

void glb_ising_fill(const glb_plan *plan, const uint8_t *net, uint64_t b, glb_heat *heat) {
    heat->b = b;
    switch (plan->kernel) {
    case GLB_KERNEL_BITS:
        fill_pick(&((const glb_bits_net *)(const void *)net)->levels, b, heat->pick);
        break;
    case GLB_KERNEL_LATTICE:
        fill_pick(&((const glb_lattice_net *)(const void *)net)->levels, b, heat->pick);
        break;
    case GLB_KERNEL_DIAGONALS:
        if (plan->sum < 64) {
            fill_top(b, heat->top);
        } else {
            fill_filter(plan->sum, b, &heat->filter);
        }
        break;
    case GLB_KERNEL_INCREMENTAL:
        glb_incremental_fill((const void *)net, plan, b, heat->cut);
        break;
    case GLB_KERNEL_BYTES:
        fill_top(b, heat->top);
        break;
    case GLB_KERNEL_FILTER:
    case GLB_KERNEL_DENSE:
    case GLB_KERNEL_INDEPENDENT: /* for new fields */
        fill_filter(plan->sum, b, &heat->filter);
        break;
    default:
        break;
    }
}
