/* The incremental net: who depends on a spin and how much, and what decides without looking further. */
#include <string.h>

#include "ising.h"

enum { DENSE_FROM = 8 }; /* one entry in so many: adding a whole row in vectors costs less than picking them out */

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* 2^32 / (1 + 2^-x) by the contract, x in units of 2^-32. */
static uint32_t threshold_at(uint64_t x) { return glb_threshold(1, x); }

/* Thresholds are within 2.5 of a rising function, so that one found at least SLACK above a bound means that none to its
 * right is below the bound, and the same the other way: docs/decisions/0011. */
enum { SLACK = 6 };

static void fill_bounds(uint64_t above[GLB_BOUNDS], uint64_t below[GLB_BOUNDS]) {
    for (int j = 0; j < GLB_BOUNDS; j++) { /* the bound is 2^31 + j 2^24 */
        uint64_t bound = (UINT64_C(128) + (uint64_t)j) << 24;
        uint64_t low = 0;
        uint64_t high = GLB_X_MAX;
        while (high - low > 1) {
            uint64_t middle = low + (high - low) / 2;
            *(threshold_at(middle) >= bound + SLACK ? &high : &low) = middle;
        }
        above[j] = high;
        low = 0;
        high = GLB_X_MAX;
        while (high - low > 1 && j > 0) {
            uint64_t middle = low + (high - low) / 2;
            *(threshold_at(middle) <= bound - SLACK ? &low : &high) = middle;
        }
        below[j] = low;
    }
}

int glb_incremental_is_dense(const glb_ising *program) {
    int64_t n = program->n_sites;
    return DENSE_FROM * program->row_start[n] >= n * n && n * n <= (INT64_C(1) << 30);
}

glb_incremental_net glb_incremental_net_head(const glb_ising *program, const glb_plan *plan) {
    int64_t n = program->n_sites;
    int64_t width = plan->width == 4 ? 4 : 2;
    glb_incremental_net head = {.dense = glb_incremental_is_dense(program), .stride = round_up(n, 64)};
    head.start = round_up((int64_t)sizeof head, 64);
    head.terms = round_up(head.start + 8 * (n + 1), 64);
    head.coupled = head.terms + (head.dense ? width * head.stride * n : (int64_t)sizeof(glb_change) * program->row_start[n]);
    head.size = head.coupled + round_up(n, 32) / 32;
    return head;
}

void glb_incremental_net_fill(const glb_ising *program, const glb_plan *plan, uint8_t *net) {
    glb_incremental_net head = glb_incremental_net_head(program, plan);
    int64_t *start = (void *)(net + head.start);
    glb_change *changes = (void *)(net + head.terms);
    int16_t *narrow = (void *)(net + head.terms);
    int32_t *wide = (void *)(net + head.terms);
    int32_t n = program->n_sites;
    memset(net, 0, (size_t)head.size);
    fill_bounds(head.above, head.below);
    memcpy(net, &head, sizeof head);
    for (int64_t k = 0; k < program->row_start[n]; k++) {
        start[program->neighbour[k] + 1]++;
    }
    for (int32_t p = 0; p < n; p++) {
        start[p + 1] += start[p];
    }
    for (int32_t p = 0; p < n; p++) {
        for (int64_t k = program->row_start[p]; k < program->row_start[p + 1]; k++) {
            int32_t of = program->neighbour[k];
            int32_t twice = 2 * program->weight[k];
            if (of / 32 == p / 32) {
                net[head.coupled + p / 32] = 1;
            }
            if (!head.dense) {
                changes[start[of]++] = (glb_change){p, twice};
            } else if (plan->width == 4) {
                wide[head.stride * of + p] = twice;
            } else {
                narrow[head.stride * of + p] = (int16_t)(uint16_t)(uint32_t)twice;
            }
        }
    }
    for (int32_t p = n; p > 0 && !head.dense; p--) { /* each start has moved to the next one's */
        start[p] = start[p - 1];
    }
    start[0] = 0;
}

/* The lowest field from which on every threshold is at least j 2^24, as far as fields go: -sum .. sum + 1. */
static int64_t reach(const glb_incremental_net *net, int64_t sum, uint64_t b, int j) {
    if (j == 0 || j == 256) {
        return j == 0 ? -sum : sum + 1;
    }
    if (j >= 128) {
        uint64_t x = net->above[j - 128];
        return b == 0 || x / b >= (uint64_t)sum + 1 ? sum + 1 : (int64_t)(x / b) + (x % b != 0);
    }
    uint64_t x = net->below[128 - j];
    return b == 0 || x / b >= (uint64_t)sum ? -sum : -(int64_t)(x / b);
}

void glb_incremental_fill(const glb_incremental_net *net, const glb_plan *plan, uint64_t b, int32_t cut[2][256]) {
    for (int byte = 0; byte < 256; byte++) {
        int32_t down = (int32_t)-reach(net, plan->sum, b, 256 - byte);
        int32_t up = (int32_t)reach(net, plan->sum, b, byte + 1) - 1;
        cut[0][byte] = plan->width == 4 ? down : (int32_t)((uint32_t)(uint16_t)down | (uint32_t)up << 16);
        cut[1][byte] = up;
    }
}

void glb_test_cuts(int64_t sum, uint64_t b, int32_t cuts[512]) {
    glb_incremental_net net;
    glb_plan plan = {.sum = sum, .width = 4};
    int32_t cut[2][256];
    fill_bounds(net.above, net.below);
    glb_incremental_fill(&net, &plan, b, cut);
    memcpy(cuts, cut, sizeof cut);
}
