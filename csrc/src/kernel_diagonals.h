/* Site planes, 64 neighbouring positions of one chain at once, for AVX-512 with VBMI and GFNI.
 *
 * On a lattice in colour order most of 64 neighbouring positions have neighbours at the same few distances, as a sparse
 * matrix has diagonals. A diagonal's spins are 64 consecutive bits, a mask register, and cost one masked addition of
 * their weights; what is on no diagonal is added one by one. Decisions are those of wide.h.
 */

/* Sixty-four spins from a bit of a chain on. */
GLB_INLINE uint64_t bits_from(const uint32_t *spins, int64_t bit) {
    const uint8_t *from = (const uint8_t *)spins + (bit >> 3);
    int shift = (int)(bit & 7);
    uint64_t low;
    memcpy(&low, from, sizeof low);
    return low >> shift | (uint64_t)from[8] << 1 << (63 - shift);
}

GLB_INLINE __m512i add_lanes(__m512i total, uint64_t mask, __m512i value, int v, int WIDTH) {
    return WIDTH == 1   ? _mm512_mask_add_epi8(total, mask, total, value)
           : WIDTH == 2 ? _mm512_mask_add_epi16(total, (__mmask32)(mask >> (32 * v)), total, value)
                        : _mm512_mask_add_epi32(total, (__mmask16)(mask >> (16 * v)), total, value);
}

/* The chain's own fields of 64 positions in place of the program's. */
GLB_INLINE __m512i own_fields(const int32_t *own, int v, int WIDTH) {
    if (WIDTH == 4) {
        return _mm512_loadu_si512(own + 16 * v);
    }
    if (WIDTH == 2) {
        __m256i low = _mm512_cvtepi32_epi16(_mm512_loadu_si512(own + 32 * v));
        __m256i high = _mm512_cvtepi32_epi16(_mm512_loadu_si512(own + 32 * v + 16));
        return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
    __m512i bytes = _mm512_castsi128_si512(_mm512_cvtepi32_epi8(_mm512_loadu_si512(own)));
    bytes = _mm512_inserti32x4(bytes, _mm512_cvtepi32_epi8(_mm512_loadu_si512(own + 16)), 1);
    bytes = _mm512_inserti32x4(bytes, _mm512_cvtepi32_epi8(_mm512_loadu_si512(own + 32)), 2);
    return _mm512_inserti32x4(bytes, _mm512_cvtepi32_epi8(_mm512_loadu_si512(own + 48)), 3);
}

GLB_INLINE void diagonals_fields(const uint32_t *spins, const glb_diagonals_net *net, const uint8_t *bytes,
                                 int64_t number, const int32_t *own, __m512i total[4], int WIDTH) {
    enum { ONE_BY_ONE = 12 };
    const glb_diagonals_unit *of = (const glb_diagonals_unit *)(const void *)(bytes + net->units) + number;
    const glb_diagonal *diagonal = (const glb_diagonal *)(const void *)(bytes + net->diagonals) + of->diagonal;
    const glb_off_diagonal *off = (const glb_off_diagonal *)(const void *)(bytes + net->off) + of->off;
    const uint8_t *weights = bytes + net->weights + (int64_t)64 * WIDTH * of->diagonal;
    const uint8_t *base = bytes + (own == NULL ? net->base : net->base_without_fields) + 64 * WIDTH * number;
    int few = of->n_off <= ONE_BY_ONE;
    uint8_t sums[256];
    if (!few) { /* added in memory; the loads that follow wait for it, so few are not */
        memcpy(sums, base, 64 * WIDTH);
        for (int32_t i = 0; i < of->n_off;) { /* lane by lane: a sum stays in a register */
            int32_t lane = off[i].lane;
            uint32_t sum = 0;
            do {
                uint32_t up = (spins[off[i].neighbour >> 5] >> (off[i].neighbour & 31)) & 1u;
                sum += (0u - up) & (uint32_t)off[i].twice;
                i++;
            } while (i < of->n_off && off[i].lane == lane);
            if (WIDTH == 1) {
                sums[lane] = (uint8_t)(sums[lane] + sum);
            } else if (WIDTH == 2) {
                ((uint16_t *)(void *)sums)[lane] = (uint16_t)(((uint16_t *)(void *)sums)[lane] + sum);
            } else {
                ((uint32_t *)(void *)sums)[lane] += sum;
            }
        }
        base = sums;
    }
    for (int v = 0; v < WIDTH; v++) {
        total[v] = _mm512_loadu_si512(base + 64 * v);
        if (own != NULL) {
            __m512i more = own_fields(own, v, WIDTH);
            total[v] = WIDTH == 1   ? _mm512_add_epi8(total[v], more)
                       : WIDTH == 2 ? _mm512_add_epi16(total[v], more)
                                    : _mm512_add_epi32(total[v], more);
        }
    }
    for (int32_t d = 0; d < of->n_diagonals; d++) {
        uint64_t up = bits_from(spins, 64 * number + diagonal[d].distance);
        for (int v = 0; v < WIDTH; v++) {
            total[v] = add_lanes(total[v], up, _mm512_loadu_si512(weights + 64 * (WIDTH * d + v)), v, WIDTH);
        }
    }
    for (int32_t i = 0; few && i < of->n_off; i++) {
        uint64_t up = (uint64_t)((spins[off[i].neighbour >> 5] >> (off[i].neighbour & 31)) & 1u) << off[i].lane;
        for (int v = 0; v < WIDTH; v++) {
            __m512i twice = WIDTH == 1   ? _mm512_set1_epi8((char)off[i].twice)
                            : WIDTH == 2 ? _mm512_set1_epi16((short)off[i].twice)
                                         : _mm512_set1_epi32(off[i].twice);
            total[v] = add_lanes(total[v], up, twice, v, WIDTH);
        }
    }
}

GLB_INLINE void diagonals_chain(const glb_sweep_data *data, const glb_part *part, int32_t chain, int WIDTH) {
    enum { UNIT = 64, UNITS = V / 2 };
    const glb_run *run = data->run;
    const glb_plan *plan = data->plan;
    const glb_diagonals_net *net = (const void *)data->net;
    uint32_t *spins = data->state + plan->rows * chain + GLB_SITE_PAD;
    const uint32_t *open = data->free + plan->rows * chain + GLB_SITE_PAD;
    glb_key key = glb_make_key(run->seed, GLB_DECISION, GLB_SITE_PLANES, run->stream, data->sweep);
    const glb_heat *heat = data->heat + glb_heat_of(data, chain);
    constants k = constants_of(heat, WIDTH);
    tie_list ties;
    ties.b = heat->b;
    ties.words = spins;
    ties.first = run->first_chain + (uint32_t)chain;
    ties.W = 0;
    ties.n = 0;
    for (int64_t start = part->begin / UNIT; UNIT * start < part->end; start += UNITS) {
        words random[8];
        __m512i planes[8];
        words a = counting(1) + (uint32_t)(2 * start);
        random_planes(&key, a, (uint32_t)data->sweep, splat(ties.first), 0, random);
        random_planes(&key, a, (uint32_t)data->sweep, splat(ties.first), 1, random + 4);
        unit_planes(random, planes);
        for (int64_t number = start; number < start + UNITS && UNIT * number < part->end; number++) {
            unit at = {.target = spins + 2 * number, .unit = (uint32_t)number, .open = mask_at(open + 2 * number, 2)};
            int64_t before = part->begin - UNIT * number;
            int64_t within = part->end - UNIT * number;
            at.open &= before > 0 ? ~UINT64_C(0) << before : ~UINT64_C(0);
            at.open &= within < UNIT ? (UINT64_C(1) << within) - 1 : ~UINT64_C(0);
            if (at.open == 0) {
                continue;
            }
            const int32_t *own = run->chain_field == NULL ? NULL : data->own + 64 * net->n_units * chain + UNIT * number;
            __m512i total[4];
            diagonals_fields(spins, net, data->net, number, own, total, WIDTH);
            decide_unit(&k, &ties, &at, total, bytes_of_planes(&k, planes[number - start]), 2, WIDTH);
            if (ties.n >= TIES) {
                resolve_ties(data, &key, &ties, WIDTH);
            }
        }
    }
    if (ties.n > 0) {
        resolve_ties(data, &key, &ties, WIDTH);
    }
}

static void diagonals_kernel(const glb_sweep_data *data, const glb_part *part) {
    for (int32_t chain = part->first; chain < part->last; chain++) {
        if (data->plan->sum < 64) {
            diagonals_chain(data, part, chain, 1);
        } else if (data->plan->sum <= INT16_MAX) {
            diagonals_chain(data, part, chain, 2);
        } else {
            diagonals_chain(data, part, chain, 4);
        }
    }
}
