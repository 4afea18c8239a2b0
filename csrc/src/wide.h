/* Sixty-four decisions at once, for AVX-512 with VBMI and GFNI.
 *
 * The first eight random planes are transposed into one byte a decision and compared with the top byte of its
 * threshold: exact for byte fields (a table of 128), bracketed from both sides by the filter. What its byte does not
 * decide goes on a list, whose entries get their next eight bits and their exact threshold sixteen at a time. Early
 * decisions cannot be wrong, so the samples are those of the exact kernel.
 */

enum { PAIR_BITS = 3, TIES = 64, MOST_TIES = TIES + 64, TIE_ROOM = MOST_TIES + 64 }; /* stores are whole vectors */

typedef struct {
    uint32_t *words;   /* of the spins: a block of replica planes, or a chain of site planes */
    uint32_t first;    /* replica planes: the counter's third word at the block's first; site planes: the chain */
    uint64_t b;        /* temperature of all on the list */
    int W;             /* words a position, or 0 for site planes */
    int n;
    uint32_t unit[TIE_ROOM]; /* position, and which pair of words; site planes: which pair of words */
    uint8_t lane[TIE_ROOM];  /* place in the unit */
    uint8_t first_byte[TIE_ROOM]; /* the byte that did not decide */
    int32_t field[TIE_ROOM]; /* or int16_t, or int8_t */
} tie_list;

/* Sixteen fields of the list, from the i-th on. */
GLB_INLINE __m512i tied_fields(const tie_list *ties, int i, int WIDTH) {
    const uint8_t *from = (const uint8_t *)ties->field + WIDTH * i;
    return WIDTH == 1   ? _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)from))
           : WIDTH == 2 ? _mm512_cvtepi16_epi32(_mm256_loadu_si256((const void *)from))
                        : _mm512_loadu_si512(from);
}

/* The last 16 bits of u, after `first`, of one on the list. */
static uint32_t rest_of_u(const glb_key *key, uint32_t a, uint32_t sweep_low, uint32_t c, uint32_t bit,
                          uint32_t first) {
    uint32_t u = first;
    for (uint32_t g = 4; g < 8; g++) {
        uint32_t next[4];
        glb_threefry(key, a, sweep_low, c, g, next);
        for (int w = 0; w < 4; w++) {
            u = u << 1 | ((next[w] >> bit) & 1u);
        }
    }
    return u;
}

/* Decides all on the list by the bits that follow, and empties it. */
static __attribute__((noinline)) void resolve_ties(const glb_sweep_data *data, const glb_key *key, tie_list *ties,
                                                   int WIDTH) {
    for (int begin = 0; begin < ties->n; begin += V) {
        uint32_t counter[V];
        uint32_t third[V];
        uint32_t bit[V];
        uint32_t u[V];
        uint32_t threshold[V];
        words unit = load(ties->unit + begin);
        words lane = (words)_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(ties->lane + begin)));
        words second = (words)_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(ties->first_byte + begin)));
        words x[4];
        words y[4];
        words a = 2 * unit + (lane >> 5);
        words c = splat(ties->first);
        if (ties->W > 0) {
            a = unit >> PAIR_BITS;
            if (ties->W == 1) { /* a unit is two positions of one word */
                a += lane >> 5;
            } else {
                c += (unit & ((1u << PAIR_BITS) - 1)) * 2 + (lane >> 5);
            }
        }
        store(counter, a);
        store(third, c);
        store(bit, lane & 31u);
        random_planes(key, a, (uint32_t)data->sweep, c, 2, x);
        random_planes(key, a, (uint32_t)data->sweep, c, 3, y);
        for (int w = 0; w < 4; w++) {
            second = (second << 1) | ((x[w] >> (lane & 31u)) & 1u);
        }
        for (int w = 0; w < 4; w++) {
            second = (second << 1) | ((y[w] >> (lane & 31u)) & 1u);
        }
        store(u, second);
        sixteen_thresholds(tied_fields(ties, begin, WIDTH), ties->b, threshold);
        int n = ties->n - begin < V ? ties->n - begin : V;
        for (int i = 0; i < n; i++) {
            uint32_t below = u[i] < threshold[i] >> 16;
            if (__builtin_expect(u[i] == threshold[i] >> 16, 0)) {
                below = rest_of_u(key, counter[i], (uint32_t)data->sweep, third[i], bit[i], u[i]) < threshold[i];
            }
            int64_t at = ties->W > 0 ? (int64_t)ties->W * counter[i] + (third[i] - ties->first) : counter[i];
            ties->words[at] |= below << bit[i];
        }
    }
    ties->n = 0;
}

/* Sixty-four chains at one position: where their words are, and which of them may change. */
typedef struct {
    uint32_t *target;
    uint32_t unit; /* position, and which pair of words */
    uint64_t open;
    int has_own;           /* fields of the chains in place of the program's, */
    const int32_t *own[4]; /* by quarters of the unit; NULL for lanes that do not exist */
} unit;

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

GLB_INLINE uint64_t mask_at(const uint32_t *words32, int W) {
    uint64_t mask;
    if (W == 1) {
        return *words32;
    }
    memcpy(&mask, words32, sizeof mask);
    return mask;
}

/* Where the spins go: those of `below` up, the rest of `open` down. */
GLB_INLINE void put(const unit *at, uint64_t below, int W) {
    uint64_t old = mask_at(at->target, W);
    uint64_t now = (old & ~at->open) | (below & at->open);
    if (W == 1) {
        *at->target = (uint32_t)now;
    } else {
        memcpy(at->target, &now, sizeof now);
    }
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
