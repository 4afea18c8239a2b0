/* Replica planes, 64 chains at once, any weights: the spins of 64 chains are a mask register, so that a neighbour costs
 * one masked addition of 2w. Fields are int8 (sums up to 63), int16 or int32.
 */

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
    ties.words = block;
    ties.first = first_word;
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
