/* Sixty-four decisions at once, for AVX2: bytes in two vectors, which memory keeps for the tie list. */

/* The sweep's constants in registers: the compiler cannot know that stores of spins leave them as they are. */
typedef struct {
    __m256i table[4]; /* top bytes of 16 fields each, from 0 on; or starts and rises of 16 pieces, each as lower bytes */
    __m256i clamp;    /* and upper ones */
    __m256i minus_clamp;
    __m256i factor;
    __m256i half;
    __m128i left;
    __m128i right;
    __m256i bit[4];  /* of a word of spins, by vectors of fields: what a lane keeps */
    __m256i sign[4]; /* 1 or, where that is the sign, -1 */
} constants;

GLB_INLINE __m256i load32(const void *from) { return _mm256_loadu_si256((const __m256i *)from); }

GLB_INLINE void store32(void *to, __m256i v) { _mm256_storeu_si256((__m256i *)to, v); }

/* Chain of the word that lane i of vector v keeps: byte i % 4 of a dword, or its half i % 2, or the dword. */
GLB_INLINE int kept_bit(int i, int v, int WIDTH) {
    if (WIDTH == 1) {
        return i / 4;
    }
    return WIDTH == 2 ? (i < 8 ? 0 : 8) + 4 * v + i / 2 % 4 : 8 * v + i;
}

/* Masks of the bits kept, and 1 or, where that is the sign, -1. */
GLB_INLINE void kept_bits(int WIDTH, __m256i bit[4], __m256i sign[4]) {
    for (int v = 0; v < WIDTH; v++) {
        uint8_t mask[32];
        uint8_t one[32];
        for (int i = 0; i < 32 / WIDTH; i++) {
            uint32_t of = UINT32_C(1) << kept_bit(i, v, WIDTH);
            uint32_t to = of >> (8 * WIDTH - 1) ? 0xFFFFFFFFu : 1;
            memcpy(mask + WIDTH * i, &of, (size_t)WIDTH);
            memcpy(one + WIDTH * i, &to, (size_t)WIDTH);
        }
        bit[v] = load32(mask);
        sign[v] = load32(one);
    }
}

GLB_INLINE constants constants_of(const glb_heat *heat, int WIDTH) {
    const glb_filter *filter = &heat->filter;
    constants k = {0};
    kept_bits(WIDTH, k.bit, k.sign);
    for (int i = 0; i < 4; i++) {
        const uint8_t *from = WIDTH == 1 ? heat->top + 16 * i : filter->coarse[i];
        k.table[i] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)from));
    }
    k.clamp = _mm256_set1_epi16(filter->clamp);
    k.minus_clamp = _mm256_set1_epi16((short)-filter->clamp);
    k.factor = _mm256_set1_epi16(filter->factor);
    k.half = _mm256_set1_epi32(filter->half);
    k.left = _mm_cvtsi32_si128(filter->left);
    k.right = _mm_cvtsi32_si128(filter->right);
    return k;
}

/* 8 x 8 bit matrices, transposed. */
GLB_INLINE __m256i transposed_bits(__m256i x) {
    __m256i t = _mm256_and_si256(_mm256_xor_si256(x, _mm256_srli_epi64(x, 7)), _mm256_set1_epi64x(0x00AA00AA00AA00AA));
    x = _mm256_xor_si256(x, _mm256_xor_si256(t, _mm256_slli_epi64(t, 7)));
    t = _mm256_and_si256(_mm256_xor_si256(x, _mm256_srli_epi64(x, 14)), _mm256_set1_epi64x(0x0000CCCC0000CCCC));
    x = _mm256_xor_si256(x, _mm256_xor_si256(t, _mm256_slli_epi64(t, 14)));
    t = _mm256_and_si256(_mm256_xor_si256(x, _mm256_srli_epi64(x, 28)), _mm256_set1_epi64x(0x00000000F0F0F0F0));
    return _mm256_xor_si256(x, _mm256_xor_si256(t, _mm256_slli_epi64(t, 28)));
}

/* Eight planes of V words as a byte a chain, the first plane on top. */
GLB_INLINE void bytes_of(const words random[8], uint8_t *bytes) {
    for (int q = 0; q < V / 8; q++) { /* four units, two of them in a vector's lanes of 128 bits */
        __m256i plane[8];
        for (int k = 0; k < 8; k++) {
            plane[7 - k] = load32((const uint8_t *)&random[k] + 32 * q);
        }
        for (int odd = 0; odd < 2; odd++) {
            __m256i two[4];
            __m256i four[4];
            for (int k = 0; k < 4; k++) {
                two[k] = odd ? _mm256_unpackhi_epi8(plane[2 * k], plane[2 * k + 1])
                             : _mm256_unpacklo_epi8(plane[2 * k], plane[2 * k + 1]);
            }
            for (int k = 0; k < 2; k++) {
                four[k] = _mm256_unpacklo_epi16(two[2 * k], two[2 * k + 1]);
                four[2 + k] = _mm256_unpackhi_epi16(two[2 * k], two[2 * k + 1]);
            }
            for (int half = 0; half < 2; half++) {
                __m256i first = transposed_bits(_mm256_unpacklo_epi32(four[2 * half], four[2 * half + 1]));
                __m256i second = transposed_bits(_mm256_unpackhi_epi32(four[2 * half], four[2 * half + 1]));
                store32(bytes + 64 * (4 * q + odd) + 32 * half, _mm256_permute2x128_si256(first, second, 0x20));
                store32(bytes + 64 * (4 * q + 2 + odd) + 32 * half, _mm256_permute2x128_si256(first, second, 0x31));
            }
        }
    }
}

/* The top bytes of thresholds of fields up to 63. A negative field has 255 less that of the other sign. Where the
 * threshold's lower bits are 0 this is one too low: a byte equal to it waits without need, and no decision is wrong. */
GLB_INLINE __m256i top_bytes(const constants *k, __m256i field) {
    __m256i size = _mm256_abs_epi8(field);
    __m256i top = _mm256_cmpgt_epi8(_mm256_setzero_si256(), field);
    for (int t = 0; t < 4; t++) { /* a shuffle gives 0 where the index is outside its 16 */
        __m256i index = _mm256_adds_epu8(_mm256_sub_epi8(size, _mm256_set1_epi8((char)(16 * t))), _mm256_set1_epi8(0x70));
        top = _mm256_xor_si256(top, _mm256_shuffle_epi8(k->table[t], index));
    }
    return top;
}

/* 16 numbers of 16 bits from two tables of bytes. */
GLB_INLINE __m256i looked_up(__m256i lower, __m256i upper, __m256i piece) {
    __m256i even = _mm256_or_si256(piece, _mm256_set1_epi16((short)0x8000));
    __m256i odd = _mm256_or_si256(_mm256_slli_epi16(piece, 8), _mm256_set1_epi16(0x0080));
    return _mm256_or_si256(_mm256_shuffle_epi8(lower, even), _mm256_shuffle_epi8(upper, odd));
}

/* Thresholds of 16 fields from below and above, 16 bits; docs/decisions has the proof that they hold. */
GLB_INLINE void bracket(const constants *k, __m256i field, __m256i *low, __m256i *high) {
    field = _mm256_max_epi16(_mm256_min_epi16(field, k->clamp), k->minus_clamp);
    field = _mm256_sll_epi16(field, k->left);
    __m256i y = _mm256_mulhrs_epi16(field, k->factor);
    y = _mm256_max_epi16(_mm256_min_epi16(y, _mm256_set1_epi16(8191)), _mm256_set1_epi16(-8191));
    __m256i size = _mm256_abs_epi16(y);
    __m256i piece = _mm256_srli_epi16(size, 9);
    __m256i start = looked_up(k->table[0], k->table[1], piece);
    __m256i rise = looked_up(k->table[2], k->table[3], piece);
    __m256i t = _mm256_add_epi16(start, _mm256_mulhi_epu16(rise, _mm256_slli_epi16(size, 7)));
    t = _mm256_xor_si256(t, _mm256_srai_epi16(y, 15));
    *low = _mm256_subs_epu16(t, _mm256_set1_epi16(GLB_COARSE_BOUND));
    *high = _mm256_adds_epu16(t, _mm256_set1_epi16(GLB_COARSE_BOUND));
}

/* The upper bytes of 32 numbers of 16 bits. */
GLB_INLINE __m256i tops_of(__m256i first, __m256i second) {
    __m256i both = _mm256_packus_epi16(_mm256_srli_epi16(first, 8), _mm256_srli_epi16(second, 8));
    return _mm256_permute4x64_epi64(both, 0xD8);
}

/* Compares the bytes of 64 chains with their thresholds by field. Spins are put, ties listed. */
GLB_INLINE void decide_unit(const constants *k, tie_list *ties, const unit *at, const void *fields, const uint8_t *u,
                            int W, int WIDTH) {
    uint64_t below = 0;
    uint64_t tied = 0;
    for (int half = 0; half < 2; half++) {
        __m256i byte = load32(u + 32 * half);
        const uint8_t *from = (const uint8_t *)fields + 32 * WIDTH * half;
        __m256i floor; /* of the threshold's top byte, and its ceiling */
        __m256i ceiling;
        if (WIDTH == 1) {
            floor = top_bytes(k, load32(from));
            ceiling = floor;
        } else {
            __m256i low[2];
            __m256i high[2];
            for (int v = 0; v < 2; v++) {
                __m256i narrow = load32(from + 16 * WIDTH * v);
                if (WIDTH == 4) {
                    __m256i next = load32(from + 64 * v + 32);
                    narrow = _mm256_sra_epi32(_mm256_add_epi32(narrow, k->half), k->right);
                    next = _mm256_sra_epi32(_mm256_add_epi32(next, k->half), k->right);
                    narrow = _mm256_permute4x64_epi64(_mm256_packs_epi32(narrow, next), 0xD8);
                }
                bracket(k, narrow, &low[v], &high[v]);
            }
            floor = tops_of(low[0], low[1]);
            ceiling = tops_of(high[0], high[1]);
        }
        __m256i reached = _mm256_cmpeq_epi8(_mm256_max_epu8(byte, floor), byte);
        __m256i waits = _mm256_and_si256(reached, _mm256_cmpeq_epi8(_mm256_min_epu8(byte, ceiling), byte));
        below |= (uint64_t)~(uint32_t)_mm256_movemask_epi8(reached) << (32 * half);
        tied |= (uint64_t)(uint32_t)_mm256_movemask_epi8(waits) << (32 * half);
    }
    put(at, below, W);
    list_ties(ties, at, tied & at->open, u, fields, WIDTH);
}
