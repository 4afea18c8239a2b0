/* The Ising update, included once per instruction set with GLB_KERNEL and GLB_VECTOR_BYTES (0: no vectors) defined.
 *
 * Thirty-two lanes are decided together: their fields become thresholds, the thresholds' top bytes are transposed
 * into bit planes, and those are compared with the planes of the random words, most significant first. After eight
 * planes one lane in 256 is still undecided; those go on, four planes a call. Stopping early cannot change a result.
 */
#include <string.h>

#include "ising.h"

#if GLB_VECTOR_BYTES
typedef uint32_t vu32 __attribute__((vector_size(GLB_VECTOR_BYTES)));
typedef int32_t vi32 __attribute__((vector_size(GLB_VECTOR_BYTES)));
typedef int16_t vi16 __attribute__((vector_size(GLB_VECTOR_BYTES)));
typedef int8_t vi8_half __attribute__((vector_size(GLB_VECTOR_BYTES / 2)));
typedef int8_t vi8_quarter __attribute__((vector_size(GLB_VECTOR_BYTES / 4)));
enum { GROUP = GLB_VECTOR_BYTES / 4 };
#else
typedef uint32_t vu32;
enum { GROUP = 1 };
#endif

/* The first eight planes of GROUP words at once: planes[k][i] belongs to the counter (a[i], sweep, c[i], k / 4). */
static inline void first_planes(const glb_key *key, const uint32_t a[GROUP], const uint32_t c[GROUP],
                                uint32_t sweep_low, uint32_t planes[8][GROUP]) {
    for (uint32_t g = 0; g < 2; g++) {
        vu32 x[4];
        memcpy(&x[0], a, sizeof x[0]);
        memcpy(&x[2], c, sizeof x[2]);
        x[1] = (vu32){0} + sweep_low;
        x[3] = (vu32){0} + g;
        GLB_THREEFRY4X32(x, key);
        for (int w = 0; w < 4; w++) {
            memcpy(planes[4 * g + (uint32_t)w], &x[w], sizeof x[w]);
        }
    }
}

/* Byte `level` (0 is the top one) of 32 thresholds as eight planes, most significant first. */
static inline void threshold_planes(const uint32_t threshold[32], int level, uint32_t planes[8]) {
    int shift = 24 - 8 * level;
    for (int k = 0; k < 8; k++) {
        planes[k] = 0;
    }
    for (int group = 0; group < 4; group++) {
        uint64_t x = 0;
        uint64_t t;
        for (int i = 0; i < 8; i++) {
            x |= (uint64_t)((threshold[8 * group + i] >> shift) & 0xFFu) << (8 * i);
        }
        /* 8 x 8 bit transpose: swap bits across the diagonal at distances 1, 2 and 4. */
        t = (x ^ (x >> 7)) & UINT64_C(0x00AA00AA00AA00AA);
        x ^= t ^ (t << 7);
        t = (x ^ (x >> 14)) & UINT64_C(0x0000CCCC0000CCCC);
        x ^= t ^ (t << 14);
        t = (x ^ (x >> 28)) & UINT64_C(0x00000000F0F0F0F0);
        x ^= t ^ (t << 28);
        for (int k = 0; k < 8; k++) {
            planes[k] |= (uint32_t)((x >> (8 * (7 - k))) & 0xFFu) << (8 * group);
        }
    }
}

/* The lanes of `mask` whose random word is below their threshold. */
static inline uint32_t decide(const glb_key *key, uint32_t a, uint32_t c, uint32_t sweep_low,
                              uint32_t random[8][GROUP], int item, const uint32_t threshold[32], uint32_t mask) {
    uint32_t below = 0;
    uint32_t planes[8];
    threshold_planes(threshold, 0, planes);
    for (int k = 0; k < 8; k++) {
        below |= mask & planes[k] & ~random[k][item];
        mask &= ~(planes[k] ^ random[k][item]);
    }
    for (int level = 1; mask != 0 && level < 4; level++) {
        threshold_planes(threshold, level, planes);
        for (int half = 0; mask != 0 && half < 2; half++) {
            uint32_t word[4];
            glb_threefry(key, a, sweep_low, c, (uint32_t)(2 * level + half), word);
            for (int w = 0; w < 4; w++) {
                below |= mask & planes[4 * half + w] & ~word[w];
                mask &= ~(planes[4 * half + w] ^ word[w]);
            }
        }
    }
    return below;
}

static inline void set_spins(int8_t spin[32], uint32_t below, uint32_t free) {
    if (free == 0xFFFFFFFFu) {
        for (int i = 0; i < 32; i++) {
            spin[i] = (int8_t)(2 * (int)((below >> i) & 1u) - 1);
        }
    } else {
        for (int i = 0; i < 32; i++) {
            if ((free >> i) & 1u) {
                spin[i] = (int8_t)(2 * (int)((below >> i) & 1u) - 1);
            }
        }
    }
}

static inline void thresholds_of(const glb_ising_sweep_data *data, const int32_t field[32], uint32_t threshold[32]) {
    if (data->table != NULL) {
        const uint32_t *middle = data->table + data->sum;
        for (int i = 0; i < 32; i++) {
            threshold[i] = middle[field[i]];
        }
    } else {
        for (int i = 0; i < 32; i++) {
            threshold[i] = glb_threshold(field[i], data->b);
        }
    }
}

/* Fields of 32 chains of one position: sum over its row of weight x spin, 16 bits where the bound allows. */
static inline void replica_fields(const glb_ising_sweep_data *data, int32_t position, int64_t lane, int32_t field[32]) {
    const glb_ising *program = data->program;
    const int8_t *state = data->state + lane;
    int64_t begin = program->row_start[position];
    int64_t end = program->row_start[position + 1];
#if GLB_VECTOR_BYTES
    if (data->sum <= INT16_MAX) {
        enum { N = 64 / GLB_VECTOR_BYTES, LANES = GLB_VECTOR_BYTES / 2 };
        vi16 total[N];
        int16_t narrow[32];
        memset(total, 0, sizeof total);
        for (int64_t k = begin; k < end; k++) {
            const int8_t *source = state + data->row * program->neighbour[k];
            vi16 weight = (vi16){0} + (int16_t)program->weight[k];
            for (int v = 0; v < N; v++) {
                vi8_half spin;
                memcpy(&spin, source + v * LANES, sizeof spin);
                total[v] += weight * __builtin_convertvector(spin, vi16);
            }
        }
        memcpy(narrow, total, sizeof narrow);
        for (int i = 0; i < 32; i++) {
            field[i] = narrow[i];
        }
    } else {
        enum { N = 128 / GLB_VECTOR_BYTES, LANES = GLB_VECTOR_BYTES / 4 };
        vi32 total[N];
        memset(total, 0, sizeof total);
        for (int64_t k = begin; k < end; k++) {
            const int8_t *source = state + data->row * program->neighbour[k];
            for (int v = 0; v < N; v++) {
                vi8_quarter spin;
                memcpy(&spin, source + v * LANES, sizeof spin);
                total[v] += __builtin_convertvector(spin, vi32) * program->weight[k];
            }
        }
        memcpy(field, total, sizeof total);
    }
#else
    memset(field, 0, 32 * sizeof field[0]);
    for (int64_t k = begin; k < end; k++) {
        const int8_t *source = state + data->row * program->neighbour[k];
        for (int i = 0; i < 32; i++) {
            field[i] += program->weight[k] * source[i];
        }
    }
#endif
    if (data->run->chain_field != NULL) {
        const int32_t *own = data->run->chain_field + data->row * position + lane;
        for (int i = 0; i < 32; i++) {
            field[i] += own[i];
        }
    } else {
        for (int i = 0; i < 32; i++) {
            field[i] += program->field[position];
        }
    }
}

static void replica_planes(const glb_ising_sweep_data *data, const glb_ising_part *part, const glb_key *key) {
    int64_t words = data->row / 32;
    int64_t width = part->lane_end - part->lane_begin;
    int64_t items = (int64_t)(part->end - part->begin) * width;
    uint32_t first_word = data->run->first_chain >> 5;
    for (int64_t start = 0; start < items; start += GROUP) {
        uint32_t a[GROUP] = {0};
        uint32_t c[GROUP] = {0};
        uint32_t random[8][GROUP];
        int count = items - start < GROUP ? (int)(items - start) : GROUP;
        uint32_t any = 0;
        for (int i = 0; i < count; i++) {
            int64_t position = part->begin + (start + i) / width;
            int64_t word = part->lane_begin + (start + i) % width;
            a[i] = (uint32_t)position;
            c[i] = first_word + (uint32_t)word;
            any |= data->free[position * words + word];
        }
        if (any == 0) {
            continue;
        }
        first_planes(key, a, c, (uint32_t)data->sweep, random);
        for (int i = 0; i < count; i++) {
            int64_t word = c[i] - first_word;
            uint32_t free = data->free[(int64_t)a[i] * words + word];
            if (free != 0) {
                int32_t field[32];
                uint32_t threshold[32];
                replica_fields(data, (int32_t)a[i], 32 * word, field);
                thresholds_of(data, field, threshold);
                set_spins(data->state + data->row * a[i] + 32 * word,
                          decide(key, a[i], c[i], (uint32_t)data->sweep, random, i, threshold, free), free);
            }
        }
    }
}

/* Fields of the positions of one word of one chain that are in `mask`; the others get 0, which is in every table. */
static inline void site_fields(const glb_ising_sweep_data *data, const int8_t *spin, int32_t chain, int32_t first,
                               uint32_t mask, int32_t field[32]) {
    const glb_ising *program = data->program;
    for (int i = 0; i < 32; i++) {
        int32_t position = first + i;
        int32_t total = 0;
        if ((mask >> i) & 1u) {
            total = data->run->chain_field != NULL ? data->run->chain_field[data->row * chain + position]
                                                   : program->field[position];
            for (int64_t k = program->row_start[position]; k < program->row_start[position + 1]; k++) {
                total += program->weight[k] * spin[program->neighbour[k]];
            }
        }
        field[i] = total;
    }
}

static void site_planes(const glb_ising_sweep_data *data, const glb_ising_part *part, const glb_key *key) {
    int64_t words = data->row / 32;
    int32_t first = part->begin / 32;
    int32_t last = (part->end - 1) / 32;
    for (int32_t chain = part->lane_begin; chain < part->lane_end; chain++) {
        int8_t *spin = data->state + data->row * chain;
        uint32_t c[GROUP];
        for (int i = 0; i < GROUP; i++) {
            c[i] = data->run->first_chain + (uint32_t)chain;
        }
        for (int32_t start = first; start <= last; start += GROUP) {
            uint32_t a[GROUP];
            uint32_t random[8][GROUP];
            int count = last - start + 1 < GROUP ? last - start + 1 : GROUP;
            for (int i = 0; i < GROUP; i++) {
                a[i] = (uint32_t)(start + i);
            }
            first_planes(key, a, c, (uint32_t)data->sweep, random);
            for (int i = 0; i < count; i++) {
                int32_t position = 32 * (start + i);
                uint32_t mask = data->free[words * chain + start + i];
                if (position < part->begin) {
                    mask &= 0xFFFFFFFFu << (part->begin - position);
                }
                if (part->end - position < 32) {
                    mask &= 0xFFFFFFFFu >> (32 - (part->end - position));
                }
                if (mask != 0) {
                    int32_t field[32];
                    uint32_t threshold[32];
                    site_fields(data, spin, chain, position, mask, field);
                    thresholds_of(data, field, threshold);
                    set_spins(spin + position,
                              decide(key, a[i], c[i], (uint32_t)data->sweep, random, i, threshold, mask), mask);
                }
            }
        }
    }
}

void GLB_KERNEL(const glb_ising_sweep_data *data, const glb_ising_part *part) {
    uint32_t layout = (uint32_t)data->run->layout;
    glb_key key = glb_make_key(data->run->seed, GLB_DECISION, layout, data->run->stream, data->sweep);
    if (part->begin >= part->end || part->lane_begin >= part->lane_end) {
        return;
    }
    if (layout == GLB_REPLICA_PLANES) {
        replica_planes(data, part, &key);
    } else {
        site_planes(data, part, &key);
    }
}
