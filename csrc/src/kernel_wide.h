/* Replica planes, 64 chains at once, any weights: the spins of 64 chains are a mask register, so that a neighbour costs
 * one masked addition of 2w. Fields are int8 (sums up to 63), int16 or int32.
 */

/* The chains' own fields of a quarter of the unit, or zeros. */
GLB_INLINE __m512i own_of(const unit *at, int quarter) {
    return at->own[quarter] == NULL ? _mm512_setzero_si512() : _mm512_loadu_si512(at->own[quarter]);
}

/* A unit's 64 lanes hold one position's chains, or, where a word of 32 is all there is, those of two positions: a row
 * for each half then. */
typedef struct {
    const glb_term *term;
    const glb_term *end;
    int32_t start;
} row;

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

GLB_INLINE void wide_block(const glb_sweep_data *data, const glb_part *part, int32_t number, int W, int WIDTH) {
    enum { UNITS = V / 2 }; /* in one vector of random words */
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
    const int32_t *own = run->chain_field;
    words site = counting(W);
    words c = cycling(W) + first_word;
    const glb_heat *heat = data->heat + glb_heat_of(data, number);
    constants k = constants_of(heat, WIDTH);
    tie_list ties;
    ties.b = heat->b;
    ties.words = block;
    ties.first = first_word;
    ties.W = W;
    ties.n = 0;
    for (int64_t p = part->begin; p < part->end; p += V / W) {
        words random[8];
        __m512i planes[8];
        random_planes(&key, site + (uint32_t)p, (uint32_t)data->sweep, c, 0, random);
        random_planes(&key, site + (uint32_t)p, (uint32_t)data->sweep, c, 1, random + 4);
        unit_planes(random, planes);
        for (int j = 0; j < UNITS; j++) {
            int64_t position = p + 2 * j / W;
            int word = W == 1 ? 0 : 2 * (j % (W == 1 ? 1 : W / 2));
            if (position >= part->end) {
                break;
            }
            int two = W > 1 || position + 1 < part->end; /* a last position alone fills half a unit */
            unit at = {.target = block + position * W + word,
                       .unit = (uint32_t)position << PAIR_BITS | (uint32_t)word / 2,
                       .open = mask_at(open + position * W + word, two ? 2 : 1),
                       .has_own = own != NULL};
            if (at.open == 0) {
                continue;
            }
            for (int v = 0; own != NULL && v < 4; v++) {
                int64_t begin = W == 1 ? lane + 16 * (v % 2) : lane + 32 * word + 16 * v;
                int64_t at_position = W == 1 ? position + v / 2 : position;
                int there = begin < plan->lanes && (two || v < 2);
                at.own[v] = there ? own + plan->lanes * at_position + begin : NULL;
            }
            row rows[2];
            for (int r = 0; r < (W == 1 ? 2 : 1); r++) {
                int64_t own_row = r == 0 || two ? position + r : position;
                int64_t end = r == 0 || two ? row_start[own_row + 1] : row_start[own_row];
                rows[r] = (row){terms + row_start[own_row], terms + end,
                                base[own_row] + (own == NULL ? field[own_row] : 0)};
            }
            __m512i total[4];
            if (WIDTH == 1) {
                total[0] = byte_fields(block + word, rows, &at, W);
            } else if (WIDTH == 2) {
                short_fields(block + word, rows, &at, W, total);
            } else {
                long_fields(block + word, rows, &at, W, total);
            }
            decide_unit(&k, &ties, &at, total, bytes_of_planes(&k, planes[j]), two ? 2 : 1, WIDTH);
            if (ties.n >= TIES) {
                resolve_ties(data, &key, &ties, WIDTH);
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
