/* Thresholds of many fields at one temperature, and their bits as planes (independent sites). */

#if defined(GLB_AVX512)
/* Fields as numbers of 64 bits become thresholds. */
GLB_INLINE void fields_to_thresholds(__m512i field[], int many, __m512i b, __m512i beyond) {
    enum { MOST = 4 };
    __m512i d[MOST];
    __m512d quotient[MOST];
    __m512d one = _mm512_set1_pd(1.0);
    for (int i = 0; i < many; i++) {
        d[i] = _mm512_abs_epi64(field[i]);
    }
    exp2_of(d, many, b, beyond);
    /* 2^63 / d, which is at most 2^32, rounded down. With r = (1 - e) / d and |e| <= 2^-14 by the instruction's bound,
     * r (1 + e + e^2) is (1 - e^3) / d: within 2^-41, with all roundings. A part in 2^40 less makes the quotient too
     * small, but by less than 2^-6. So its whole part is the wanted one or that less 1, and in the latter case at least
     * d is left of 2^63. A division takes longer. */
    for (int i = 0; i < many; i++) {
        d[i] = _mm512_add_epi64(d[i], _mm512_set1_epi64((INT64_C(1) << 62) + (INT64_C(1) << 30)));
        d[i] = _mm512_srli_epi64(d[i], 31);
        __m512d divisor = _mm512_cvtepu64_pd(d[i]);
        __m512d inverse = _mm512_rcp14_pd(divisor);
        __m512d rest = _mm512_fnmadd_pd(divisor, inverse, one);
        inverse = _mm512_mul_pd(inverse, _mm512_set1_pd(0x1p63 - 0x1p23));
        quotient[i] = _mm512_fmadd_pd(inverse, _mm512_fmadd_pd(rest, rest, rest), inverse);
    }
    for (int i = 0; i < many; i++) {
        __m512i t = _mm512_cvttpd_epu64(quotient[i]);
        __m512i left = _mm512_sub_epi64(_mm512_set1_epi64(INT64_MIN), _mm512_mullo_epi64(t, d[i])); /* modulo 2^64 */
        t = _mm512_mask_add_epi64(t, _mm512_cmpge_epu64_mask(left, d[i]), t, _mm512_set1_epi64(1));
        t = _mm512_min_epu64(t, _mm512_set1_epi64(INT64_C(0xFFFFFFFF)));
        field[i] = _mm512_mask_sub_epi64(t, _mm512_movepi64_mask(field[i]), _mm512_set1_epi64(INT64_C(1) << 32), t);
    }
}

/* glb_threshold of 16 fields. */
GLB_INLINE void sixteen_thresholds(__m512i field, uint64_t b, uint32_t out[16]) {
    __m512i t[2] = {_mm512_cvtepi32_epi64(_mm512_castsi512_si256(field)),
                    _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(field, 1))};
    fields_to_thresholds(t, 2, _mm512_set1_epi64((long long)b), first_beyond(b));
    for (int k = 0; k < 2; k++) {
        _mm256_storeu_si256((void *)(out + 8 * k), _mm512_cvtepi64_epi32(t[k]));
    }
}
#endif

/* glb_threshold of n fields. */
static void thresholds(const int32_t *field, int64_t n, uint64_t b, uint32_t *out) {
    int64_t i = 0;
#if defined(GLB_AVX512)
    enum { MANY = 4 };
    __m512i factor = _mm512_set1_epi64((long long)b);
    __m512i beyond = first_beyond(b);
    for (; i + 8 * MANY <= n; i += 8 * MANY) {
        __m512i t[MANY];
        for (int k = 0; k < MANY; k++) {
            t[k] = _mm512_cvtepi32_epi64(_mm256_loadu_si256((const void *)(field + i + 8 * k)));
        }
        fields_to_thresholds(t, MANY, factor, beyond);
        for (int k = 0; k < MANY; k++) {
            _mm256_storeu_si256((void *)(out + i + 8 * k), _mm512_cvtepi64_epi32(t[k]));
        }
    }
#endif
    for (; i < n; i++) {
        out[i] = glb_threshold(field[i], b);
    }
}

/* The largest |number| of n, or 0. */
static int64_t largest_magnitude(const int32_t *number, int64_t n) {
    int64_t i = 0;
    int64_t most = 0;
#if defined(GLB_AVX512)
    __m512i least = _mm512_setzero_si512();
    for (; i + 16 <= n; i += 16) { /* below 0, so that -2^31 has its place */
        __m512i now = _mm512_loadu_si512(number + i);
        least = _mm512_min_epi32(least, _mm512_min_epi32(now, _mm512_sub_epi32(_mm512_setzero_si512(), now)));
    }
    most = _mm512_reduce_max_epi32(_mm512_sub_epi32(_mm512_set1_epi32(-1), least)) + INT64_C(1); /* -1 - x is ~x */
#endif
    int64_t rest = glb_largest_magnitude(number + i, n - i);
    return rest > most ? rest : most;
}

#if defined(GLB_AVX512)
/* The bytes of 64 numbers, by their rank: the top ones first. A lane of 128 bits takes four numbers of each of four
 * vectors, so that the dwords come out in the order of lanes, and are then put in that of vectors. */
GLB_INLINE void bytes_by_rank(const uint32_t *number, __m512i byte[4]) {
    __m512i by_four = _mm512_broadcast_i32x4(_mm_set_epi8(12, 8, 4, 0, 13, 9, 5, 1, 14, 10, 6, 2, 15, 11, 7, 3));
    __m512i in_order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    __m512i of[4];
    for (int v = 0; v < 4; v++) {
        of[v] = _mm512_shuffle_epi8(_mm512_loadu_si512(number + 16 * v), by_four);
    }
    __m512i tops = _mm512_unpacklo_epi32(of[0], of[1]);
    __m512i more_tops = _mm512_unpacklo_epi32(of[2], of[3]);
    __m512i lows = _mm512_unpackhi_epi32(of[0], of[1]);
    __m512i more_lows = _mm512_unpackhi_epi32(of[2], of[3]);
    byte[0] = _mm512_permutexvar_epi32(in_order, _mm512_unpacklo_epi64(tops, more_tops));
    byte[1] = _mm512_permutexvar_epi32(in_order, _mm512_unpackhi_epi64(tops, more_tops));
    byte[2] = _mm512_permutexvar_epi32(in_order, _mm512_unpacklo_epi64(lows, more_lows));
    byte[3] = _mm512_permutexvar_epi32(in_order, _mm512_unpackhi_epi64(lows, more_lows));
}
#endif

/* The bits of 32 V numbers as 32 planes of V words, the top bits first. */
static void planes_of(const uint32_t *number, uint32_t *planes) {
#if defined(GLB_AVX512)
    for (int64_t first = 0; first < 32 * V; first += 64) {
        __m512i byte[4];
        bytes_by_rank(number + first, byte);
        for (int rank = 0; rank < 4; rank++) {
            __m512i now = byte[rank]; /* stays in a register */
            for (int k = 0; k < 8; k++) {
                uint64_t bits = _mm512_movepi8_mask(now);
                memcpy(planes + V * (8 * rank + k) + first / 32, &bits, sizeof bits);
                now = _mm512_add_epi8(now, now);
            }
        }
    }
#else
    memset(planes, 0, 4 * 32 * (size_t)V);
    for (int64_t eight = 0; eight < 4 * V; eight++) {
        for (int level = 0; level < 4; level++) {
            uint64_t x = 0;
            for (int i = 0; i < 8; i++) {
                x |= (uint64_t)((number[8 * eight + i] >> (24 - 8 * level)) & 0xFFu) << (8 * i);
            }
            x = glb_transposed(x);
            for (int k = 0; k < 8; k++) {
                uint32_t bits = (uint32_t)(x >> (8 * (7 - k))) & 0xFFu;
                planes[V * (8 * level + k) + eight / 4] |= bits << (8 * (eight % 4));
            }
        }
    }
#endif
}
