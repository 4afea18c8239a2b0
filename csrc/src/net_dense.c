/* The dense net: int8 matrices by blocks of four positions. */
#include <string.h>

#include "ising.h"

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

void glb_dense_range(const glb_ising *program, int32_t four, int32_t *begin, int32_t *end) {
    int32_t last = four + 4 < program->n_sites ? four + 4 : program->n_sites;
    int32_t low = INT32_MAX;
    int32_t high = -1;
    for (int64_t k = program->row_start[four]; k < program->row_start[last]; k++) {
        low = program->neighbour[k] < low ? program->neighbour[k] : low;
        high = program->neighbour[k] > high ? program->neighbour[k] : high;
    }
    *begin = high < 0 ? 0 : low / 4;
    *end = high < 0 ? 0 : high / 4 + 1;
}

glb_dense_net glb_dense_net_head(const glb_ising *program, const glb_traits *traits) {
    glb_dense_net head = {.base = 64, .passes = traits->max_weight <= INT8_MAX ? 1 : 2};
    head.blocks = round_up(head.base + 4 * (int64_t)program->n_sites, 64);
    head.weights = round_up(head.blocks + (int64_t)sizeof(glb_dense_block) * ((program->n_sites + 3) / 4), 64);
    head.size = head.weights + head.passes * traits->slots;
    return head;
}

void glb_dense_net_fill(const glb_ising *program, const glb_traits *traits, uint8_t *net) {
    glb_dense_net head = glb_dense_net_head(program, traits);
    int32_t *base = (void *)(net + head.base);
    glb_dense_block *blocks = (void *)(net + head.blocks);
    int64_t at = head.weights;
    memset(net, 0, (size_t)head.size);
    memcpy(net, &head, sizeof head);
    for (int32_t p = 0; p < program->n_sites; p++) {
        glb_dense_block *block = blocks + p / 4;
        if (p % 4 == 0) {
            glb_dense_range(program, p, &block->begin, &block->end);
            block->weights = at;
            at += 16 * (int64_t)head.passes * (block->end - block->begin);
        }
        for (int64_t k = program->row_start[p]; k < program->row_start[p + 1]; k++) {
            int32_t neighbour = program->neighbour[k];
            int32_t weight = program->weight[k];
            int64_t place = block->weights + 16 * (int64_t)(neighbour / 4 - block->begin) + 4 * (p % 4) + neighbour % 4;
            base[p] -= weight;
            if (neighbour / 4 == p / 4) {
                block->inner[p % 4][neighbour % 4] = weight;
                block->coupled = 1;
            }
            if (head.passes == 1) {
                net[place] = (uint8_t)weight;
            } else { /* weight = 256 upper + lower with a lower half from 0 to 255 */
                net[place] = (uint8_t)((uint32_t)weight >> 8);
                net[place + 16 * (int64_t)(block->end - block->begin)] = (uint8_t)weight;
            }
        }
    }
}
