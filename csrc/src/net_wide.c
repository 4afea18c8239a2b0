/* The net of the byte and filter kernels: rows as terms, and what a field starts from. */
#include <string.h>

#include "ising.h"

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

glb_wide_net glb_wide_net_head(const glb_ising *program) {
    glb_wide_net head = {.base = 64};
    head.terms = round_up(head.base + 4 * (int64_t)program->n_sites, 64);
    return head;
}

void glb_wide_net_fill(const glb_ising *program, const glb_plan *plan, uint8_t *net) {
    glb_wide_net head = glb_wide_net_head(program);
    memcpy(net, &head, sizeof head);
    int32_t *base = (void *)(net + head.base);
    glb_term *terms = (void *)(net + head.terms);
    uint32_t repeat = plan->kernel == GLB_KERNEL_BYTES ? 0x01010101u : plan->sum <= INT16_MAX ? 0x00010001u : 1u;
    uint32_t mask = plan->kernel == GLB_KERNEL_BYTES ? 0xFFu : plan->sum <= INT16_MAX ? 0xFFFFu : 0xFFFFFFFFu;
    for (int32_t p = 0; p < program->n_sites; p++) {
        int32_t sum = 0;
        for (int64_t k = program->row_start[p]; k < program->row_start[p + 1]; k++) {
            sum += program->weight[k];
            terms[k].neighbour = program->neighbour[k];
            terms[k].twice = ((2 * (uint32_t)program->weight[k]) & mask) * repeat;
        }
        base[p] = -sum;
    }
}
