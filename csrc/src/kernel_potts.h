/* Potts spins of up to 16 states, a vector of decisions at once: chains of one position, or positions of one chain.
 *
 * A field of every state by integer additions, weights by the gap to the best state, inclusive sums, and the count of
 * sums that lie at or below u C / 2^32: machine.md, section 9, lane by lane. Few weights are in a table: in a register of
 * AVX-512, elsewhere in the first cache. Where fields have more gaps, weights are floats of 24 bits, good enough for all but a few decisions in ten thousand;
 * those, whose border is nearer than the floats can be wrong, are taken again with whole numbers.
 */

typedef int32_t ints __attribute__((vector_size(GLB_VECTOR_BYTES)));
typedef float floats __attribute__((vector_size(GLB_VECTOR_BYTES)));

GLB_INLINE floats splat_float(float x) { return (floats){0} + x; }

GLB_INLINE words select_words(words mask, words one, words zero) { return (one & mask) | (zero & ~mask); }

GLB_INLINE ints larger(ints a, ints b) {
#if defined(GLB_AVX512)
    return (ints)_mm512_max_epi32((__m512i)a, (__m512i)b);
#endif
    words mask = (words)(a > b);
    return (ints)select_words(mask, (words)a, (words)b);
}

/* field + weight where a neighbour is in state k. */
GLB_INLINE ints add_where(ints field, words other, int k, words weight) {
#if defined(GLB_AVX512)
    __mmask16 equal = _mm512_cmpeq_epi32_mask((__m512i)other, _mm512_set1_epi32(k));
    return (ints)_mm512_mask_add_epi32((__m512i)field, equal, (__m512i)field, (__m512i)weight);
#else
    return field + (ints)((words)(other == splat((uint32_t)k)) & weight);
#endif
}

/* count + 1 where sum <= target. */
GLB_INLINE words count_up(words count, words sum, words target) {
#if defined(GLB_AVX512)
    __mmask16 passed = _mm512_cmple_epu32_mask((__m512i)sum, (__m512i)target);
    return (words)_mm512_mask_add_epi32((__m512i)count, passed, (__m512i)count, _mm512_set1_epi32(1));
#else
    return count - (words)(sum <= target);
#endif
}

/* table[index] */
GLB_INLINE words lookup(const uint32_t *table, words index) {
#if defined(GLB_AVX512)
    return (words)_mm512_i32gather_epi32((__m512i)index, (const void *)table, 4);
#elif defined(GLB_AVX2)
    return (words)_mm256_i32gather_epi32((const int *)(const void *)table, (__m256i)index, 4);
#else
    uint32_t at[V];
    uint32_t value[V];
    store(at, index);
    for (int i = 0; i < V; i++) {
        value[i] = table[at[i]];
    }
    return load(value);
#endif
}

/* The same of few entries, which AVX-512 has in a register. */
GLB_INLINE words lookup_few(const uint32_t *table, words index) {
#if defined(GLB_AVX512)
    return (words)_mm512_permutexvar_epi32((__m512i)index, (__m512i)load(table));
#else
    return lookup(table, index);
#endif
}

/* floor(a b / 2^32) */
GLB_INLINE words high_product(words a, words b) {
#if defined(GLB_AVX512)
    __m512i even = _mm512_mul_epu32((__m512i)a, (__m512i)b);
    __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)a, 32), _mm512_srli_epi64((__m512i)b, 32));
    return (words)_mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
#elif defined(GLB_AVX2)
    __m256i even = _mm256_mul_epu32((__m256i)a, (__m256i)b);
    __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)a, 32), _mm256_srli_epi64((__m256i)b, 32));
    return (words)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
#else
    uint32_t x[V];
    uint32_t y[V];
    store(x, a);
    store(y, b);
    for (int i = 0; i < V; i++) {
        x[i] = (uint32_t)((uint64_t)x[i] * y[i] >> 32);
    }
    return load(x);
#endif
}

/* 2^-(gap b), within 2^-22 of the weight of section 9 over the best state's: 2^-24.4 by two roundings of the product,
 * which matter most at a weight of 1 / e, 2^-23.7 by the polynomial, and 2^-23 by its roundings. (2^-22.5 was the most
 * seen in ten million, without fused multiply-adds.) */
GLB_INLINE floats rough_weight(words gap, floats b) {
    floats x = __builtin_convertvector((ints)gap, floats) * b;
    floats beyond = splat_float(64.0f); /* a weight of 0 as good as any, whose exponent is still a float's */
#if defined(GLB_AVX512)
    x = (floats)_mm512_min_ps((__m512)x, (__m512)beyond);
#else
    x = (floats)select_words((words)(x < beyond), (words)x, (words)beyond);
#endif
    floats rounded = x + 0x1.8p23f; /* to a whole number, which is in the lowest bits */
    floats f = x - (rounded - 0x1.8p23f);
    floats p = splat_float(-0x1.5c08e6p-10f); /* of 2^-f on -1/2 .. 1/2, with the least largest error */
    p = p * f + 0x1.3d0c52p-7f;
    p = p * f - 0x1.c6b6e4p-5f;
    p = p * f + 0x1.ebf918p-3f;
    p = p * f - 0x1.62e428p-1f;
    p = p * f + 0x1.000002p+0f;
    return (floats)((words)p - ((words)rounded << 23));
}

/* The same of floats: count + 1 where sum <= target. */
GLB_INLINE words count_floats(words count, floats sum, floats target) {
#if defined(GLB_AVX512)
    __mmask16 passed = _mm512_cmp_ps_mask((__m512)sum, (__m512)target, _CMP_LE_OQ);
    return (words)_mm512_mask_add_epi32((__m512i)count, passed, (__m512i)count, _mm512_set1_epi32(1));
#else
    return count - (words)(sum <= target);
#endif
}

/* Takes the decisions of some lanes with whole numbers. */
GLB_APART void decide_exactly(const glb_potts_data *data, const ints *field, words position, words u, words undecided,
                              words *state) {
    int32_t q = data->program->n_states;
    uint32_t at[V];
    uint32_t word[V];
    uint32_t open[V];
    uint32_t drawn[V];
    store(at, position);
    store(word, u);
    store(open, undecided);
    store(drawn, *state);
    for (int i = 0; i < V; i++) {
        if (open[i] != 0) {
            int64_t own[GLB_POTTS_STATES];
            uint64_t sum[GLB_POTTS_STATES];
            for (int k = 0; k < q; k++) {
                own[k] = field[k][i];
            }
            drawn[i] = (uint32_t)glb_potts_draw(data->program, (int32_t)at[i], own, sum, data->b, word[i]);
        }
    }
    *state = load(drawn);
}

/* The states that u draws. allowed: a mask by state, or NULL. */
GLB_INLINE words draw_states(const glb_potts_data *data, const ints *field, const words *allowed, words position,
                             words u, int q, int FEW) {
    ints best = field[0];
    words state = splat(0);
    if (allowed != NULL) {
        best = (ints)select_words(allowed[0], (words)best, splat(0x80000000u));
    }
    for (int k = 1; k < q; k++) {
        ints own = field[k];
        if (allowed != NULL) {
            own = (ints)select_words(allowed[k], (words)own, splat(0x80000000u));
        }
        best = larger(best, own);
    }
    if (FEW) {
        words sum[GLB_POTTS_STATES];
        words total = splat(0);
        for (int k = 0; k < q; k++) {
            words gap = (words)best - (words)field[k];
            words weight = lookup_few(data->weights, allowed == NULL ? gap : gap & allowed[k]);
            total += allowed == NULL ? weight : weight & allowed[k];
            sum[k] = total;
        }
        words target = high_product(u, total);
        for (int k = 0; k + 1 < q; k++) {
            state = count_up(state, sum[k], target);
        }
        return state;
    }
    floats sum[GLB_POTTS_STATES];
    floats total = splat_float(0);
    floats b = splat_float(0x1p-32f * (float)data->b);
    for (int k = 0; k < q; k++) {
        words gap = (words)best - (words)field[k];
        floats weight = rough_weight(allowed == NULL ? gap : gap & allowed[k], b);
        total += allowed == NULL ? weight : (floats)((words)weight & allowed[k]);
        sum[k] = total;
    }
    /* A sum is wrong by q (2^-22 + 15 2^-24) at most, as each of up to 15 additions rounds a number of up to q; the
     * target by that and q 2^-23; the contract's own floors and the rounding of `low` and `high` add less than q 2^-23:
     * together less than q 2^-18. */
    floats target = __builtin_convertvector((ints)(u >> 8), floats) * 0x1p-24f * total;
    floats wrong = splat_float(0x1p-18f * (float)q);
    floats low = target - wrong;
    floats high = target + wrong;
    words most = splat(0);
    for (int k = 0; k + 1 < q; k++) {
        state = count_floats(state, sum[k], low);
        most = count_floats(most, sum[k], high);
    }
    words undecided = state ^ most;
    if (any(undecided)) {
        decide_exactly(data, field, position, u, undecided, &state);
    }
    return state;
}

/* The words of 4 V positions of a chain from a multiple of four on: word (position & 3) of the counter
 * (position >> 2, sweep, chain, 0). */
typedef struct {
    int64_t first;
    uint32_t word[4 * V];
} drawn_words;

/* Those of V positions from `position` on; drawn again where the last draw does not hold them. */
GLB_INLINE words words_at(drawn_words *drawn, const glb_key *key, uint32_t sweep_low, uint32_t chain,
                          int32_t position) {
    if (position < drawn->first || position + V > drawn->first + 4 * V) {
        uint32_t four[4][V];
        words x[4];
        drawn->first = position & ~3;
        random_planes(key, counting(1) + (uint32_t)(position >> 2), sweep_low, splat(chain), 0, x);
        for (int w = 0; w < 4; w++) {
            store(four[w], x[w]);
        }
        for (int i = 0; i < V; i++) {
            for (int w = 0; w < 4; w++) {
                drawn->word[4 * i + w] = four[w][i];
            }
        }
    }
    return load(drawn->word + (position - drawn->first));
}

/* All positions of one block of V chains: spins are bytes [position][chain]. */
GLB_INLINE void potts_chains_block(const glb_potts_data *data, int64_t number, int q, int FEW) {
    const glb_potts *program = data->program;
    const glb_run *run = data->run;
    uint8_t *spins = data->spins + (int64_t)V * program->n_sites * number;
    glb_key key = glb_make_key(run->seed, GLB_CATEGORICAL, 0, run->stream, data->sweep);
    words chain = counting(1) + (run->first_chain + (uint32_t)(V * number));
    int32_t real = run->n_chains - (int32_t)(V * number) < V ? run->n_chains - (int32_t)(V * number) : V;
    words x[4];
    for (int32_t p = 0; p < program->n_sites; p++) {
        ints field[GLB_POTTS_STATES];
        words allowed[GLB_POTTS_STATES];
        uint32_t lane[V];
        if (p % 4 == 0) {
            random_planes(&key, splat((uint32_t)p / 4), (uint32_t)data->sweep, chain, 0, x);
        }
        for (int k = 0; k < q; k++) {
            field[k] = (ints)splat((uint32_t)program->field[(int64_t)p * q + k]);
            if (run->chain_field != NULL) {
                for (int i = 0; i < V; i++) {
                    int64_t c = i < real ? V * number + i : V * number;
                    lane[i] = (uint32_t)run->chain_field[(c * program->n_sites + p) * q + k];
                }
                field[k] = (ints)load(lane);
            }
            if (program->allowed != NULL) {
                allowed[k] = splat(0u - (uint32_t)(program->allowed[(int64_t)p * q + k] != 0));
            }
        }
        for (int64_t r = program->row_start[p]; r < program->row_start[p + 1]; r++) {
            const uint8_t *source = spins + (int64_t)V * program->neighbour[r];
            for (int i = 0; i < V; i++) {
                lane[i] = source[i];
            }
            words other = load(lane);
            if (program->weight != NULL) {
                words weight = splat((uint32_t)program->weight[r]);
                for (int k = 0; k < q; k++) {
                    field[k] = add_where(field[k], other, k, weight);
                }
            } else {
                const uint32_t *table = (const uint32_t *)(const void *)(program->table + program->table_start[r]);
                for (int k = 0; k < q; k++) {
                    field[k] += (ints)lookup(table + k, other * (uint32_t)q);
                }
            }
        }
        words drawn = draw_states(data, field, program->allowed != NULL ? allowed : NULL, splat((uint32_t)p), x[p % 4], q,
                                  FEW);
        store(lane, drawn);
        uint8_t *target = spins + (int64_t)V * p;
        if (run->potts_clamp == NULL) {
            for (int i = 0; i < V; i++) {
                target[i] = (uint8_t)lane[i];
            }
        } else {
            for (int i = 0; i < real; i++) {
                if (run->potts_clamp[(V * number + i) * program->n_sites + p] < 0) {
                    target[i] = (uint8_t)lane[i];
                }
            }
        }
    }
}

/* One chain, V positions of a colour at once: spins are int32 by position. */
GLB_INLINE void potts_sites_chain(const glb_potts_data *data, int64_t number, int q, int FEW) {
    const glb_potts *program = data->program;
    const glb_run *run = data->run;
    int32_t *spins = data->state + number * program->n_sites;
    const int32_t *held = run->potts_clamp == NULL ? NULL : run->potts_clamp + number * program->n_sites;
    const int32_t *own = run->chain_field == NULL ? NULL : run->chain_field + number * program->n_sites * q;
    glb_key key = glb_make_key(run->seed, GLB_CATEGORICAL, 0, run->stream, data->sweep);
    uint32_t chain = run->first_chain + (uint32_t)number;
    drawn_words random;
    random.first = -4 * V;
    for (int64_t g = 0; g < data->n_groups; g++) {
        const glb_potts_group *group = data->groups + g;
        const uint32_t *entry = data->entries + group->entry;
        ints field[GLB_POTTS_STATES];
        words allowed[GLB_POTTS_STATES];
        uint32_t lane[V];
        words safe = select_words((words)(counting(1) < splat((uint32_t)group->count)),
                                  counting(1) + (uint32_t)group->first, splat((uint32_t)group->first));
        for (int k = 0; k < q; k++) {
            if (run->chain_field == NULL) { /* in the net, vector by vector */
                field[k] = (ints)load(entry + V * k);
            } else {
                field[k] = (ints)lookup((const uint32_t *)(const void *)own + k, safe * (uint32_t)q);
            }
            if (program->allowed != NULL) {
                store(lane, safe);
                for (int i = 0; i < V; i++) {
                    lane[i] = 0u - (uint32_t)(program->allowed[(int64_t)lane[i] * q + k] != 0);
                }
                allowed[k] = load(lane);
            }
        }
        entry += V * q;
        for (int32_t slot = 0; slot < group->slots; slot++, entry += 2 * V) {
            words other = lookup((const uint32_t *)(const void *)spins, load(entry));
            words second = load(entry + V);
            if (program->weight != NULL) {
                for (int k = 0; k < q; k++) {
                    field[k] = add_where(field[k], other, k, second);
                }
            } else { /* where its table begins, or all ones where there is no such neighbour */
                words there = (words)(second != splat(0xFFFFFFFFu));
                for (int k = 0; k < q; k++) {
                    words at = (second + other * (uint32_t)q + (uint32_t)k) & there;
                    field[k] += (ints)(lookup((const uint32_t *)(const void *)program->table, at) & there);
                }
            }
        }
        words u = words_at(&random, &key, (uint32_t)data->sweep, chain, group->first);
        words drawn = draw_states(data, field, program->allowed != NULL ? allowed : NULL, safe, u, q, FEW);
        store(lane, drawn);
        for (int i = 0; i < group->count; i++) {
            if (held == NULL || held[group->first + i] < 0) {
                spins[group->first + i] = (int32_t)lane[i];
            }
        }
    }
}

/* Blocks of V chains, or chains, begin .. end - 1. Two, three and four states, and few weights, have code of their
 * own: loops over states unroll. */
static void potts_kernel(const glb_potts_data *data, int64_t begin, int64_t end) {
    int few = data->n_table > 0;
    for (int64_t number = begin; number < end; number++) {
#define GLB_DRAW(Q)                                                                                                    \
    if (data->form == GLB_POTTS_SITES) {                                                                               \
        few ? potts_sites_chain(data, number, Q, 1) : potts_sites_chain(data, number, Q, 0);                           \
    } else {                                                                                                           \
        few ? potts_chains_block(data, number, Q, 1) : potts_chains_block(data, number, Q, 0);                         \
    }
        GLB_BY_STATES(data->program->n_states, GLB_DRAW)
#undef GLB_DRAW
    }
}
