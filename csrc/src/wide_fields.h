/* Fields of 64 chains for AVX-512 with VBMI: the spins of a neighbour are a mask register. */

/* The chains' own fields of a quarter of the unit, or zeros. */
GLB_INLINE __m512i own_of(const unit *at, int quarter) {
    return at->own[quarter] == NULL ? _mm512_setzero_si512() : _mm512_loadu_si512(at->own[quarter]);
}

GLB_INLINE __m512i byte_fields(const uint32_t *block, const row rows[2], const unit *at, int W) {
    __m512i total = _mm512_set1_epi8((char)rows[0].start);
    if (W == 1) {
        total = _mm512_mask_set1_epi8(total, UINT64_C(0xFFFFFFFF00000000), (char)rows[1].start);
    }
    if (at->has_own) {
        __m512i own = _mm512_castsi128_si512(_mm512_cvtepi32_epi8(own_of(at, 0)));
        own = _mm512_inserti32x4(own, _mm512_cvtepi32_epi8(own_of(at, 1)), 1);
        own = _mm512_inserti32x4(own, _mm512_cvtepi32_epi8(own_of(at, 2)), 2);
        own = _mm512_inserti32x4(own, _mm512_cvtepi32_epi8(own_of(at, 3)), 3);
        total = _mm512_add_epi8(total, own);
    }
    for (int r = 0; r < (W == 1 ? 2 : 1); r++) {
        for (const glb_term *term = rows[r].term; term < rows[r].end; term++) {
            uint64_t up = mask_at(block + (int64_t)W * term->neighbour, W) << (32 * r);
            total = _mm512_mask_add_epi8(total, up, total, _mm512_set1_epi32((int)term->twice));
        }
    }
    return total;
}

GLB_INLINE void short_fields(const uint32_t *block, const row rows[2], const unit *at, int W, __m512i total[2]) {
    for (int v = 0; v < 2; v++) {
        total[v] = _mm512_set1_epi16((short)rows[W == 1 ? v : 0].start);
        if (at->has_own) {
            __m256i low = _mm512_cvtepi32_epi16(own_of(at, 2 * v));
            __m256i high = _mm512_cvtepi32_epi16(own_of(at, 2 * v + 1));
            total[v] = _mm512_add_epi16(total[v], _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
        }
    }
    for (int r = 0; r < (W == 1 ? 2 : 1); r++) {
        for (const glb_term *term = rows[r].term; term < rows[r].end; term++) {
            const uint32_t *up = block + (int64_t)W * term->neighbour; /* masks come from memory, not a register */
            __m512i twice = _mm512_set1_epi32((int)term->twice);
            total[r] = _mm512_mask_add_epi16(total[r], up[0], total[r], twice);
            if (W > 1) {
                total[1] = _mm512_mask_add_epi16(total[1], up[1], total[1], twice);
            }
        }
    }
}

GLB_INLINE void long_fields(const uint32_t *block, const row rows[2], const unit *at, int W, __m512i total[4]) {
    for (int v = 0; v < 4; v++) {
        total[v] = _mm512_set1_epi32(rows[W == 1 ? v / 2 : 0].start);
        if (at->has_own) {
            total[v] = _mm512_add_epi32(total[v], own_of(at, v));
        }
    }
    for (int r = 0; r < (W == 1 ? 2 : 1); r++) {
        for (const glb_term *term = rows[r].term; term < rows[r].end; term++) {
            const uint32_t *up = block + (int64_t)W * term->neighbour;
            __m512i twice = _mm512_set1_epi32((int)term->twice);
            for (int v = 0; v < (W == 1 ? 2 : 4); v++) {
                __mmask16 mask;
                memcpy(&mask, (const uint8_t *)up + 2 * v, sizeof mask);
                total[2 * r + v] = _mm512_mask_add_epi32(total[2 * r + v], mask, total[2 * r + v], twice);
            }
        }
    }
}

/* Fields of a unit, and its random bytes. */
typedef struct {
    __m512i total[4];
} unit_fields;

typedef struct {
    __m512i planes[8];
} unit_random;

GLB_INLINE void fields_of(const constants *k, const uint32_t *block, const row rows[2], const unit *at, int W,
                          int WIDTH, unit_fields *fields) {
    (void)k;
    if (WIDTH == 1) {
        fields->total[0] = byte_fields(block, rows, at, W);
    } else if (WIDTH == 2) {
        short_fields(block, rows, at, W, fields->total);
    } else {
        long_fields(block, rows, at, W, fields->total);
    }
}

GLB_INLINE void random_of(const words random[8], unit_random *of) { unit_planes(random, of->planes); }

GLB_INLINE void decide_fields(const constants *k, tie_list *ties, const unit *at, const unit_fields *fields,
                              const unit_random *random, int j, int W, int WIDTH) {
    decide_unit(k, ties, at, fields->total, bytes_of_planes(k, random->planes[j]), W, WIDTH);
}
