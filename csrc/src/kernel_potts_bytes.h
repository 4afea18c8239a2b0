/* Potts spins whose fields fit in bytes: equal-state weights and few gaps, four decisions in every lane of 32 bits.
 *
 * Fields of a vector of bytes are compared and added at once. What is left, weights by the gap to the best state and
 * their sums (machine.md, section 9), needs 32 bits: byte w of lane i is decision 4 i + w, and four passes take a byte
 * each. A weight is found by the lowest bits of a lane alone, so a pass shifts the gaps and needs no transposition.
 *
 * Positions of one chain: the words of the counters p / 4 + i belong to the positions p + 4 i + w, just so. Chains of
 * one position: a block has chain V w + i in byte 4 i + w.
 */

enum { BYTES = GLB_VECTOR_BYTES };

typedef uint8_t bytes __attribute__((vector_size(GLB_VECTOR_BYTES)));

GLB_INLINE bytes load_bytes(const uint8_t *source) {
    bytes v;
    memcpy(&v, source, sizeof v);
    return v;
}

GLB_INLINE void store_bytes(uint8_t *target, bytes v) { memcpy(target, &v, sizeof v); }

GLB_INLINE bytes splat_byte(int x) {
#if defined(GLB_AVX512)
    return (bytes)_mm512_set1_epi8((char)x);
#else
    return (bytes)_mm256_set1_epi8((char)x);
#endif
}

/* Of signed bytes. */
GLB_INLINE bytes larger_bytes(bytes a, bytes b) {
#if defined(GLB_AVX512)
    return (bytes)_mm512_max_epi8((__m512i)a, (__m512i)b);
#else
    return (bytes)_mm256_max_epi8((__m256i)a, (__m256i)b);
#endif
}

/* field + weight where a neighbour is in state k. */
GLB_INLINE bytes add_where_byte(bytes field, bytes other, int k, bytes weight) {
#if defined(GLB_AVX512)
    __mmask64 equal = _mm512_cmpeq_epi8_mask((__m512i)other, (__m512i)splat_byte(k));
    return (bytes)_mm512_mask_add_epi8((__m512i)field, equal, (__m512i)field, (__m512i)weight);
#else
    return field + ((bytes)(other == splat_byte(k)) & weight);
#endif
}

/* Entry (index mod V) of a table in a register. */
GLB_INLINE words entry_of(words table, words index) {
#if defined(GLB_AVX512)
    return (words)_mm512_permutexvar_epi32((__m512i)index, (__m512i)table);
#else
    return (words)_mm256_permutevar8x32_epi32((__m256i)table, (__m256i)index);
#endif
}

/* count + one where sum <= target. */
GLB_INLINE words count_up_by(words count, words sum, words target, uint32_t one) {
#if defined(GLB_AVX512)
    __mmask16 passed = _mm512_cmple_epu32_mask((__m512i)sum, (__m512i)target);
    return (words)_mm512_mask_add_epi32((__m512i)count, passed, (__m512i)count, (__m512i)splat(one));
#else
    return count + ((words)(sum <= target) & splat(one));
#endif
}

/* The states that the words u draw: word w of lane i is that of byte 4 i + w. */
GLB_INLINE bytes draw_bytes(words table, const bytes *field, const words u[4], int q) {
    words gap[GLB_POTTS_STATES];
    words state = splat(0);
    bytes best = field[0];
    for (int k = 1; k < q; k++) {
        best = larger_bytes(best, field[k]);
    }
    for (int k = 0; k < q; k++) {
        gap[k] = (words)(best - field[k]);
    }
    for (int w = 0; w < 4; w++) {
        words sum[GLB_POTTS_STATES];
        words total = splat(0);
        for (int k = 0; k < q; k++) {
            total += entry_of(table, gap[k] >> (8 * w));
            sum[k] = total;
        }
        words target = high_product(u[w], total);
        for (int k = 0; k + 1 < q; k++) {
            state = count_up_by(state, sum[k], target, 1u << (8 * w));
        }
    }
    return (bytes)state;
}

/* drawn where kept is all ones, else as it was. */
GLB_INLINE void put_drawn(uint8_t *target, bytes drawn, bytes kept) {
    store_bytes(target, (drawn & kept) | (load_bytes(target) & ~kept));
}

/* All positions of one block of 4 V chains: spins are bytes [position][chain]. */
GLB_INLINE void potts_bytes_block(const glb_potts_data *data, int64_t number, int q) {
    const glb_potts *program = data->program;
    const glb_run *run = data->run;
    int64_t at = BYTES * program->n_sites * number;
    uint8_t *spins = data->spins + at;
    const uint8_t *open = data->open == NULL ? NULL : data->open + at;
    glb_key key = glb_make_key(run->seed, GLB_CATEGORICAL, 0, run->stream, data->sweep);
    words chain = counting(1) + (run->first_chain + (uint32_t)(BYTES * number));
    words table = load(data->weights);
    words random[4][4]; /* [byte of a lane][position & 3] */
    for (int32_t p = 0; p < program->n_sites; p++) {
        bytes field[GLB_POTTS_STATES];
        words u[4];
        if (p % 4 == 0) {
            for (uint32_t w = 0; w < 4; w++) {
                random_planes(&key, splat((uint32_t)p / 4), (uint32_t)data->sweep, chain + V * w, 0, random[w]);
            }
        }
        for (int k = 0; k < q; k++) {
            field[k] = splat_byte(data->fields[(int64_t)p * q + k]);
        }
        for (int64_t r = program->row_start[p]; r < program->row_start[p + 1]; r++) {
            bytes other = load_bytes(spins + (int64_t)BYTES * program->neighbour[r]);
            bytes weight = splat_byte(program->weight[r]);
            for (int k = 0; k < q; k++) {
                field[k] = add_where_byte(field[k], other, k, weight);
            }
        }
        for (int w = 0; w < 4; w++) {
            u[w] = random[w][p % 4];
        }
        bytes drawn = draw_bytes(table, field, u, q);
        uint8_t *target = spins + (int64_t)BYTES * p;
        if (open == NULL) {
            store_bytes(target, drawn);
        } else {
            put_drawn(target, drawn, load_bytes(open + (int64_t)BYTES * p));
        }
    }
}

/* One chain, 4 V positions at once, of which those of one colour are kept: spins are bytes by position. */
GLB_INLINE void potts_bytes_chain(const glb_potts_data *data, int64_t number, int q) {
    const glb_run *run = data->run;
    int64_t at = data->row * number + GLB_POTTS_PAD;
    uint8_t *spins = data->spins + at;
    const uint8_t *open = data->open == NULL ? NULL : data->open + at;
    glb_key key = glb_make_key(run->seed, GLB_CATEGORICAL, 0, run->stream, data->sweep);
    words chain = splat(run->first_chain + (uint32_t)number);
    words table = load(data->weights);
    for (int64_t g = 0; g < data->n_groups; g++) {
        const glb_potts_byte_group *group = data->byte_groups + g;
        const int32_t *distance = data->distances + group->distance;
        const uint8_t *row = data->rows + BYTES * group->row;
        const uint8_t *here = spins + group->start;
        bytes field[GLB_POTTS_STATES];
        words u[4];
        bytes kept = load_bytes(row);
        random_planes(&key, counting(1) + (uint32_t)(group->start / 4), (uint32_t)data->sweep, chain, 0, u);
        row += BYTES;
        for (int k = 0; k < q; k++, row += BYTES) {
            field[k] = load_bytes(row);
        }
        for (int32_t i = 0; i < group->n_distances; i++, row += BYTES) {
            bytes other = load_bytes(here + distance[i]);
            bytes weight = load_bytes(row);
            for (int k = 0; k < q; k++) {
                field[k] = add_where_byte(field[k], other, k, weight);
            }
        }
        if (open != NULL) {
            kept &= load_bytes(open + group->start);
        }
        put_drawn(spins + group->start, draw_bytes(table, field, u, q), kept);
    }
}

/* Blocks of 4 V chains, or chains, begin .. end - 1. Two to five states have code of their own, where loops unroll. */
static void potts_bytes_kernel(const glb_potts_data *data, int64_t begin, int64_t end) {
    for (int64_t number = begin; number < end; number++) {
#define GLB_DRAW(Q)                                                                                                    \
    if (data->form == GLB_POTTS_SITE_BYTES) {                                                                          \
        potts_bytes_chain(data, number, Q);                                                                            \
    } else {                                                                                                           \
        potts_bytes_block(data, number, Q);                                                                            \
    }
        GLB_BY_STATES(data->program->n_states, GLB_DRAW)
#undef GLB_DRAW
    }
}
