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

/* docs/decisions/0007 derives the numbers. One y is 10 / 8192 bits, which is Y = 5242880 in units of 2^-32. */
static void fill_filter(int64_t sum, uint64_t b, glb_filter *filter) {
    const uint64_t Y = 5242880;
    for (int32_t piece = -32; piece < 32; piece++) {
        int32_t start = (int32_t)(glb_threshold(256 * piece, Y) >> 16);
        int32_t middle = (int32_t)(glb_threshold(256 * piece + 128, Y) >> 16);
        int32_t end = (int32_t)(glb_threshold(256 * (piece + 1), Y) >> 16);
        int32_t bend = middle - (start + end) / 2; /* the curve leaves the chord by at most this: meet it half way */
        filter->start[piece & 63] = (uint16_t)(start + bend / 2);
        filter->rise[piece & 63] = (uint16_t)(end - start);
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

/* What the kernels do with vectors, for one field. */
void glb_test_bracket(int64_t sum, int32_t field, uint64_t b, uint32_t bracket[2]) {
    glb_filter filter;
    fill_filter(sum, b, &filter);
    int32_t narrow = (field + filter.half) >> filter.right;
    narrow = narrow > filter.clamp ? filter.clamp : narrow < -filter.clamp ? -filter.clamp : narrow;
    int32_t y = (narrow * (1 << filter.left) * filter.factor + (1 << 14)) >> 15;
    y = y > 8191 ? 8191 : y < -8191 ? -8191 : y;
    uint32_t piece = (uint32_t)(y >> 8) & 63u;
    uint32_t t = filter.start[piece] + ((uint32_t)filter.rise[piece] * ((uint32_t)y & 255u) >> 8);
    bracket[0] = t > GLB_FILTER_BOUND ? t - GLB_FILTER_BOUND : 0;
    bracket[1] = t + GLB_FILTER_BOUND < 65535 ? t + GLB_FILTER_BOUND : 65535;
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
