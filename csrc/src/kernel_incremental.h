/* Site planes, one chain after another: fields are kept from sweep to sweep, and only a spin that flips changes them, those
 * of the sites that depend on it. The colder, the less there is to do.
 *
 * The upper byte of a position's random number gives two cuts: above one every field means up, up to the other every
 * field means down, whatever the lower bytes are; what lies between is decided exactly. Cuts do not depend on the spins, so
 * that 32 positions are compared at once, and compared again after a flip where they depend on each other.
 */

#if defined(GLB_AVX512) || defined(GLB_AVX2)
/* A step of glb_transposed for four matrices. */
GLB_INLINE __m256i swapped_bits(__m256i x, int distance, long long mask) {
    const __m128i by = _mm_cvtsi32_si128(distance);
    __m256i t = _mm256_and_si256(_mm256_xor_si256(x, _mm256_srl_epi64(x, by)), _mm256_set1_epi64x(mask));
    return _mm256_xor_si256(x, _mm256_xor_si256(t, _mm256_sll_epi64(t, by)));
}
#endif

/* The upper bytes of the random numbers of 32 positions, from a word of each of eight planes. */
GLB_INLINE void upper_bytes(const uint32_t *planes, uint8_t upper[32]) {
#if defined(GLB_AVX512) || defined(GLB_AVX2)
    const __m256i by_byte = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5, 9,
                                             13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m256i x = _mm256_setr_epi32((int)planes[7 * V], (int)planes[6 * V], (int)planes[5 * V], (int)planes[4 * V],
                                  (int)planes[3 * V], (int)planes[2 * V], (int)planes[V], (int)planes[0]);
    x = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(x, by_byte), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    x = swapped_bits(x, 7, 0x00AA00AA00AA00AA);
    x = swapped_bits(x, 14, 0x0000CCCC0000CCCC);
    x = swapped_bits(x, 28, 0x00000000F0F0F0F0);
    _mm256_storeu_si256((void *)upper, x);
#else
    for (int eight = 0; eight < 4; eight++) {
        uint64_t x = 0;
        for (int k = 0; k < 8; k++) {
            x |= (uint64_t)((planes[k * V] >> (8 * eight)) & 0xFFu) << (8 * (7 - k));
        }
        x = glb_transposed(x);
        for (int i = 0; i < 8; i++) {
            upper[8 * eight + i] = (uint8_t)(x >> (8 * i));
        }
    }
#endif
}

/* Cuts of 32 positions for fields of 32 or 16 bits. */
typedef union {
    int32_t wide[32];
    int16_t narrow[32];
} cuts;

/* Pairs of 16 bits parted: the lower halves and the upper ones. */
GLB_INLINE void part_cuts(const int32_t pair[32], cuts *down, cuts *up) {
#if defined(GLB_AVX512) || defined(GLB_AVX2)
    for (int i = 0; i < 2; i++) {
        __m256i one = _mm256_loadu_si256((const void *)(pair + 16 * i));
        __m256i two = _mm256_loadu_si256((const void *)(pair + 16 * i + 8));
        __m256i high = _mm256_packs_epi32(_mm256_srai_epi32(one, 16), _mm256_srai_epi32(two, 16));
        one = _mm256_srai_epi32(_mm256_slli_epi32(one, 16), 16);
        two = _mm256_srai_epi32(_mm256_slli_epi32(two, 16), 16);
        __m256i low = _mm256_packs_epi32(one, two);
        _mm256_storeu_si256((void *)(down->narrow + 16 * i), _mm256_permute4x64_epi64(low, 0xD8));
        _mm256_storeu_si256((void *)(up->narrow + 16 * i), _mm256_permute4x64_epi64(high, 0xD8));
    }
#else
    for (int i = 0; i < 32; i++) {
        down->narrow[i] = (int16_t)(uint16_t)(uint32_t)pair[i];
        up->narrow[i] = (int16_t)(uint16_t)((uint32_t)pair[i] >> 16);
    }
#endif
}

/* The cuts of V words: loads one by one, for gathers are slower here, and in three passes, for a vector must not be loaded
 * while its parts are still on their way to memory. */
GLB_INLINE void find_cuts(const int32_t cut[2][256], const uint32_t *planes, uint8_t upper[V][32], cuts *down, cuts *up,
                          int WIDTH) {
    int32_t pair[V][32];
    for (int i = 0; i < V; i++) {
        upper_bytes(planes + i, upper[i]);
    }
    for (int i = 0; i < V; i++) {
        for (int k = 0; k < 32; k++) {
            if (WIDTH == 4) {
                down[i].wide[k] = cut[0][upper[i][k]];
                up[i].wide[k] = cut[1][upper[i][k]];
            } else {
                pair[i][k] = cut[0][upper[i][k]];
            }
        }
    }
    for (int i = 0; WIDTH == 2 && i < V; i++) {
        part_cuts(pair[i], down + i, up + i);
    }
}

/* Which of 32 fields are above their cuts. */
GLB_INLINE uint32_t above(const void *field, const void *cut, int WIDTH) {
#if defined(GLB_AVX512) || defined(GLB_AVX2)
    const __m256i *f = field;
    const __m256i *c = cut;
    __m256i is[4];
    for (int i = 0; i < WIDTH; i++) {
        __m256i x = _mm256_loadu_si256(f + i);
        __m256i y = _mm256_loadu_si256(c + i);
        is[i] = WIDTH == 2 ? _mm256_cmpgt_epi16(x, y) : _mm256_cmpgt_epi32(x, y);
    }
    if (WIDTH == 2) {
        return (uint32_t)_mm256_movemask_epi8(_mm256_permute4x64_epi64(_mm256_packs_epi16(is[0], is[1]), 0xD8));
    }
    __m256i all = _mm256_packs_epi16(_mm256_packs_epi32(is[0], is[1]), _mm256_packs_epi32(is[2], is[3]));
    all = _mm256_permutevar8x32_epi32(all, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    return (uint32_t)_mm256_movemask_epi8(all);
#else
    uint32_t result = 0;
    for (int i = 0; i < 32; i++) {
        int one = WIDTH == 2 ? ((const int16_t *)field)[i] > ((const int16_t *)cut)[i]
                             : ((const int32_t *)field)[i] > ((const int32_t *)cut)[i];
        result |= (uint32_t)one << i;
    }
    return result;
#endif
}

/* One decision with all that it takes, given the upper byte of its random number. */
static int is_below(const glb_sweep_data *data, const glb_key *key, uint32_t a, uint32_t c, int bit, uint32_t upper,
                    int32_t field) {
    uint32_t threshold = glb_threshold(field, data->heat->b);
    uint32_t u = upper;
    int left = 24; /* bits of u to come */
    for (uint32_t g = 2; u == threshold >> left && g < 8; g++) {
        uint32_t word[4];
        glb_threefry(key, a, (uint32_t)data->sweep, c, g, word);
        for (int w = 0; w < 4; w++) {
            u = u << 1 | ((word[w] >> bit) & 1u);
        }
        left -= 4;
    }
    return u < threshold >> left;
}

/* Changes the fields of all who depend on a spin that has turned up or down. */
GLB_INLINE void spread(const glb_incremental_net *net, const uint8_t *bytes, void *fields, int32_t position, int up,
                       int WIDTH) {
    if (!net->dense) {
        const int64_t *start = (const int64_t *)(const void *)(bytes + net->start) + position;
        const glb_change *change = (const glb_change *)(const void *)(bytes + net->terms) + start[0];
        const glb_change *end = change + (start[1] - start[0]);
        uint32_t sign = up ? 0 : UINT32_MAX;
        for (; change < end; change++) {
            uint32_t by = ((uint32_t)change->twice ^ sign) - sign;
            if (WIDTH == 2) {
                ((uint16_t *)fields)[change->position] = (uint16_t)(((uint16_t *)fields)[change->position] + by);
            } else {
                ((uint32_t *)fields)[change->position] += by;
            }
        }
        return;
    }
    const int64_t stride = net->stride; /* of which the compiler may not think that the row's numbers change it */
    const uint8_t *row = bytes + net->terms + WIDTH * stride * position;
#define GLB_ADD_ROW(type, operator)                                                                                    \
    do {                                                                                                               \
        type *GLB_RESTRICT field = fields;                                                                             \
        const type *GLB_RESTRICT by = (const void *)row;                                                               \
        for (int64_t i = 0; i < stride; i++) {                                                                    \
            field[i] = (type)(field[i] operator by[i]);                                                                \
        }                                                                                                              \
    } while (0)
    if (WIDTH == 2 && up) {
        GLB_ADD_ROW(uint16_t, +);
    } else if (WIDTH == 2) {
        GLB_ADD_ROW(uint16_t, -);
    } else if (up) {
        GLB_ADD_ROW(uint32_t, +);
    } else {
        GLB_ADD_ROW(uint32_t, -);
    }
#undef GLB_ADD_ROW
}

GLB_INLINE void incremental_chain(const glb_sweep_data *data, int32_t chain, int WIDTH) {
    const glb_incremental_net *net = (const void *)data->net;
    const uint8_t *coupled = data->net + net->coupled;
    uint32_t *spins = data->state + data->plan->rows * chain + GLB_SITE_PAD;
    const uint32_t *free = data->free + data->plan->rows * chain + GLB_SITE_PAD;
    uint8_t *fields = data->fields + WIDTH * net->stride * chain;
    glb_key key = glb_make_key(data->run->seed, GLB_DECISION, GLB_SITE_PLANES, data->run->stream, data->sweep);
    uint32_t c = data->run->first_chain + (uint32_t)chain;
    int64_t n_words = ((int64_t)data->program->n_sites + 31) / 32;
    for (int64_t first = 0; first < n_words; first += V) {
        words random[8];
        uint32_t planes[8 * V];
        random_planes(&key, counting(1) + (uint32_t)first, (uint32_t)data->sweep, splat(c), 0, random);
        random_planes(&key, counting(1) + (uint32_t)first, (uint32_t)data->sweep, splat(c), 1, random + 4);
        uint8_t upper[V][32];
        cuts down[V];
        cuts up[V];
        memcpy(planes, random, sizeof planes);
        find_cuts(data->heat->cut, planes, upper, down, up, WIDTH); /* before the first decision: guesses after it fail often */
        for (int64_t word = first; word < n_words && word < first + V; word++) {
            const cuts *high = up + (word - first);
            const cuts *low = down + (word - first);
            uint8_t *here = fields + 32 * WIDTH * word;
            uint32_t left = free[word];
            uint32_t now = spins[word];
            uint32_t is_up = above(here, high, WIDTH);
            uint32_t open = above(here, low, WIDTH) & ~is_up;
            uint32_t todo = ((is_up ^ now) | open) & left;
            while (todo != 0) {
                int i = glb_lowest_bit(todo);
                uint32_t bit = 1u << i;
                int one = (is_up & bit) != 0;
                if (open & bit) {
                    int32_t field = WIDTH == 2 ? ((const int16_t *)(const void *)here)[i]
                                               : ((const int32_t *)(const void *)here)[i];
                    one = is_below(data, &key, (uint32_t)word, c, i, upper[word - first][i], field);
                }
                left &= ~(bit | (bit - 1));
                if (one != ((now & bit) != 0)) {
                    now ^= bit;
                    spread(net, data->net, fields, (int32_t)(32 * word + i), one, WIDTH);
                    if (coupled[word]) {
                        is_up = above(here, high, WIDTH);
                        open = above(here, low, WIDTH) & ~is_up;
                    }
                }
                todo = ((is_up ^ now) | open) & left;
            }
            spins[word] = now;
        }
    }
}

/* A chain's fields from its spins: those with all spins down, and then each that is up turns up. */
static void incremental_start(const glb_sweep_data *data, int32_t chain) {
    const glb_ising *program = data->program;
    const glb_incremental_net *net = (const void *)data->net;
    const uint32_t *spins = data->state + data->plan->rows * chain + GLB_SITE_PAD;
    int WIDTH = data->plan->width == 4 ? 4 : 2;
    uint8_t *fields = data->fields + WIDTH * net->stride * chain;
    const int32_t *own = data->run->chain_field == NULL ? program->field
                                                        : data->run->chain_field + data->plan->lanes * chain;
    for (int32_t p = 0; p < program->n_sites; p++) {
        int32_t down = own[p];
        for (int64_t k = program->row_start[p]; k < program->row_start[p + 1]; k++) {
            down -= program->weight[k];
        }
        if (WIDTH == 4) {
            ((int32_t *)(void *)fields)[p] = down;
        } else {
            ((int16_t *)(void *)fields)[p] = (int16_t)down;
        }
    }
    for (int32_t p = 0; p < program->n_sites; p++) {
        if ((spins[p / 32] >> (p % 32)) & 1u) {
            spread(net, data->net, fields, p, 1, WIDTH);
        }
    }
}

/* All positions of a sweep: `part` has them all. */
static void incremental_kernel(const glb_sweep_data *data, const glb_part *part) {
    for (int32_t chain = part->first; chain < part->last; chain++) {
        if (data->plan->width == 4) {
            incremental_chain(data, chain, 4);
        } else {
            incremental_chain(data, chain, 2);
        }
    }
}
