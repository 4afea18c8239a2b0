/* Potts spins without edges (p-dits), any number of states: weights of one site, and the words of many draws. */

/* The largest field of an allowed state. */
GLB_INLINE int32_t best_of(const int32_t *field, const uint8_t *allowed, int32_t n) {
    int32_t best = INT32_MIN;
    int32_t k = 0;
#if defined(GLB_AVX512)
    if (allowed == NULL) {
        __m512i most = _mm512_set1_epi32(INT32_MIN);
        for (; k + 16 <= n; k += 16) {
            most = _mm512_max_epi32(most, _mm512_loadu_si512(field + k));
        }
        best = _mm512_reduce_max_epi32(most);
    }
#endif
    for (; k < n; k++) {
        best = (allowed == NULL || allowed[k] != 0) && field[k] > best ? field[k] : best;
    }
    return best;
}

#if defined(GLB_AVX512)
/* exp2_of the gaps to the best of eight states each. */
GLB_INLINE void weights_of(const int32_t *field, int32_t best, int many, __m512i b, __m512i beyond, __m512i e[]) {
    for (int i = 0; i < many; i++) {
        __m512i own = _mm512_cvtepi32_epi64(_mm256_loadu_si256((const void *)(field + 8 * i)));
        e[i] = _mm512_sub_epi64(_mm512_set1_epi64(best), own);
    }
    exp2_of(e, many, b, beyond);
}
#endif

/* Inclusive sums of 2^62 2^(-(best - field[k]) b / 2^32) >> shift over the allowed states: glb_exp2 of eight states at
 * once. Returns the last. */
static uint64_t dit_sums(const int32_t *field, const uint8_t *allowed, uint64_t b, uint32_t shift, int32_t n,
                         uint64_t *out) {
    int32_t best = best_of(field, allowed, n);
    uint64_t total = 0;
    int32_t k = 0;
#if defined(GLB_AVX512)
    __m512i zero = _mm512_setzero_si512();
    __m512i before = zero;
    __m512i beyond = first_beyond(b);
    __m512i factor = _mm512_set1_epi64((long long)b);
    for (int many = 4; many > 0; many -= 3) { /* four vectors at a time, then one */
        for (; k + 8 * many <= n; k += 8 * many) {
            __m512i e[4];
            if (many == 4) {
                weights_of(field + k, best, 4, factor, beyond, e);
            } else {
                weights_of(field + k, best, 1, factor, beyond, e);
            }
            for (int i = 0; i < many; i++) {
                __mmask8 there = 0xFF;
                if (allowed != NULL) {
                    __m128i bytes = _mm_loadl_epi64((const void *)(allowed + k + 8 * i));
                    there = (__mmask8)_mm_test_epi8_mask(bytes, bytes);
                }
                __m512i sum = _mm512_maskz_srl_epi64(there, e[i], _mm_cvtsi32_si128((int)shift));
                sum = _mm512_add_epi64(sum, _mm512_alignr_epi64(sum, zero, 7));
                sum = _mm512_add_epi64(sum, _mm512_alignr_epi64(sum, zero, 6));
                sum = _mm512_add_epi64(sum, _mm512_alignr_epi64(sum, zero, 4));
                sum = _mm512_add_epi64(sum, before);
                before = _mm512_permutexvar_epi64(_mm512_set1_epi64(7), sum);
                _mm512_storeu_si512(out + k + 8 * i, sum);
            }
        }
    }
    total = (uint64_t)_mm_cvtsi128_si64(_mm512_castsi512_si128(before));
#endif
    for (; k < n; k++) {
        int there = allowed == NULL || allowed[k] != 0;
        total += there ? glb_exp2(glb_scale((uint64_t)((int64_t)best - field[k]), b)) >> shift : 0;
        out[k] = total;
    }
    return total;
}

/* For each lane the number of sums at or below its target; `ends` has the last sum of each block. Padding is all ones. */
static void dit_find(const uint64_t *sum, const uint64_t *ends, int32_t n_blocks, const uint64_t *target, int lanes,
                     int32_t *state) {
    enum { NEAR = 64 };
    for (int lane = 0; lane < lanes; lane++) {
        int32_t block = 0;
        int32_t length = n_blocks;
        while (length > NEAR) { /* whole vectors of eight stay whole: `block` may lag, and the count makes up for it */
            int32_t half = length / 16 * 8;
            block += half & -(int32_t)(ends[block + half - 1] <= target[lane]);
            length -= half;
        }
        int32_t found = 0;
#if defined(GLB_AVX512)
        __m512i t = _mm512_set1_epi64((long long)target[lane]);
        for (int32_t k = 0; k < length; k += 8) {
            found += __builtin_popcount(_mm512_cmple_epu64_mask(_mm512_loadu_si512(ends + block + k), t));
        }
        block += found;
        found = 0;
        for (int32_t k = 0; k < GLB_DIT_BLOCK; k += 8) {
            found += __builtin_popcount(
                _mm512_cmple_epu64_mask(_mm512_loadu_si512(sum + (int64_t)GLB_DIT_BLOCK * block + k), t));
        }
#else
        while (found < length && ends[block + found] <= target[lane]) {
            found++;
        }
        block += found;
        for (found = 0; sum[(int64_t)GLB_DIT_BLOCK * block + found] <= target[lane];) {
            found++;
        }
#endif
        state[lane] = GLB_DIT_BLOCK * block + found;
    }
}

/* The words of up to V draws for four positions: counters (a, sweep[i], chain[i], 0). */
static void dit_words(const glb_key *key, uint32_t a, const uint32_t *sweep_low, const uint32_t *chain,
                      uint32_t out[4][16]) {
    words x[4] = {splat(a), load(sweep_low), load(chain), splat(0)};
    GLB_THREEFRY4X32(x, key);
    for (int w = 0; w < 4; w++) {
        store(out[w], x[w]);
    }
}
