/* Spins as packed bits by chain and site, and back. */
#include <string.h>

#include "state.h"

void glb_unpack_replicas(const glb_ising *program, const glb_run *run, const glb_plan *plan, const uint8_t *packed,
                         const int32_t *source, int64_t first_word, int64_t last_word, uint32_t *words) {
    int64_t n = program->n_sites;
    int64_t bytes = (n + 7) / 8;
    int64_t offset = lane_offset(run);
    for (int64_t w = first_word; w < last_word; w++) {
        int64_t first = 32 * w - offset;
        for (int64_t byte = 0; byte < bytes; byte++) {
            uint32_t row[8] = {0};
            for (int part = 0; part < 4; part++) {
                uint64_t x = 0;
                for (int i = 0; i < 8; i++) {
                    int64_t chain = first + 8 * part + i;
                    if (chain >= 0 && chain < run->n_chains) {
                        int64_t from = source == NULL ? chain : source[chain];
                        x |= (uint64_t)packed[bytes * from + byte] << (8 * i);
                    }
                }
                x = glb_transposed(x);
                for (int i = 0; i < 8; i++) {
                    row[i] |= (uint32_t)((x >> (8 * i)) & 0xFFu) << (8 * part);
                }
            }
            for (int64_t i = 0; i < 8 && 8 * byte + i < n; i++) {
                words[word_at(plan, program->position[8 * byte + i], w)] = row[i];
            }
        }
    }
}

/* Replica planes: sixteen times 64 sites by 32 chains at a time, so that a chain gets a line of the cache or two. */
static void pack_replicas(const glb_ising *program, const glb_run *run, const glb_plan *plan, const uint32_t *words,
                          int32_t begin, int32_t end, uint8_t *out, int64_t stride) {
    enum { SITES = 64 * GLB_LINE_WORDS };
    const glb_kernels *kernels = glb_kernels_of(plan->isa);
    int64_t n = program->n_sites;
    int64_t bytes = (n + 7) / 8;
    int64_t offset = lane_offset(run);
    for (int64_t w = (offset + begin) / 32; w <= (offset + end - 1) / 32; w++) {
        int64_t first = 32 * w - offset; /* chain of the word's lowest bit */
        int64_t from = first < begin ? begin : first;
        int64_t to = first + 32 < end ? first + 32 : end;
        for (int64_t site = 0; site < n; site += SITES) {
            union {
                uint32_t row[64][GLB_LINE_WORDS];
                uint64_t column[GLB_LINE_WORDS][32];
            } group;
            int64_t last_byte = site + SITES < n ? (site + SITES) / 8 : bytes;
            for (int64_t i = 0; i < SITES; i++) {
                group.row[i % 64][i / 64] = site + i < n ? words[word_at(plan, program->position[site + i], w)] : 0;
            }
            kernels->turn(group.column[0], 64);
            for (int64_t chain = from; chain < to; chain++) {
                uint8_t *target = out + stride * chain;
                for (int64_t byte = site / 8; byte < last_byte; byte += 8) {
                    uint64_t spins = group.column[(byte - site / 8) / 8][chain - first];
                    uint8_t eight[8];
                    for (int k = 0; k < 8; k++) {
                        eight[k] = (uint8_t)(spins >> (8 * k));
                    }
                    memcpy(target + byte, eight, (size_t)(last_byte - byte < 8 ? last_byte - byte : 8));
                }
            }
        }
    }
}

/* Known when this is compiled. */
static int is_little_endian(void) {
    const uint16_t one = 1;
    uint8_t first;
    memcpy(&first, &one, 1);
    return first == 1;
}

void glb_pack_chains(const glb_ising *program, const glb_run *run, const glb_plan *plan, const uint8_t *state,
                        int32_t begin, int32_t end, uint8_t *out, int64_t stride) {
    int64_t n = program->n_sites;
    const uint32_t *words = (const void *)state;
    if (begin >= end) {
        return;
    }
    if (is_replica(run)) {
        pack_replicas(program, run, plan, words, begin, end, out, stride);
        return;
    }
    for (int32_t chain = begin; chain < end; chain++) {
        const uint32_t *row = words + (has_bits(plan) ? word_at(plan, chain, 0) : 0);
        uint8_t *target = out + stride * chain;
        if (has_bits(plan) && plan->in_order) { /* words and bytes are both little-endian by bit */
            if (is_little_endian()) {
                memcpy(target, row, (size_t)(n / 8));
            }
            for (int64_t byte = 0; byte < n / 8 && !is_little_endian(); byte++) {
                target[byte] = (uint8_t)(row[byte / 4] >> (8 * (byte % 4)));
            }
            if (n % 8 != 0) {
                target[n / 8] = (uint8_t)(row[n / 32] >> (n / 8 % 4 * 8) & ((1u << (n % 8)) - 1));
            }
            continue;
        }
        for (int64_t byte = 0; byte < (n + 7) / 8; byte++) {
            uint32_t bits = 0;
            for (int64_t i = 0; i < 8 && 8 * byte + i < n; i++) {
                int32_t p = program->position[8 * byte + i];
                uint32_t up = has_bits(plan) ? (row[p / 32] >> (p % 32)) & 1u
                                             : (uint32_t)(((const int8_t *)state)[plan->lanes * chain + p] > 0);
                bits |= up << i;
            }
            target[byte] = (uint8_t)bits;
        }
    }
}

int glb_ising_pack(const glb_ising *program, const glb_run *run, const glb_plan *plan, const uint8_t *state,
                   uint8_t *packed) {
    glb_pack_chains(program, run, plan, state, 0, run->n_chains, packed, ((int64_t)program->n_sites + 7) / 8);
    return GLB_OK;
}
