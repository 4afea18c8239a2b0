/* Fields of 64 chains for AVX2. A word of spins is repeated in all dwords of a vector, and each lane keeps a bit of its
 * own: then a sign instruction makes 2w or 0 of it. The lanes come in an order that needs no shuffle for a neighbour, and
 * are put in that of the chains at the end. */

typedef struct {
    int32_t field[64]; /* or int16_t, or int8_t */
} unit_fields;

typedef struct {
    uint8_t bytes[V / 2][64];
} unit_random;

GLB_INLINE __m256i signed_by(__m256i value, __m256i sign, int WIDTH) {
    return WIDTH == 1   ? _mm256_sign_epi8(value, sign)
           : WIDTH == 2 ? _mm256_sign_epi16(value, sign)
                        : _mm256_sign_epi32(value, sign);
}

GLB_INLINE __m256i added(__m256i a, __m256i b, int WIDTH) {
    return WIDTH == 1 ? _mm256_add_epi8(a, b) : WIDTH == 2 ? _mm256_add_epi16(a, b) : _mm256_add_epi32(a, b);
}

/* The lanes of a word's vectors in the order of the chains. */
GLB_INLINE void in_order(__m256i *total, int WIDTH) {
    if (WIDTH == 1) {
        const __m256i by_byte = _mm256_broadcastsi128_si256(
            _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
        total[0] = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(total[0], by_byte),
                                               _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    } else if (WIDTH == 2) {
        const __m256i by_half = _mm256_broadcastsi128_si256(
            _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
        __m256i first = _mm256_shuffle_epi8(total[0], by_half);
        __m256i second = _mm256_shuffle_epi8(total[1], by_half);
        total[0] = _mm256_unpacklo_epi64(first, second);
        total[1] = _mm256_unpackhi_epi64(first, second);
    }
}

/* Eight of the chains' own fields. */
GLB_INLINE __m256i eight_own(const unit *at, int eight) {
    const int32_t *own = at->own[eight / 2];
    return own == NULL ? _mm256_setzero_si256() : load32(own + 8 * (eight % 2));
}

/* Those of vector v, in the fields' width. */
GLB_INLINE __m256i own_of(const unit *at, int v, int WIDTH) {
    if (WIDTH == 4) {
        return eight_own(at, v);
    }
    __m256i both[2];
    for (int i = 0; i < (WIDTH == 1 ? 2 : 1); i++) {
        int eight = (WIDTH == 1 ? 4 : 2) * v + 2 * i;
        both[i] = _mm256_permute4x64_epi64(_mm256_packs_epi32(eight_own(at, eight), eight_own(at, eight + 1)), 0xD8);
    }
    return WIDTH == 2 ? both[0] : _mm256_permute4x64_epi64(_mm256_packs_epi16(both[0], both[1]), 0xD8);
}

GLB_INLINE void fields_of(const constants *k, const uint32_t *block, const row rows[2], const unit *at, int W,
                          int WIDTH, unit_fields *fields) {
    __m256i total[2][4];
    for (int v = 0; v < WIDTH; v++) {
        total[0][v] = _mm256_setzero_si256();
        total[1][v] = _mm256_setzero_si256();
    }
    for (int r = 0; r < (W == 1 ? 2 : 1); r++) {
        const glb_term *end = rows[r].end;
        for (const glb_term *term = rows[r].term; term < end; term++) {
            const uint32_t *up = block + (int64_t)W * term->neighbour;
            __m256i twice = _mm256_set1_epi32((int)term->twice);
            for (int word = 0; word < (W == 1 ? 1 : 2); word++) {
                __m256i spins = _mm256_set1_epi32((int)up[word]);
                for (int v = 0; v < WIDTH; v++) {
                    __m256i some = signed_by(twice, _mm256_and_si256(spins, k->bit[v]), WIDTH);
                    total[r + word][v] = added(total[r + word][v], some, WIDTH);
                }
            }
        }
    }
    for (int word = 0; word < 2; word++) {
        int32_t start = rows[W == 1 ? word : 0].start;
        for (int v = 0; v < WIDTH; v++) {
            total[word][v] = signed_by(total[word][v], k->sign[v], WIDTH);
        }
        in_order(total[word], WIDTH);
        for (int v = 0; v < WIDTH; v++) {
            __m256i base = WIDTH == 1   ? _mm256_set1_epi8((char)start)
                           : WIDTH == 2 ? _mm256_set1_epi16((short)start)
                                        : _mm256_set1_epi32(start);
            total[word][v] = added(total[word][v], base, WIDTH);
            if (at->has_own) {
                total[word][v] = added(total[word][v], own_of(at, WIDTH * word + v, WIDTH), WIDTH);
            }
            store32((uint8_t *)fields->field + 32 * (WIDTH * word + v), total[word][v]);
        }
    }
}

GLB_INLINE void random_of(const words random[8], unit_random *of) { bytes_of(random, of->bytes[0]); }

GLB_INLINE void decide_fields(const constants *k, tie_list *ties, const unit *at, const unit_fields *fields,
                              const unit_random *random, int j, int W, int WIDTH) {
    decide_unit(k, ties, at, fields->field, random->bytes[j], W, WIDTH);
}
