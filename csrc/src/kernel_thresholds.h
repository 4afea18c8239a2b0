/* Thresholds of many fields at one temperature, and their bits as planes (independent sites). */

#if defined(GLB_AVX512)
GLB_INLINE __m512i threshold_of_eight(__m512i field, __m512i b, __m512i beyond) {
    __m512i e = exp2_of_eight(_mm512_abs_epi64(field), b, beyond);
    __m512i d = _mm512_add_epi64(e, _mm512_set1_epi64((INT64_C(1) << 62) + (INT64_C(1) << 30)));
    /* d is at most 2^32, so a double holds it, and every whole number up to the quotient's 2^32 too: a quotient that is
     * cut off between two doubles is not below the whole number under it, and cutting it off once more gives that. */
    __m512d quotient = _mm512_div_round_pd(_mm512_set1_pd(0x1p63), _mm512_cvtepu64_pd(_mm512_srli_epi64(d, 31)),
                                           _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    __m512i t = _mm512_min_epu64(_mm512_cvttpd_epu64(quotient), _mm512_set1_epi64(INT64_C(0xFFFFFFFF)));
    return _mm512_mask_sub_epi64(t, _mm512_movepi64_mask(field), _mm512_set1_epi64(INT64_C(1) << 32), t);
}
#endif

/* glb_threshold of n fields. */
static void thresholds(const int32_t *field, int64_t n, uint64_t b, uint32_t *out) {
    int64_t i = 0;
#if defined(GLB_AVX512)
    __m512i factor = _mm512_set1_epi64((long long)b);
    __m512i beyond = first_beyond(b);
    for (; i + 8 <= n; i += 8) {
        __m512i own = _mm512_cvtepi32_epi64(_mm256_loadu_si256((const void *)(field + i)));
        _mm256_storeu_si256((void *)(out + i), _mm512_cvtepi64_epi32(threshold_of_eight(own, factor, beyond)));
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
    __m512i largest = _mm512_setzero_si512();
    for (; i + 16 <= n; i += 16) { /* -2^31 stays what it is, 2^31 without a sign */
        largest = _mm512_max_epu32(largest, _mm512_abs_epi32(_mm512_loadu_si512(number + i)));
    }
    most = _mm512_reduce_max_epu32(largest);
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
        for (int plane = 0; plane < 32; plane++) {
            uint64_t bits = _mm512_movepi8_mask(byte[plane / 8]);
            memcpy(planes + V * plane + first / 32, &bits, sizeof bits);
            byte[plane / 8] = _mm512_add_epi8(byte[plane / 8], byte[plane / 8]);
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
