/* Replica planes, any program and run: the field of each chain as an integer, its exact threshold, one decision. Under
 * Metropolis fields are taken times the spins, and what is decided is who flips. */

#if GLB_VECTOR_BYTES > 4
typedef uint16_t vu16 __attribute__((vector_size(GLB_VECTOR_BYTES)));
#endif

/* Adds weight x spin of the 32 chains of a word to their fields, which start at what all spins -1 give: twice the
 * weight where the bit is set. Unsigned, for sums modulo 2^16 or 2^32 come out right whatever happens on the way. */
GLB_INLINE void narrow_fields(const glb_sweep_data *data, const uint32_t *block, int W, int32_t position,
                              int32_t field[32]) {
    const glb_ising *program = data->program;
#if GLB_VECTOR_BYTES > 4
    enum { N = 64 / GLB_VECTOR_BYTES, LANES = GLB_VECTOR_BYTES / 2 };
    vu16 total[N];
    uint16_t narrow[32];
    memset(total, 0, sizeof total);
#if !defined(GLB_AVX512)
    vu16 bit[N];
    for (int i = 0; i < 32; i++) {
        narrow[i] = (uint16_t)(1u << (i % 16));
    }
    memcpy(bit, narrow, sizeof bit);
#endif
    uint16_t down = 0;
    for (int64_t k = program->row_start[position]; k < program->row_start[position + 1]; k++) {
        uint32_t word = block[(int64_t)W * program->neighbour[k]];
        uint16_t weight = (uint16_t)program->weight[k];
        down = (uint16_t)(down + weight);
        vu16 twice = (vu16){0} + (uint16_t)(2u * weight);
#if defined(GLB_AVX512)
        total[0] = (vu16)_mm512_mask_add_epi16((__m512i)total[0], word, (__m512i)total[0], (__m512i)twice);
#else
        for (int v = 0; v < N; v++) {
            vu16 half = (vu16){0} + (uint16_t)(v * LANES < 16 ? word : word >> 16);
            if (LANES == 8) {
                half = (vu16){0} + (uint16_t)(word >> (16 * (v / 2)));
            }
            total[v] += twice & (vu16)((half & bit[v]) == bit[v]);
        }
#endif
    }
    memcpy(narrow, total, sizeof narrow);
    for (int i = 0; i < 32; i++) {
        field[i] = (int16_t)(uint16_t)(narrow[i] - down);
    }
#else
    uint32_t total[32] = {0};
    for (int64_t k = program->row_start[position]; k < program->row_start[position + 1]; k++) {
        uint32_t word = block[(int64_t)W * program->neighbour[k]];
        uint32_t weight = (uint32_t)program->weight[k];
        for (int i = 0; i < 32; i++) {
            total[i] += (word >> i) & 1u ? weight : 0u - weight;
        }
    }
    for (int i = 0; i < 32; i++) {
        field[i] = (int32_t)total[i];
    }
#endif
}

GLB_INLINE void wide_fields(const glb_sweep_data *data, const uint32_t *block, int W, int32_t position,
                            int32_t field[32]) {
#if GLB_VECTOR_BYTES > 4
    const glb_ising *program = data->program;
    enum { N = 128 / GLB_VECTOR_BYTES };
    words total[N];
    uint32_t down = 0;
    memset(total, 0, sizeof total);
    for (int64_t k = program->row_start[position]; k < program->row_start[position + 1]; k++) {
        uint32_t word = block[(int64_t)W * program->neighbour[k]];
        uint32_t weight = (uint32_t)program->weight[k];
        down += weight;
        words twice = splat(2u * weight);
#if defined(GLB_AVX512)
        for (int v = 0; v < N; v++) {
            total[v] = (words)_mm512_mask_add_epi32((__m512i)total[v], (__mmask16)(word >> (16 * v)),
                                                    (__m512i)total[v], (__m512i)twice);
        }
#else
        for (int v = 0; v < N; v++) {
            total[v] += twice & from_lanes(word >> (V * v));
        }
#endif
    }
    for (int v = 0; v < N; v++) {
        total[v] -= down;
    }
    memcpy(field, total, sizeof total);
#else
    narrow_fields(data, block, W, position, field);
#endif
}

static void exact_kernel(const glb_sweep_data *data, const glb_part *part) {
    const glb_run *run = data->run;
    const glb_plan *plan = data->plan;
    int W = plan->words;
    int64_t items = (int64_t)(part->end - part->begin) * W;
    int flips = run->dynamics == GLB_BY_METROPOLIS;
    uint32_t purpose = flips ? GLB_METROPOLIS : GLB_DECISION;
    glb_key key = glb_make_key(run->seed, purpose, GLB_REPLICA_PLANES, run->stream, data->sweep);
    for (int32_t number = part->first; number < part->last; number++) {
        uint32_t *block = data->state + (int64_t)number * plan->rows * W;
        const uint32_t *open = data->free + (int64_t)number * plan->rows * W;
        uint32_t first_word = (run->first_chain >> 5) + (uint32_t)(number * W);
        for (int64_t start = 0; start < items; start += V) {
            uint32_t a[V] = {0};
            uint32_t c[V] = {0};
            uint32_t random[8][V];
            int count = items - start < V ? (int)(items - start) : V;
            uint32_t some = 0;
            for (int i = 0; i < count; i++) {
                a[i] = (uint32_t)(part->begin + (start + i) / W);
                c[i] = first_word + (uint32_t)((start + i) % W);
                some |= open[(int64_t)W * part->begin + start + i];
            }
            if (some == 0) {
                continue;
            }
            first_planes(&key, a, c, (uint32_t)data->sweep, random);
            for (int i = 0; i < count; i++) {
                int64_t at = (int64_t)W * part->begin + start + i;
                int32_t position = (int32_t)a[i];
                int32_t field[32];
                uint32_t threshold[32];
                if (open[at] == 0) {
                    continue;
                }
                if (plan->sum <= INT16_MAX) {
                    narrow_fields(data, block + at % W, W, position, field);
                } else {
                    wide_fields(data, block + at % W, W, position, field);
                }
                if (run->chain_field != NULL) {
                    const int32_t *own = run->chain_field + plan->lanes * position +
                                         32 * (int64_t)(c[i] - (run->first_chain >> 5));
                    for (int lane = 0; lane < 32; lane++) {
                        field[lane] += own[lane];
                    }
                } else {
                    for (int lane = 0; lane < 32; lane++) {
                        field[lane] += data->program->field[position];
                    }
                }
                for (int lane = 0; flips && lane < 32; lane++) {
                    field[lane] = (block[at] >> lane) & 1u ? field[lane] : -field[lane];
                }
                if (data->heat_of_lane == NULL) {
                    thresholds_of(data, 0, field, threshold);
                } else {
                    int64_t word = (int64_t)(c[i] - (run->first_chain >> 5));
                    thresholds_by_lane(data, data->heat_of_lane + 32 * word, field, threshold);
                }
                uint32_t below =
                    glb_decide_lanes(&key, a[i], c[i], (uint32_t)data->sweep, &random[0][i], V, threshold, open[at]);
                block[at] = flips ? block[at] ^ below : (block[at] & ~open[at]) | below;
            }
        }
    }
}
