/* The lanes on AVX2. */

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

/* Those of eight sites and all lanes. */
GLB_INLINE void eight_variates(const glb_key *key, uint32_t eight, uint32_t sweep_low, uint8_t x[EIGHT][64]) {
    __m256i rows[RANDOM_ROWS][2];
    random_rows(key, eight, sweep_low, rows);
    for (int site = 0; site < EIGHT; site++) {
        for (int half = 0; half < 2; half++) {
            _mm256_storeu_si256((__m256i *)(void *)(x[site] + 32 * half), variates(rows, site, half));
        }
    }
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
