/* The lanes on AVX-512 with BITALG: 64 lanes of bytes are one vector, words of spins its masks. */

/* The variates of 64 lanes, as bytes. */
GLB_INLINE __m512i variates(const words random[RANDOM_ROWS], int site) {
    const __m512i fractions = _mm512_broadcast_i32x4(_mm_setr_epi8(GLB_FRACTIONS));
    __m512i bits = (__m512i)random[site];
    __m512i nibble = (__m512i)random[EIGHT + site / 2];
    __m512i whole = _mm512_popcnt_epi8(_mm512_andnot_si512(bits, _mm512_add_epi8(bits, _mm512_set1_epi8(-1))));
    nibble = _mm512_and_si512(site % 2 ? _mm512_srli_epi16(nibble, 4) : nibble, _mm512_set1_epi8(15));
    return _mm512_add_epi8(_mm512_slli_epi16(whole, 4), _mm512_shuffle_epi8(fractions, nibble));
}

/* Those of eight sites. */
GLB_INLINE void eight_variates(const glb_key *key, uint32_t eight, uint32_t sweep_low, uint8_t x[EIGHT][64]) {
    words random[RANDOM_ROWS];
    for (uint32_t call = 0; call < 3; call++) {
        random_planes(key, splat(eight), sweep_low, counting(1) + 16 * call, GLB_DRAW_STEP, random + 4 * call);
    }
    for (int site = 0; site < EIGHT; site++) {
        _mm512_storeu_si512(x[site], variates(random, site));
    }
}

static void add_sums(__m512i sum, int width, int64_t *energy) {
    int16_t shorts[32];
    int32_t ints[16];
    memcpy(shorts, &sum, sizeof sum);
    memcpy(ints, &sum, sizeof sum);
    for (int i = 0; i < 64 / width; i++) {
        energy[i] += 2 * (width == 2 ? shorts[i] : ints[i]);
    }
}

/* What the lanes' kernel keeps in registers. */
typedef struct {
    __m512i pace[4]; /* width 1: 16 bits in the order of unpacked bytes; 2: 16 bits; 4: 32 bits */
    __m512i sum[4];  /* halves of changes of energy */
    __m128i left;
    __m128i right;
} lane_registers;

GLB_INLINE uint64_t lane_flips_bytes(lane_registers *r, const uint64_t *spins, uint64_t up, const glb_lanes_term *term,
                                     const glb_lanes_term *end, int32_t base, __m512i x) {
    __m512i field = _mm512_set1_epi8((char)base);
    for (; term < end; term++) {
        field = _mm512_mask_add_epi8(field, spins[term->neighbour], field, _mm512_set1_epi32((int)term->twice));
    }
    __m512i gain = _mm512_mask_sub_epi8(field, ~up, _mm512_setzero_si512(), field);
    __m512i low = _mm512_mulhi_epu16(_mm512_unpacklo_epi8(x, _mm512_setzero_si512()), r->pace[0]);
    __m512i high = _mm512_mulhi_epu16(_mm512_unpackhi_epi8(x, _mm512_setzero_si512()), r->pace[1]);
    __m512i step = _mm512_min_epu8(_mm512_packus_epi16(low, high), _mm512_set1_epi8(INT8_MAX));
    uint64_t flips = _mm512_cmple_epi8_mask(gain, step);
    r->sum[0] = _mm512_mask_add_epi16(r->sum[0], (__mmask32)flips, r->sum[0],
                                      _mm512_cvtepi8_epi16(_mm512_castsi512_si256(gain)));
    r->sum[1] = _mm512_mask_add_epi16(r->sum[1], (__mmask32)(flips >> 32), r->sum[1],
                                      _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(gain, 1)));
    return flips;
}

GLB_INLINE uint64_t lane_flips_short(lane_registers *r, const uint64_t *spins, uint64_t up, const glb_lanes_term *term,
                                     const glb_lanes_term *end, int32_t base, __m512i x) {
    __m512i field[2] = {_mm512_set1_epi16((short)base), _mm512_set1_epi16((short)base)};
    uint64_t flips = 0;
    for (; term < end; term++) {
        uint64_t mask = spins[term->neighbour];
        __m512i twice = _mm512_set1_epi32((int)term->twice);
        field[0] = _mm512_mask_add_epi16(field[0], (__mmask32)mask, field[0], twice);
        field[1] = _mm512_mask_add_epi16(field[1], (__mmask32)(mask >> 32), field[1], twice);
    }
    for (int v = 0; v < 2; v++) {
        __m256i half = v ? _mm512_extracti64x4_epi64(x, 1) : _mm512_castsi512_si256(x);
        __m512i gain = _mm512_mask_sub_epi16(field[v], (__mmask32)(~up >> (32 * v)), _mm512_setzero_si512(), field[v]);
        __m512i step = _mm512_mulhi_epu16(_mm512_sll_epi16(_mm512_cvtepu8_epi16(half), r->left), r->pace[v]);
        __mmask32 down = _mm512_cmple_epi16_mask(gain, _mm512_min_epu16(step, _mm512_set1_epi16(MOST_STEP)));
        for (int part = 0; part < 2; part++) {
            __m256i some = part ? _mm512_extracti64x4_epi64(gain, 1) : _mm512_castsi512_si256(gain);
            r->sum[2 * v + part] = _mm512_mask_add_epi32(r->sum[2 * v + part], (__mmask16)(down >> (16 * part)),
                                                         r->sum[2 * v + part], _mm512_cvtepi16_epi32(some));
        }
        flips |= (uint64_t)down << (32 * v);
    }
    return flips;
}

GLB_INLINE uint64_t lane_flips_long(lane_registers *r, const uint64_t *spins, uint64_t up, const glb_lanes_term *term,
                                    const glb_lanes_term *end, int32_t base, __m512i x, int64_t *energy) {
    __m512i field[4];
    uint64_t flips = 0;
    for (int v = 0; v < 4; v++) {
        field[v] = _mm512_set1_epi32(base);
    }
    for (; term < end; term++) {
        uint64_t mask = spins[term->neighbour];
        __m512i twice = _mm512_set1_epi32((int)term->twice);
        for (int v = 0; v < 4; v++) {
            field[v] = _mm512_mask_add_epi32(field[v], (__mmask16)(mask >> (16 * v)), field[v], twice);
        }
    }
    for (int v = 0; v < 4; v++) {
        __m128i quarter = v == 0   ? _mm512_castsi512_si128(x)
                          : v == 1 ? _mm512_extracti32x4_epi32(x, 1)
                          : v == 2 ? _mm512_extracti32x4_epi32(x, 2)
                                   : _mm512_extracti32x4_epi32(x, 3);
        __m512i gain = _mm512_mask_sub_epi32(field[v], (__mmask16)(~up >> (16 * v)), _mm512_setzero_si512(), field[v]);
        __m512i step = _mm512_srl_epi32(_mm512_mullo_epi32(_mm512_cvtepu8_epi32(quarter), r->pace[v]), r->right);
        __mmask16 down = _mm512_cmple_epi32_mask(gain, step);
        for (int part = 0; part < 2; part++) {
            __m256i some = part ? _mm512_extracti64x4_epi64(gain, 1) : _mm512_castsi512_si256(gain);
            int64_t *at = energy + 16 * v + 8 * part;
            __m512i old = _mm512_loadu_si512(at);
            __m512i change = _mm512_slli_epi64(_mm512_cvtepi32_epi64(some), 1);
            _mm512_storeu_si512(at, _mm512_mask_add_epi64(old, (__mmask8)(down >> (8 * part)), old, change));
        }
        flips |= (uint64_t)down << (16 * v);
    }
    return flips;
}

GLB_INLINE __m512i short_paces(const uint32_t *pace) {
    __m512i low = _mm512_castsi256_si512(_mm512_cvtepi32_epi16(_mm512_loadu_si512(pace)));
    return _mm512_inserti64x4(low, _mm512_cvtepi32_epi16(_mm512_loadu_si512(pace + 16)), 1);
}

GLB_INLINE lane_registers registers_of(const glb_lanes *lanes, int WIDTH) {
    lane_registers r = {.left = _mm_cvtsi32_si128(WIDTH == 2 ? 16 - lanes->shift : 0),
                        .right = _mm_cvtsi32_si128(lanes->shift)};
    uint32_t unpacked[64];
    for (int l = 0; l < 64; l++) { /* lanes 16 c + 0 .. 7 go to the low half, + 8 .. 15 to the high one */
        unpacked[32 * (l / 8 % 2) + 8 * (l / 16) + l % 8] = lanes->pace[l];
    }
    for (int v = 0; v < 4; v++) {
        r.sum[v] = _mm512_setzero_si512();
        r.pace[v] = WIDTH == 4 ? _mm512_loadu_si512(lanes->pace + 16 * v)
                               : short_paces((WIDTH == 1 ? unpacked : lanes->pace) + 32 * (v % 2));
    }
    return r;
}

GLB_INLINE void lanes_of_width(glb_lanes *lanes, int WIDTH) {
    enum { FLUSH = 256 }; /* sites whose changes fit a sum: of gains of 8 bits in 16, of 16 in 32 */
    const glb_graph *graph = lanes->graph;
    const int32_t *base = (const void *)lanes->net;
    const glb_lanes_term *terms = (const void *)(lanes->net + glb_lanes_terms_at(graph));
    uint64_t *spins = lanes->spins;
    glb_key key = glb_make_key(lanes->seed, GLB_SOLVE, 0, lanes->stream, lanes->sweep);
    lane_registers r = registers_of(lanes, WIDTH);
    for (int32_t first = 0; first < graph->n_sites; first += EIGHT) {
        words random[RANDOM_ROWS];
        int32_t some = graph->n_sites - first < EIGHT ? graph->n_sites - first : EIGHT;
        for (uint32_t call = 0; call < 3; call++) {
            random_planes(&key, splat((uint32_t)first / EIGHT), (uint32_t)lanes->sweep, counting(1) + 16 * call,
                          GLB_DRAW_STEP, random + 4 * call);
        }
#pragma GCC unroll 8
        for (int site = 0; site < EIGHT; site++) {
            if (site < some) {
                int32_t p = first + site;
                const glb_lanes_term *term = terms + graph->row_start[p];
                const glb_lanes_term *end = terms + graph->row_start[p + 1];
                __m512i x = variates(random, site);
                uint64_t up = spins[p];
                spins[p] = up ^ (WIDTH == 1   ? lane_flips_bytes(&r, spins, up, term, end, base[p], x)
                                 : WIDTH == 2 ? lane_flips_short(&r, spins, up, term, end, base[p], x)
                                              : lane_flips_long(&r, spins, up, term, end, base[p], x, lanes->energy));
            }
        }
        if (WIDTH < 4 && ((first + EIGHT) % FLUSH == 0 || first + EIGHT >= graph->n_sites)) {
            for (int v = 0; v < 2 * WIDTH; v++) {
                add_sums(r.sum[v], 2 * WIDTH, lanes->energy + 32 / WIDTH * v);
                r.sum[v] = _mm512_setzero_si512();
            }
        }
    }
}
