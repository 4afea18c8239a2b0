/* Sixty-four searches at once, site by site: the field of each lane, an uphill step for each, and who flips.
 *
 * A lane flips where s f <= t, t = (x pace) >> shift, and x an exponential variate in 16ths of an octave: the trailing
 * zeros of eight random bits are its whole part, four more bits its fraction. So P(t >= g) is exp(-2 beta g), Metropolis'
 * rule, for any weights and a temperature per lane. Eight sites share twelve rows of 64 random bytes, one a lane: row i
 * is word i % 4 of the counters (site / 8, sweep, 16 (i / 4) + 0 .. 15, 0). Site k of the eight has its whole part from
 * row k and its fraction from a half of row 8 + k / 2.
 */

enum { EIGHT = 8, RANDOM_ROWS = 12, MOST_STEP = INT16_MAX };

/* Rounded 16 (-log2(1 - (k + 1/2) / 32)): the middle of each sixteenth of what is exponential within an octave. */
#define GLB_FRACTIONS 0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15

#if defined(GLB_AVX512ICL)

/* The variates of 64 lanes, as bytes. */
GLB_INLINE __m512i variates(const words random[RANDOM_ROWS], int site) {
    const __m512i fractions = _mm512_broadcast_i32x4(_mm_setr_epi8(GLB_FRACTIONS));
    __m512i bits = (__m512i)random[site];
    __m512i nibble = (__m512i)random[EIGHT + site / 2];
    __m512i whole = _mm512_popcnt_epi8(_mm512_andnot_si512(bits, _mm512_add_epi8(bits, _mm512_set1_epi8(-1))));
    nibble = _mm512_and_si512(site % 2 ? _mm512_srli_epi16(nibble, 4) : nibble, _mm512_set1_epi8(15));
    return _mm512_add_epi8(_mm512_slli_epi16(whole, 4), _mm512_shuffle_epi8(fractions, nibble));
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

#elif defined(GLB_AVX2) || defined(GLB_AVX512)

/* Spins as masks of the gains' width lie beside the words, in the scratch: a neighbour is an AND and an addition. */
typedef uint32_t words8 __attribute__((vector_size(32)));

/* Twelve rows of 64 random bytes, two vectors each. */
GLB_INLINE void random_rows(const glb_key *key, uint32_t eight, uint32_t sweep_low, __m256i rows[RANDOM_ROWS][2]) {
    const words8 counter = {0, 1, 2, 3, 4, 5, 6, 7};
    for (uint32_t call = 0; call < 3; call++) {
        for (uint32_t half = 0; half < 2; half++) {
            words8 x[4] = {counter * 0 + eight, counter * 0 + sweep_low, counter + (16 * call + 8 * half),
                           counter * 0 + GLB_DRAW_STEP};
            GLB_THREEFRY4X32(x, key);
            for (int w = 0; w < 4; w++) {
                rows[4 * call + (uint32_t)w][half] = (__m256i)x[w];
            }
        }
    }
}

/* The variates of 32 lanes, as bytes. */
GLB_INLINE __m256i variates(__m256i rows[RANDOM_ROWS][2], int site, int half) {
    const __m256i fractions = _mm256_broadcastsi128_si256(_mm_setr_epi8(GLB_FRACTIONS));
    const __m256i zeros = /* trailing ones of a nibble, times 16 */
        _mm256_broadcastsi128_si256(_mm_setr_epi8(64, 0, 16, 0, 32, 0, 16, 0, 48, 0, 16, 0, 32, 0, 16, 0));
    const __m256i low_bits = _mm256_set1_epi8(15);
    __m256i bits = rows[site][half];
    __m256i nibble = rows[EIGHT + site / 2][half];
    __m256i low = _mm256_and_si256(bits, low_bits);
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(bits, 4), low_bits);
    __m256i more = _mm256_and_si256(_mm256_shuffle_epi8(zeros, high), _mm256_cmpeq_epi8(low, _mm256_setzero_si256()));
    nibble = _mm256_and_si256(site % 2 ? _mm256_srli_epi16(nibble, 4) : nibble, low_bits);
    return _mm256_add_epi8(_mm256_add_epi8(_mm256_shuffle_epi8(zeros, low), more),
                           _mm256_shuffle_epi8(fractions, nibble));
}

/* Bit l of `word` as lane l's mask of WIDTH bytes; 2 WIDTH vectors. */
GLB_INLINE void expand(uint64_t word, int WIDTH, __m256i *row) {
    for (int v = 0; v < 2 * WIDTH; v++) {
        if (WIDTH == 1) {
            const __m256i byte = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3,
                                                  3, 3, 3, 3, 3, 3, 3);
            const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
            __m256i all = _mm256_shuffle_epi8(_mm256_set1_epi32((int)(word >> (32 * v))), byte);
            _mm256_store_si256(row + v, _mm256_cmpeq_epi8(_mm256_and_si256(all, bit), bit));
        } else if (WIDTH == 2) {
            const __m256i bit = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384,
                                                  (short)32768u);
            __m256i all = _mm256_set1_epi16((short)(word >> (16 * v)));
            _mm256_store_si256(row + v, _mm256_cmpeq_epi16(_mm256_and_si256(all, bit), bit));
        } else {
            const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            __m256i all = _mm256_set1_epi32((int)(word >> (8 * v) & 0xFF));
            _mm256_store_si256(row + v, _mm256_cmpeq_epi32(_mm256_and_si256(all, bit), bit));
        }
    }
}

GLB_INLINE __m256i add_of(__m256i a, __m256i b, int WIDTH) {
    return WIDTH == 1 ? _mm256_add_epi8(a, b) : WIDTH == 2 ? _mm256_add_epi16(a, b) : _mm256_add_epi32(a, b);
}

GLB_INLINE __m256i negative_where(__m256i mask, __m256i value, int WIDTH) {
    __m256i x = _mm256_xor_si256(value, mask);
    return WIDTH == 1   ? _mm256_sub_epi8(x, mask)
           : WIDTH == 2 ? _mm256_sub_epi16(x, mask)
                        : _mm256_sub_epi32(x, mask);
}

/* Changes of energy, halved: gains of 8 bits add up in 16, of 16 in 32, and those of 32 at once. */
typedef struct {
    __m256i sum[8];
} lane_sums;

GLB_INLINE void add_changes(lane_sums *sums, __m256i change, int v, int WIDTH, int64_t *energy) {
    __m128i low = _mm256_castsi256_si128(change);
    __m128i high = _mm256_extracti128_si256(change, 1);
    if (WIDTH == 1) {
        sums->sum[2 * v] = _mm256_add_epi16(sums->sum[2 * v], _mm256_cvtepi8_epi16(low));
        sums->sum[2 * v + 1] = _mm256_add_epi16(sums->sum[2 * v + 1], _mm256_cvtepi8_epi16(high));
    } else if (WIDTH == 2) {
        sums->sum[2 * v] = _mm256_add_epi32(sums->sum[2 * v], _mm256_cvtepi16_epi32(low));
        sums->sum[2 * v + 1] = _mm256_add_epi32(sums->sum[2 * v + 1], _mm256_cvtepi16_epi32(high));
    } else {
        for (int part = 0; part < 2; part++) {
            __m256i *at = (__m256i *)(void *)(energy + 8 * v + 4 * part);
            __m256i some = _mm256_slli_epi64(_mm256_cvtepi32_epi64(part ? high : low), 1);
            _mm256_storeu_si256(at, _mm256_add_epi64(_mm256_loadu_si256(at), some));
        }
    }
}

GLB_INLINE void flush_changes(lane_sums *sums, int WIDTH, int64_t *energy) {
    enum { LANES_AT_MOST = 16 };
    for (int v = 0; v < 4 * WIDTH; v++) {
        int32_t part[LANES_AT_MOST];
        memcpy(part, &sums->sum[v], sizeof sums->sum[v]);
        for (int i = 0; i < 16 / WIDTH; i++) {
            energy[16 / WIDTH * v + i] += 2 * (WIDTH == 1 ? ((const int16_t *)(const void *)part)[i] : part[i]);
        }
        sums->sum[v] = _mm256_setzero_si256();
    }
}

/* The uphill steps of all lanes in the gains' width, 2 WIDTH vectors. */
GLB_INLINE void uphill_steps(__m256i rows[RANDOM_ROWS][2], int site, const __m256i pace[8], __m128i left, __m128i right,
                             __m256i step[8], int WIDTH) {
    const __m256i zero = _mm256_setzero_si256();
    for (int half = 0; half < 2; half++) {
        __m256i x = variates(rows, site, half);
        if (WIDTH == 1) { /* x << 16 is too much for a byte and x pace >> 16 just right */
            __m256i low = _mm256_mulhi_epu16(_mm256_unpacklo_epi8(x, zero), pace[2 * half]);
            __m256i high = _mm256_mulhi_epu16(_mm256_unpackhi_epi8(x, zero), pace[2 * half + 1]);
            step[half] = _mm256_min_epu8(_mm256_packus_epi16(low, high), _mm256_set1_epi8(INT8_MAX));
            continue;
        }
        for (int part = 0; part < 2; part++) {
            __m128i some = part ? _mm256_extracti128_si256(x, 1) : _mm256_castsi256_si128(x);
            if (WIDTH == 2) {
                __m256i wide = _mm256_sll_epi16(_mm256_cvtepu8_epi16(some), left);
                step[2 * half + part] = _mm256_min_epu16(_mm256_mulhi_epu16(wide, pace[2 * half + part]),
                                                         _mm256_set1_epi16(MOST_STEP));
            } else {
                for (int eight = 0; eight < 2; eight++) {
                    int v = 4 * half + 2 * part + eight;
                    __m256i wide = _mm256_cvtepu8_epi32(eight ? _mm_srli_si128(some, 8) : some);
                    step[v] = _mm256_srl_epi32(_mm256_mullo_epi32(wide, pace[v]), right);
                }
            }
        }
    }
}

GLB_INLINE uint64_t bits_of(const __m256i *row, int WIDTH) {
    uint64_t word = 0;
    if (WIDTH == 1) {
        return (uint32_t)_mm256_movemask_epi8(row[0]) | (uint64_t)(uint32_t)_mm256_movemask_epi8(row[1]) << 32;
    }
    for (int v = 0; WIDTH == 2 && v < 4; v += 2) {
        __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi16(row[v], row[v + 1]), 0xD8);
        word |= (uint64_t)(uint32_t)_mm256_movemask_epi8(both) << (16 * v);
    }
    for (int v = 0; WIDTH == 4 && v < 8; v++) {
        word |= (uint64_t)(uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(row[v])) << (8 * v);
    }
    return word;
}

GLB_INLINE void lanes_of_width(glb_lanes *lanes, int WIDTH) {
    enum { FLUSH = 256 }; /* sites whose changes fit a sum */
    const glb_graph *graph = lanes->graph;
    const int32_t *base = (const void *)lanes->net;
    const glb_lanes_term *terms = (const void *)(lanes->net + glb_lanes_terms_at(graph));
    const int N = 2 * WIDTH;
    const __m256i ones = _mm256_set1_epi8(-1);
    __m256i *masks = (__m256i *)(void *)lanes->scratch;
    glb_key key = glb_make_key(lanes->seed, GLB_SOLVE, 0, lanes->stream, lanes->sweep);
    __m128i left = _mm_cvtsi32_si128(WIDTH == 2 ? 16 - lanes->shift : 0);
    __m128i right = _mm_cvtsi32_si128(lanes->shift);
    __m256i pace[8];
    lane_sums sums;
    memset(&sums, 0, sizeof sums);
    for (int l = 0; l < 64; l++) { /* of bytes unpacked, lanes 16 c + 0 .. 7 of 32 come first */
        int place = WIDTH == 1 ? 32 * (l / 32) + 16 * (l / 8 % 2) + 8 * (l / 16 % 2) + l % 8 : l;
        if (WIDTH == 4) {
            ((uint32_t *)(void *)pace)[place] = lanes->pace[l];
        } else {
            ((uint16_t *)(void *)pace)[place] = (uint16_t)lanes->pace[l];
        }
    }
    for (int32_t p = 0; p < graph->n_sites; p++) {
        expand(lanes->spins[p], WIDTH, masks + (int64_t)N * p);
    }
    for (int32_t first = 0; first < graph->n_sites; first += EIGHT) {
        __m256i rows[RANDOM_ROWS][2];
        int32_t some = graph->n_sites - first < EIGHT ? graph->n_sites - first : EIGHT;
        random_rows(&key, (uint32_t)first / EIGHT, (uint32_t)lanes->sweep, rows);
#pragma GCC unroll 8
        for (int site = 0; site < EIGHT; site++) {
            if (site >= some) {
                continue;
            }
            int32_t p = first + site;
            __m256i field[8];
            __m256i step[8];
            __m256i *own = masks + (int64_t)N * p;
            uphill_steps(rows, site, pace, left, right, step, WIDTH);
            for (int v = 0; v < N; v++) {
                field[v] = WIDTH == 1   ? _mm256_set1_epi8((char)base[p])
                           : WIDTH == 2 ? _mm256_set1_epi16((short)base[p])
                                        : _mm256_set1_epi32(base[p]);
            }
            for (int64_t k = graph->row_start[p]; k < graph->row_start[p + 1]; k++) {
                const __m256i *up = masks + (int64_t)N * terms[k].neighbour;
                __m256i twice = _mm256_set1_epi32((int)terms[k].twice);
                for (int v = 0; v < N; v++) {
                    field[v] = add_of(field[v], _mm256_and_si256(up[v], twice), WIDTH);
                }
            }
            for (int v = 0; v < N; v++) {
                __m256i gain = negative_where(_mm256_xor_si256(own[v], ones), field[v], WIDTH);
                __m256i stays = WIDTH == 1   ? _mm256_cmpgt_epi8(gain, step[v])
                                : WIDTH == 2 ? _mm256_cmpgt_epi16(gain, step[v])
                                             : _mm256_cmpgt_epi32(gain, step[v]);
                own[v] = _mm256_xor_si256(own[v], _mm256_xor_si256(stays, ones));
                add_changes(&sums, _mm256_andnot_si256(stays, gain), v, WIDTH, lanes->energy);
            }
            lanes->spins[p] = bits_of(own, WIDTH);
        }
        if (WIDTH < 4 && ((first + EIGHT) % FLUSH == 0 || first + EIGHT >= graph->n_sites)) {
            flush_changes(&sums, WIDTH, lanes->energy);
        }
    }
}

#else

/* The flips of one site from its gains and random bytes; adds the changes to the lanes' energies. */
static uint64_t lane_flips(glb_lanes *lanes, const int32_t gain[64], const uint8_t bits[64], const uint8_t nibbles[64],
                           int odd) {
    static const uint8_t fractions[16] = {GLB_FRACTIONS};
    static const uint8_t zeros[16] = {4, 0, 1, 0, 2, 0, 1, 0, 3, 0, 1, 0, 2, 0, 1, 0};
    uint64_t word = 0;
    for (int l = 0; l < 64; l++) {
        uint32_t whole = zeros[bits[l] & 15] + ((bits[l] & 15) == 0 ? zeros[bits[l] >> 4] : 0u);
        uint32_t x = (whole << 4) + fractions[(nibbles[l] >> (4 * odd)) & 15];
        int32_t flips = gain[l] <= (int32_t)((x * lanes->pace[l]) >> lanes->shift);
        word |= (uint64_t)flips << l;
        lanes->energy[l] += 2 * (int64_t)gain[l] * flips;
    }
    return word;
}

GLB_INLINE void lanes_of_width(glb_lanes *lanes, int WIDTH) {
    const glb_graph *graph = lanes->graph;
    const int32_t *base = (const void *)lanes->net;
    glb_key key = glb_make_key(lanes->seed, GLB_SOLVE, 0, lanes->stream, lanes->sweep);
    uint8_t rows[RANDOM_ROWS][64];
    uint32_t bit[64];
    (void)WIDTH;
    for (int l = 0; l < 64; l++) {
        bit[l] = 1u << (l % 32);
    }
    for (int32_t p = 0; p < graph->n_sites; p++) {
        int32_t gain[64];
        uint32_t total[64] = {0};
        uint64_t own = lanes->spins[p];
        for (uint32_t c = 0; p % EIGHT == 0 && c < 48; c += V) {
            words x[4];
            random_planes(&key, splat((uint32_t)p / EIGHT), (uint32_t)lanes->sweep, counting(1) + c, GLB_DRAW_STEP, x);
            for (int i = 0; i < V; i++) {
                for (int w = 0; w < 4; w++) {
                    uint32_t lane[V];
                    store(lane, x[w]);
                    for (int byte = 0; byte < 4; byte++) {
                        uint32_t counter = c + (uint32_t)i;
                        rows[4 * (counter / 16) + (uint32_t)w][4 * (counter % 16) + (uint32_t)byte] =
                            (uint8_t)(lane[i] >> (8 * byte));
                    }
                }
            }
        }
        for (int64_t k = graph->row_start[p]; k < graph->row_start[p + 1]; k++) {
            uint64_t word = lanes->spins[graph->neighbour[k]];
            uint32_t twice = 2u * (uint32_t)graph->weight[k];
            for (int half = 0; half < 2; half++) {
                uint32_t up = (uint32_t)(word >> (32 * half));
                for (int l = 32 * half; l < 32 * half + 32; l++) {
                    total[l] += (up & bit[l]) != 0 ? twice : 0u;
                }
            }
        }
        for (int l = 0; l < 64; l++) {
            int32_t field = (int32_t)(total[l] + (uint32_t)base[p]);
            gain[l] = (own >> l) & 1 ? field : -field;
        }
        lanes->spins[p] = own ^ lane_flips(lanes, gain, rows[p % EIGHT], rows[EIGHT + p % EIGHT / 2], p % 2);
    }
}

#endif

static void lanes_kernel(glb_lanes *lanes, int width) {
    if (width == 1) {
        lanes_of_width(lanes, 1);
    } else if (width == 2) {
        lanes_of_width(lanes, 2);
    } else {
        lanes_of_width(lanes, 4);
    }
}

/* Lane l of every word becomes what lane source[l] was. */
static void permute_lanes(uint64_t *spins, int32_t n, const uint8_t source[64]) {
#if defined(GLB_AVX512ICL)
    __m512i index = _mm512_loadu_si512(source);
    for (int32_t i = 0; i < n; i++) {
        spins[i] = _mm512_bitshuffle_epi64_mask(_mm512_set1_epi64((long long)spins[i]), index);
    }
#else
    for (int32_t i = 0; i < n; i++) {
        uint64_t word = 0;
        for (int l = 0; l < 64; l++) {
            word |= ((spins[i] >> source[l]) & 1) << l;
        }
        spins[i] = word;
    }
#endif
}
