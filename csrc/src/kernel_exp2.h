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

/* glb_exp2(glb_scale(magnitude, b)), for magnitudes below 2^33. The smallest that saturates gives x > GLB_X_MAX without
 * overflow, as b < 2^63, and from 62 2^32 on every x gives 0. */
GLB_INLINE __m512i exp2_of_eight(__m512i magnitude, __m512i b, __m512i beyond) {
    __m512i x = _mm512_mullo_epi64(_mm512_min_epu64(magnitude, beyond), b);
    __m512i whole = _mm512_srli_epi64(x, 32);
    __m512i q = _mm512_and_si512(x, _mm512_set1_epi64(0xFFFFFF));
    /* E[j] is a product of two of 16 numbers, rounded by adding 2^52: of the 256 none is within 0.002 of a tie, so that
     * the doubles' roundings do not matter. Gathering from a table takes longer. */
    __m512d high = _mm512_permutex2var_pd(_mm512_loadu_pd(glb_sixteenths), _mm512_srli_epi64(x, 28),
                                          _mm512_loadu_pd(glb_sixteenths + 8));
    __m512d low = _mm512_permutex2var_pd(_mm512_loadu_pd(glb_parts), _mm512_srli_epi64(x, 24),
                                         _mm512_loadu_pd(glb_parts + 8));
    __m512i E = _mm512_castpd_si512(_mm512_fmadd_pd(high, low, _mm512_set1_pd(0x1p52)));
    __m512i q2 = _mm512_srli_epi64(_mm512_mul_epu32(q, q), 16);
    __m512i q3 = _mm512_srli_epi64(_mm512_mul_epu32(q2, q), 24);
    __m512i p = _mm512_set1_epi64(INT64_C(1) << 62);
    p = _mm512_sub_epi64(p, _mm512_srli_epi64(_mm512_mullo_epi64(q, _mm512_set1_epi64((long long)GLB_LN2_A)), 8));
    p = _mm512_add_epi64(p, _mm512_srli_epi64(_mm512_mul_epu32(q2, _mm512_set1_epi64((long long)GLB_LN2_B)), 16));
    p = _mm512_sub_epi64(p, _mm512_srli_epi64(_mm512_mul_epu32(q3, _mm512_set1_epi64((long long)GLB_LN2_C)), 24));
    __mmask8 there = _mm512_cmplt_epu64_mask(whole, _mm512_set1_epi64(62));
    return _mm512_maskz_srlv_epi64(there, _mm512_mul_epu32(E, _mm512_srli_epi64(p, 31)), whole);
}

#endif
