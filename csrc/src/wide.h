/* Sixty-four decisions at once, for AVX-512 with VBMI and GFNI: bytes of planes, brackets and the tie list in mask
 * registers. units.h has the rest. */

enum { FEW = 4 };

/* The lowest bytes of a vector. */
GLB_INLINE void put_few(void *target, __m512i v, int bytes) {
    __m128i low = _mm512_castsi512_si128(v);
    if (bytes == 16) {
        _mm_storeu_si128(target, low);
    } else if (bytes == 8) {
        _mm_storel_epi64(target, low);
    } else {
        int32_t four = _mm_cvtsi128_si32(low);
        memcpy(target, &four, sizeof four);
    }
}

/* Puts the chains of `tied` on the list. There may be none, in two units of three: a branch would be guessed wrong so
 * often, and so late, that it costs as much as the rest of the unit. */
GLB_INLINE void list_ties(tie_list *ties, const unit *at, uint64_t tied, __m512i chain, __m512i u,
                          const __m512i *field, int WIDTH) {
    int n = ties->n;
    int count = __builtin_popcountll(tied);
    int many = __builtin_expect(count > FEW, 0); /* hardly ever: whole vectors cost more to store than FEW */
    __m512i lanes = _mm512_maskz_compress_epi8(tied, chain);
    __m512i bytes = _mm512_maskz_compress_epi8(tied, u);
    put_few(ties->unit + n, _mm512_set1_epi32((int)at->unit), 16);
    put_few(ties->lane + n, lanes, 4);
    put_few(ties->first_byte + n, bytes, 4);
    if (many) {
        for (int v = 0; v < count; v += V) {
            store(ties->unit + n + v, splat(at->unit));
        }
        _mm512_storeu_si512(ties->lane + n, lanes);
        _mm512_storeu_si512(ties->first_byte + n, bytes);
    }
    for (int v = 0, to = n; v < WIDTH; v++) {
        uint64_t part = WIDTH == 1 ? tied : WIDTH == 2 ? (uint32_t)(tied >> (32 * v)) : (uint16_t)(tied >> (16 * v));
        uint8_t *target = (uint8_t *)ties->field + WIDTH * to;
        __m512i some = WIDTH == 1   ? _mm512_maskz_compress_epi8(part, field[v])
                       : WIDTH == 2 ? _mm512_maskz_compress_epi16((__mmask32)part, field[v])
                                    : _mm512_maskz_compress_epi32((__mmask16)part, field[v]);
        put_few(target, some, 4 * WIDTH);
        if (many) {
            _mm512_storeu_si512(target, some);
        }
        to += __builtin_popcountll(part);
    }
    ties->n = n + count;
}

/* The sweep's constants in registers: the compiler cannot know that stores of spins leave them as they are. */
typedef struct {
    __m512i table[2]; /* top bytes, or the pieces' starts */
    __m512i rise[2];
    __m512i clamp;
    __m512i minus_clamp;
    __m512i factor;
    __m512i half;
    __m512i together; /* byte i of each plane side by side */
    __m512i odd;
    __m512i chain; /* 0, 1, ..., 63 */
    __m128i left;
    __m128i right;
} constants;

GLB_INLINE constants constants_of(const glb_heat *heat, int WIDTH) {
    const glb_filter *filter = &heat->filter;
    constants k = {0};
    uint8_t together[64];
    uint8_t odd[64];
    uint8_t chain[64];
    for (int i = 0; i < 64; i++) {
        together[i] = (uint8_t)(8 * (i % 8) + i / 8);
        odd[i] = (uint8_t)(2 * i + 1);
        chain[i] = (uint8_t)i;
    }
    k.together = _mm512_loadu_si512(together);
    k.odd = _mm512_loadu_si512(odd);
    k.chain = _mm512_loadu_si512(chain);
    for (int i = 0; i < 2; i++) {
        k.table[i] = WIDTH == 1 ? _mm512_loadu_si512(heat->top + 64 * i) : _mm512_loadu_si512(filter->start + 32 * i);
        k.rise[i] = _mm512_loadu_si512(filter->rise + 32 * i);
    }
    k.clamp = _mm512_set1_epi16(filter->clamp);
    k.minus_clamp = _mm512_set1_epi16((short)-filter->clamp);
    k.factor = _mm512_set1_epi16(filter->factor);
    k.half = _mm512_set1_epi32(filter->half);
    k.left = _mm_cvtsi32_si128(filter->left);
    k.right = _mm_cvtsi32_si128(filter->right);
    return k;
}

/* Thresholds of 32 fields from below and above, 16 bits; docs/decisions has the proof that they hold. */
GLB_INLINE void bracket(const constants *k, __m512i field, __m512i *low, __m512i *high) {
    field = _mm512_max_epi16(_mm512_min_epi16(field, k->clamp), k->minus_clamp);
    field = _mm512_sll_epi16(field, k->left);
    __m512i y = _mm512_mulhrs_epi16(field, k->factor);
    y = _mm512_max_epi16(_mm512_min_epi16(y, _mm512_set1_epi16(8191)), _mm512_set1_epi16(-8191));
    __m512i piece = _mm512_srai_epi16(y, 8);
    __m512i start = _mm512_permutex2var_epi16(k->table[0], piece, k->table[1]);
    __m512i rise = _mm512_permutex2var_epi16(k->rise[0], piece, k->rise[1]);
    __m512i t = _mm512_add_epi16(start, _mm512_mulhi_epu16(rise, _mm512_slli_epi16(y, 8)));
    *low = _mm512_subs_epu16(t, _mm512_set1_epi16(GLB_FILTER_BOUND));
    *high = _mm512_adds_epu16(t, _mm512_set1_epi16(GLB_FILTER_BOUND));
}

/* Eight qword vectors as a matrix, transposed. */
GLB_INLINE void transpose_qwords(__m512i r[8]) {
    __m512i a[8];
    __m512i b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm512_unpacklo_epi64(r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi64(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) { /* pairs of rows 4 i .. 4 i + 3: columns 0 2 | 4 6 by 128-bit lanes */
        b[4 * i] = _mm512_shuffle_i64x2(a[4 * i], a[4 * i + 2], 0x88);
        b[4 * i + 1] = _mm512_shuffle_i64x2(a[4 * i + 1], a[4 * i + 3], 0x88);
        b[4 * i + 2] = _mm512_shuffle_i64x2(a[4 * i], a[4 * i + 2], 0xDD);
        b[4 * i + 3] = _mm512_shuffle_i64x2(a[4 * i + 1], a[4 * i + 3], 0xDD);
    }
    r[0] = _mm512_shuffle_i64x2(b[0], b[4], 0x88);
    r[1] = _mm512_shuffle_i64x2(b[1], b[5], 0x88);
    r[4] = _mm512_shuffle_i64x2(b[0], b[4], 0xDD);
    r[5] = _mm512_shuffle_i64x2(b[1], b[5], 0xDD);
    r[2] = _mm512_shuffle_i64x2(b[2], b[6], 0x88);
    r[3] = _mm512_shuffle_i64x2(b[3], b[7], 0x88);
    r[6] = _mm512_shuffle_i64x2(b[2], b[6], 0xDD);
    r[7] = _mm512_shuffle_i64x2(b[3], b[7], 0xDD);
}

/* Eight planes of sixteen words by unit: a qword of each. */
GLB_INLINE void unit_planes(const words random[8], __m512i planes[8]) {
    for (int i = 0; i < 8; i++) {
        planes[i] = (__m512i)random[i];
    }
    transpose_qwords(planes);
}

/* Eight planes of 64 chains, a qword each, as a byte a chain with the first plane on top. */
GLB_INLINE __m512i bytes_of_planes(const constants *k, __m512i planes) {
    __m512i matrices = _mm512_permutexvar_epi8(k->together, planes);
    return _mm512_gf2p8affine_epi64_epi8(_mm512_set1_epi64((long long)0x8040201008040201ull), matrices, 0);
}

/* Compares the bytes of 64 chains with their thresholds by field: int8, int16 x 2 or int32 x 4. Spins are put, ties
 * listed. */
GLB_INLINE void decide_unit(const constants *k, tie_list *ties, const unit *at, const __m512i *field, __m512i u, int W,
                            int WIDTH) {
    uint64_t below;
    uint64_t tied;
    if (WIDTH == 1) {
        __m512i top = _mm512_permutex2var_epi8(k->table[0], field[0], k->table[1]);
        below = _mm512_cmplt_epu8_mask(u, top);
        tied = _mm512_cmpeq_epu8_mask(u, top) & at->open;
    } else {
        __m512i low[2];
        __m512i high[2];
        for (int v = 0; v < 2; v++) {
            __m512i narrow = field[v];
            if (WIDTH == 4) {
                __m512i first = _mm512_sra_epi32(_mm512_add_epi32(field[2 * v], k->half), k->right);
                __m512i second = _mm512_sra_epi32(_mm512_add_epi32(field[2 * v + 1], k->half), k->right);
                narrow = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtsepi32_epi16(first)),
                                            _mm512_cvtsepi32_epi16(second), 1);
            }
            bracket(k, narrow, &low[v], &high[v]);
        }
        below = _mm512_cmplt_epu8_mask(u, _mm512_permutex2var_epi8(low[0], k->odd, low[1]));
        tied = _mm512_cmple_epu8_mask(u, _mm512_permutex2var_epi8(high[0], k->odd, high[1])) & ~below & at->open;
    }
    put(at, below, W);
    list_ties(ties, at, tied, k->chain, u, field, WIDTH);
}
