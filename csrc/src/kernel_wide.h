/* Replica planes, 64 chains at once, for AVX-512 with VBMI and GFNI: byte fields and the 16-bit filter.
 *
 * The spins of 64 chains are a mask register, so a neighbour costs one masked addition of 2w. The first eight random
 * planes are transposed into one byte a chain and compared with the top byte of its threshold: exact for byte fields
 * (a table of 128), bracketed from both sides by the filter. A chain whose byte is inside the bracket goes on a list;
 * sixteen of those at a time get their next eight bits and their exact threshold. Early decisions cannot be wrong, so
 * the samples are those of the exact kernel.
 */

enum { PAIR_BITS = 3, TIES = 64, MOST_TIES = TIES + 64, TIE_ROOM = MOST_TIES + 64 }; /* stores are whole vectors */

typedef struct {
    uint32_t *block; /* the words of chains from `first_word` on */
    uint32_t first_word;
    int W;
    int n;
    uint32_t unit[TIE_ROOM]; /* position, and which pair of words */
    uint8_t lane[TIE_ROOM];  /* chain of the unit */
    uint8_t first[TIE_ROOM]; /* the byte that did not decide */
    int32_t field[TIE_ROOM]; /* or int16_t, or int8_t */
} tie_list;

GLB_INLINE int32_t tied_field(const tie_list *ties, int i, int WIDTH) {
    return WIDTH == 1   ? ((const int8_t *)ties->field)[i]
           : WIDTH == 2 ? ((const int16_t *)ties->field)[i]
                        : ties->field[i];
}

/* The last 16 bits of u, after `first`, of one on the list. */
static uint32_t rest_of_u(const glb_key *key, uint32_t position, uint32_t sweep_low, uint32_t chains, uint32_t bit,
                          uint32_t first) {
    uint32_t u = first;
    for (uint32_t g = 4; g < 8; g++) {
        uint32_t next[4];
        glb_threefry(key, position, sweep_low, chains, g, next);
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
        uint32_t position[V];
        uint32_t word[V];
        uint32_t bit[V];
        uint32_t u[V];
        words unit = load(ties->unit + begin);
        words lane = (words)_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(ties->lane + begin)));
        words chains = (unit & ((1u << PAIR_BITS) - 1)) * 2 + (lane >> 5);
        words second = (words)_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(ties->first + begin)));
        words x[4];
        words y[4];
        store(position, unit >> PAIR_BITS);
        store(word, chains);
        store(bit, lane & 31u);
        random_planes(key, unit >> PAIR_BITS, (uint32_t)data->sweep, chains + ties->first_word, 2, x);
        random_planes(key, unit >> PAIR_BITS, (uint32_t)data->sweep, chains + ties->first_word, 3, y);
        for (int w = 0; w < 4; w++) {
            second = (second << 1) | ((x[w] >> (lane & 31u)) & 1u);
        }
        for (int w = 0; w < 4; w++) {
            second = (second << 1) | ((y[w] >> (lane & 31u)) & 1u);
        }
        store(u, second);
        int n = ties->n - begin < V ? ties->n - begin : V;
        for (int i = 0; i < n; i++) {
            uint32_t threshold = glb_threshold(tied_field(ties, begin + i, WIDTH), data->b);
            uint32_t below = u[i] < threshold >> 16;
            if (__builtin_expect(u[i] == threshold >> 16, 0)) {
                below = rest_of_u(key, position[i], (uint32_t)data->sweep, ties->first_word + word[i], bit[i], u[i]) <
                        threshold;
            }
            ties->block[(int64_t)ties->W * position[i] + word[i]] |= below << bit[i];
        }
    }
    ties->n = 0;
}

/* Sixty-four chains at one position: where their words are, and which of them may change. */
typedef struct {
    uint32_t *target;
    uint32_t unit; /* position, and which pair of words */
    uint64_t open;
    const int32_t *own; /* fields of the chains, or NULL */
    __mmask16 has[4];   /* which of them exist */
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
    put_few(ties->first + n, bytes, 4);
    if (many) {
        for (int v = 0; v < count; v += V) {
            store(ties->unit + n + v, splat(at->unit));
        }
        _mm512_storeu_si512(ties->lane + n, lanes);
        _mm512_storeu_si512(ties->first + n, bytes);
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

/* Fields of 64 chains as int8, sums up to 63. */
GLB_INLINE __m512i byte_fields(const uint32_t *block, const glb_term *term, const glb_term *end, int32_t base,
                               const unit *at, int W) {
    __m512i total = _mm512_set1_epi8((char)base);
    if (at->own != NULL) {
        for (int v = 0; v < 4; v++) {
            __m128i own = _mm512_cvtepi32_epi8(_mm512_maskz_loadu_epi32(at->has[v], at->own + 16 * v));
            __m512i place = _mm512_zextsi128_si512(own);
            total = _mm512_add_epi8(total, _mm512_maskz_permutexvar_epi64((__mmask8)(3 << (2 * v)),
                                                                           _mm512_set_epi64(1, 0, 1, 0, 1, 0, 1, 0),
                                                                           place));
        }
    }
    for (; term < end; term++) {
        uint64_t up = mask_at(block + (int64_t)W * term->neighbour, W);
        total = _mm512_mask_add_epi8(total, up, total, _mm512_set1_epi32((int)term->twice));
    }
    return total;
}

GLB_INLINE void short_fields(const uint32_t *block, const glb_term *term, const glb_term *end, int32_t base,
                             const unit *at, int W, __m512i total[2]) {
    total[0] = total[1] = _mm512_set1_epi16((short)base);
    if (at->own != NULL) {
        for (int v = 0; v < 2; v++) {
            __m256i low = _mm512_cvtepi32_epi16(_mm512_maskz_loadu_epi32(at->has[2 * v], at->own + 32 * v));
            __m256i high = _mm512_cvtepi32_epi16(_mm512_maskz_loadu_epi32(at->has[2 * v + 1], at->own + 32 * v + 16));
            total[v] = _mm512_add_epi16(total[v], _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
        }
    }
    for (; term < end; term++) {
        const uint32_t *up = block + (int64_t)W * term->neighbour;
        __m512i twice = _mm512_set1_epi32((int)term->twice);
        for (int v = 0; v < (W == 1 ? 1 : 2); v++) { /* masks come from memory, not by way of a register */
            total[v] = _mm512_mask_add_epi16(total[v], up[v], total[v], twice);
        }
    }
}

GLB_INLINE void long_fields(const uint32_t *block, const glb_term *term, const glb_term *end, int32_t base,
                            const unit *at, int W, __m512i total[4]) {
    for (int v = 0; v < 4; v++) {
        total[v] = _mm512_set1_epi32(base);
        if (at->own != NULL) {
            total[v] = _mm512_add_epi32(total[v], _mm512_maskz_loadu_epi32(at->has[v], at->own + 16 * v));
        }
    }
    for (; term < end; term++) {
        const uint32_t *up = block + (int64_t)W * term->neighbour;
        __m512i twice = _mm512_set1_epi32((int)term->twice);
        for (int v = 0; v < (W == 1 ? 2 : 4); v++) { /* masks come from memory, not by way of a register */
            __mmask16 mask;
            memcpy(&mask, (const uint8_t *)up + 2 * v, sizeof mask);
            total[v] = _mm512_mask_add_epi32(total[v], mask, total[v], twice);
        }
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

GLB_INLINE constants constants_of(const glb_sweep_data *data, int WIDTH) {
    const glb_filter *filter = &data->filter;
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
        k.table[i] = WIDTH == 1 ? _mm512_loadu_si512(data->top + 64 * i) : _mm512_loadu_si512(filter->start + 32 * i);
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

/* Eight planes of sixteen words by unit: a qword each of eight units, of the first or the second eight where a unit is
 * one word. */
GLB_INLINE void unit_planes(const words random[8], int half, int W, __m512i planes[8]) {
    for (int i = 0; i < 8; i++) {
        planes[i] = (__m512i)random[i];
        if (W == 1) {
            planes[i] = _mm512_cvtepu32_epi64(half == 0 ? _mm512_castsi512_si256(planes[i])
                                                        : _mm512_extracti64x4_epi64(planes[i], 1));
        }
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

GLB_INLINE void wide_block(const glb_sweep_data *data, const glb_part *part, int32_t number, int W, int WIDTH) {
    enum { PAIR = 2 };
    const glb_run *run = data->run;
    const glb_plan *plan = data->plan;
    uint32_t *block = data->state + (int64_t)number * plan->rows * W;
    const uint32_t *open = data->free + (int64_t)number * plan->rows * W;
    uint32_t first_word = (run->first_chain >> 5) + (uint32_t)(number * W);
    int64_t lane = 32 * (int64_t)number * W; /* of the block's first word, in chain_field */
    glb_key key = glb_make_key(run->seed, GLB_DECISION, GLB_REPLICA_PLANES, run->stream, data->sweep);
    const glb_wide_net *net = (const void *)data->net;
    const int32_t *base = (const void *)(data->net + net->base);
    const glb_term *terms = (const void *)(data->net + net->terms);
    const int64_t *row_start = data->program->row_start;
    const int32_t *field = data->program->field;
    const int32_t *own_fields = run->chain_field;
    words site = counting(W);
    words c = cycling(W) + first_word;
    constants k = constants_of(data, WIDTH);
    tie_list ties;
    ties.block = block;
    ties.first_word = first_word;
    ties.W = W;
    ties.n = 0;
    int units = W == 1 ? V : V / PAIR; /* in one vector of random words */
    int per_site = W == 1 ? 1 : W / PAIR;
    for (int64_t p = part->begin; p < part->end; p += V / W) {
        words random[8];
        __m512i planes[8];
        random_planes(&key, site + (uint32_t)p, (uint32_t)data->sweep, c, 0, random);
        random_planes(&key, site + (uint32_t)p, (uint32_t)data->sweep, c, 1, random + 4);
        for (int half = 0; half < (W == 1 ? 2 : 1); half++) {
            unit_planes(random, half, W, planes);
            for (int j = 0; j < 8 && 8 * half + j < units; j++) {
                int64_t position = p + (8 * half + j) / per_site;
                int word = W == 1 ? 0 : PAIR * (j % per_site);
                if (position >= part->end) {
                    break;
                }
                unit at = {.target = block + position * W + word,
                           .unit = (uint32_t)position << PAIR_BITS | (uint32_t)word / 2,
                           .open = mask_at(open + position * W + word, W)};
                if (at.open == 0) {
                    continue;
                }
                if (own_fields != NULL) {
                    int64_t begin = lane + 32 * word;
                    at.own = own_fields + plan->lanes * position + begin;
                    for (int v = 0; v < 4; v++) {
                        at.has[v] = (__mmask16)(begin + 16 * v < plan->lanes ? 0xFFFF : 0);
                    }
                }
                const glb_term *term = terms + row_start[position];
                const glb_term *end = terms + row_start[position + 1];
                int32_t start = base[position] + (own_fields == NULL ? field[position] : 0);
                __m512i total[4];
                if (WIDTH == 1) {
                    total[0] = byte_fields(block + word, term, end, start, &at, W);
                } else if (WIDTH == 2) {
                    short_fields(block + word, term, end, start, &at, W, total);
                } else {
                    long_fields(block + word, term, end, start, &at, W, total);
                }
                decide_unit(&k, &ties, &at, total, bytes_of_planes(&k, planes[j]), W, WIDTH);
                if (ties.n >= TIES) {
                    resolve_ties(data, &key, &ties, WIDTH);
                }
            }
        }
    }
    if (ties.n > 0) {
        resolve_ties(data, &key, &ties, WIDTH);
    }
}

GLB_INLINE void wide_blocks(const glb_sweep_data *data, const glb_part *part, int WIDTH) {
    for (int32_t number = part->first; number < part->last; number++) {
        switch (data->plan->words) {
        case 1:
            wide_block(data, part, number, 1, WIDTH);
            break;
        case 2:
            wide_block(data, part, number, 2, WIDTH);
            break;
        case 4:
            wide_block(data, part, number, 4, WIDTH);
            break;
        case 8:
            wide_block(data, part, number, 8, WIDTH);
            break;
        default:
            wide_block(data, part, number, 16, WIDTH);
        }
    }
}

static void bytes_kernel(const glb_sweep_data *data, const glb_part *part) { wide_blocks(data, part, 1); }

static void filter_kernel(const glb_sweep_data *data, const glb_part *part) {
    if (data->plan->sum <= INT16_MAX) {
        wide_blocks(data, part, 2);
    } else {
        wide_blocks(data, part, 4);
    }
}
