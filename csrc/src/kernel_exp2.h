/* glb_exp2 of eight numbers at once, on AVX-512. */
#if defined(GLB_AVX512)

/* 2^31 2^(-i / 16) and 2^(-i / 256), to the nearest double. */
static const double glb_sixteenths[16] = {
    0x1p+31,                0x1.ea4afa2a490dap+30, 0x1.d5818dcfba487p+30, 0x1.c199bdd85529cp+30,
    0x1.ae89f995ad3adp+30,  0x1.9c49182a3f090p+30, 0x1.8ace5422aa0dbp+30, 0x1.7a11473eb0187p+30,
    0x1.6a09e667f3bcdp+30,  0x1.5ab07dd485429p+30, 0x1.4bfdad5362a27p+30, 0x1.3dea64c123422p+30,
    0x1.306fe0a31b715p+30,  0x1.2387a6e756238p+30, 0x1.172b83c7d517bp+30, 0x1.0b5586cf9890fp+30};
static const double glb_parts[16] = {
    0x1p+0,                 0x1.fe9d96b2a23d9p-1,  0x1.fd3c22b8f71f1p-1,  0x1.fbdba3692d514p-1,
    0x1.fa7c1819e90d8p-1,   0x1.f91d802243c89p-1,  0x1.f7bfdad9cbe14p-1,  0x1.f6632798844f8p-1,
    0x1.f50765b6e4540p-1,   0x1.f3ac948dd7274p-1,  0x1.f252b376bba97p-1,  0x1.f0f9c1cb6412ap-1,
    0x1.efa1bee615a27p-1,   0x1.ee4aaa2188510p-1,  0x1.ecf482d8e67f1p-1,  0x1.eb9f4867cca6ep-1};

/* The fields whose product with b saturates are beyond this; 0 for b = 0, where every product is 0. */
GLB_INLINE __m512i first_beyond(uint64_t b) { return _mm512_set1_epi64((long long)(b == 0 ? 0 : GLB_X_MAX / b + 1)); }

/* glb_exp2(glb_scale(magnitude, b)) in place, for magnitudes below 2^33, and 1 in place of 0 for x = 62 2^32: whoever
 * calls shifts that bit out. The smallest magnitude that saturates gives x > GLB_X_MAX without overflow, as b < 2^63,
 * and everything from there on is shifted out here.
 *
 * Several vectors go through each step side by side: one alone is a long chain in which each step waits for the one
 * before. */
GLB_INLINE void exp2_of(__m512i x[], int many, __m512i b, __m512i beyond) {
    enum { MOST = 4 };
    __m512i q[MOST];
    __m512i q2[MOST];
    __m512i p[MOST];
    __m512d E[MOST];
    for (int i = 0; i < many; i++) {
        x[i] = _mm512_mullo_epi64(_mm512_min_epu64(x[i], beyond), b);
    }
    for (int i = 0; i < many; i++) {
        q[i] = _mm512_and_si512(x[i], _mm512_set1_epi64(0xFFFFFF));
        q2[i] = _mm512_srli_epi64(_mm512_mul_epu32(q[i], q[i]), 16);
    }
    for (int i = 0; i < many; i++) {
        p[i] = _mm512_srli_epi64(_mm512_mullo_epi64(q[i], _mm512_set1_epi64((long long)GLB_LN2_A)), 8);
        p[i] = _mm512_sub_epi64(_mm512_set1_epi64(INT64_C(1) << 62), p[i]);
    }
    for (int i = 0; i < many; i++) {
        __m512i third = _mm512_srli_epi64(_mm512_mul_epu32(q2[i], q[i]), 24);
        third = _mm512_srli_epi64(_mm512_mul_epu32(third, _mm512_set1_epi64((long long)GLB_LN2_C)), 24);
        __m512i second = _mm512_srli_epi64(_mm512_mul_epu32(q2[i], _mm512_set1_epi64((long long)GLB_LN2_B)), 16);
        p[i] = _mm512_sub_epi64(_mm512_add_epi64(p[i], second), third);
    }
    /* E[j] is a product of two of 16 numbers, rounded by adding 2^52: of the 256 none is within 0.002 of a tie, so that
     * the doubles' roundings do not matter. Gathering from a table takes longer. */
    for (int i = 0; i < many; i++) {
        E[i] = _mm512_permutex2var_pd(_mm512_loadu_pd(glb_sixteenths), _mm512_srli_epi64(x[i], 28),
                                      _mm512_loadu_pd(glb_sixteenths + 8));
        __m512d part = _mm512_permutex2var_pd(_mm512_loadu_pd(glb_parts), _mm512_srli_epi64(x[i], 24),
                                              _mm512_loadu_pd(glb_parts + 8));
        E[i] = _mm512_fmadd_pd(E[i], part, _mm512_set1_pd(0x1p52));
    }
    for (int i = 0; i < many; i++) {
        __m512i whole = _mm512_srli_epi64(x[i], 32);
        x[i] = _mm512_mul_epu32(_mm512_castpd_si512(E[i]), _mm512_srli_epi64(p[i], 31));
        x[i] = _mm512_srlv_epi64(x[i], whole);
    }
}

#endif
