/* Dense and bipartite programs in replica planes, for AVX-512 with VNNI: fields as products of int8 matrices.
 *
 * Beside the bits, spins are kept as bytes 0 and 1, four neighbouring positions of a chain in a dword: one instruction
 * adds four of them times four weights for sixteen chains. Four positions at a time read every spin once. They may be
 * neighbours of each other, each a colour of its own: their sums are made with the spins as they were, and a spin that
 * changes corrects the sums of those after it. Weights beyond a byte take two passes, upper half first.
 */

/* New bytes of one position in the dwords of its group. */
GLB_INLINE void put_bytes(uint8_t *group, int which, uint64_t up, int VECS) {
    __mmask64 place = UINT64_C(0x1111111111111111) << which;
    for (int v = 0; v < VECS; v++) {
        __m512i old = _mm512_loadu_si512(group + 64 * v);
        __m512i one = _mm512_maskz_set1_epi32((__mmask16)(up >> (16 * v)), 0x01010101);
        _mm512_storeu_si512(group + 64 * v, _mm512_mask_mov_epi8(old, place, one));
    }
}

/* Sums of weight x (0 or 1) of four positions for all chains. */
GLB_INLINE void products(const uint8_t *bytes, const glb_dense_block *of, const uint8_t *weights, int passes,
                         __m512i sum[4][4], int VECS) {
    for (int i = 0; i < 4; i++) {
        for (int v = 0; v < VECS; v++) {
            sum[i][v] = _mm512_setzero_si512();
        }
    }
    for (int pass = 0; pass < passes; pass++) {
        const uint8_t *weight = weights + of->weights + (int64_t)pass * 16 * (of->end - of->begin);
        if (pass == 1) {
            for (int i = 0; i < 4; i++) {
                for (int v = 0; v < VECS; v++) {
                    sum[i][v] = _mm512_slli_epi32(sum[i][v], 8);
                }
            }
        }
        for (int32_t g = of->begin; g < of->end; g++, weight += 16) {
            __m512i spin[4];
            for (int v = 0; v < VECS; v++) {
                spin[v] = _mm512_loadu_si512(bytes + (int64_t)64 * VECS * g + 64 * v);
            }
            for (int i = 0; i < 4; i++) {
                int32_t four;
                memcpy(&four, weight + 4 * i, sizeof four);
                __m512i w = _mm512_set1_epi32(four);
                for (int v = 0; v < VECS; v++) { /* 0 and 1 are the same signed or unsigned; the lower half is not */
                    sum[i][v] = pass + 1 < passes || passes == 1 ? _mm512_dpbusd_epi32(sum[i][v], spin[v], w)
                                                                 : _mm512_dpbusd_epi32(sum[i][v], w, spin[v]);
                }
            }
        }
    }
}

GLB_INLINE void dense_block(const glb_sweep_data *data, int32_t number, int W, int VECS) {
    const glb_run *run = data->run;
    const glb_plan *plan = data->plan;
    const glb_dense_net *net = (const void *)data->net;
    const int32_t *base = (const void *)(data->net + net->base);
    const glb_dense_block *of = (const void *)(data->net + net->blocks);
    uint32_t *block = data->state + (int64_t)number * plan->rows * W;
    uint8_t *bytes = data->bytes + (int64_t)number * plan->byte_stride;
    const uint32_t *open = data->free + (int64_t)number * plan->rows * W;
    uint32_t first_word = (run->first_chain >> 5) + (uint32_t)(number * W);
    int64_t lane = 32 * (int64_t)number * W;
    int32_t n = data->program->n_sites;
    glb_key key = glb_make_key(run->seed, GLB_DECISION, GLB_REPLICA_PLANES, run->stream, data->sweep);
    words site = counting(W);
    words c = cycling(W) + first_word;
    const glb_heat *heat = data->heat + glb_heat_of(data, number);
    constants k = constants_of(heat, 4);
    tie_list ties;
    ties.b = heat->b;
    ties.words = block;
    ties.first = first_word;
    ties.W = W;
    ties.n = 0;
    for (int32_t p = 0; p < n; p += V / W) {
        words random[8];
        __m512i planes[16];
        random_planes(&key, site + (uint32_t)p, (uint32_t)data->sweep, c, 0, random);
        random_planes(&key, site + (uint32_t)p, (uint32_t)data->sweep, c, 1, random + 4);
        if (W == 1) { /* a word a position: the lower half of a qword */
            words low[8];
            words high[8];
            for (int i = 0; i < 8; i++) {
                low[i] = (words)_mm512_cvtepu32_epi64(_mm512_castsi512_si256((__m512i)random[i]));
                high[i] = (words)_mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64((__m512i)random[i], 1));
            }
            unit_planes(low, planes);
            unit_planes(high, planes + 8);
        } else {
            unit_planes(random, planes);
        }
        for (int32_t four = p; four < p + V / W && four < n; four += 4) {
            const glb_dense_block *here = of + four / 4;
            __m512i sum[4][4];
            products(bytes, here, data->net, net->passes, sum, VECS);
            for (int i = 0; i < 4 && four + i < n; i++) {
                int32_t position = four + i;
                __m512i field[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                                    _mm512_setzero_si512()};
                unit at = {.target = block + (int64_t)position * W,
                           .unit = (uint32_t)position << PAIR_BITS,
                           .open = mask_at(open + (int64_t)position * W, W)};
                __m512i start = _mm512_set1_epi32(base[position] +
                                                  (run->chain_field == NULL ? data->program->field[position] : 0));
                for (int v = 0; v < VECS; v++) {
                    field[v] = _mm512_add_epi32(start, _mm512_slli_epi32(sum[i][v], 1));
                    if (run->chain_field != NULL && lane + 16 * v < plan->lanes) {
                        const int32_t *own = run->chain_field + plan->lanes * position + lane + 16 * v;
                        field[v] = _mm512_add_epi32(field[v], _mm512_loadu_si512(own));
                    }
                }
                uint64_t old = mask_at(at.target, W);
                decide_unit(&k, &ties, &at, field, bytes_of_planes(&k, planes[position - p]), W, 4);
                if (ties.n > 0) {
                    resolve_ties(data, &key, &ties, 4);
                }
                uint64_t now = mask_at(at.target, W);
                put_bytes(bytes + (int64_t)64 * VECS * (four / 4), i, now, VECS);
                for (int j = i + 1; here->coupled && j < 4; j++) {
                    __m512i weight = _mm512_set1_epi32(here->inner[j][i]);
                    for (int v = 0; v < VECS; v++) {
                        sum[j][v] = _mm512_mask_add_epi32(sum[j][v], (__mmask16)((now & ~old) >> (16 * v)), sum[j][v],
                                                          weight);
                        sum[j][v] = _mm512_mask_sub_epi32(sum[j][v], (__mmask16)((old & ~now) >> (16 * v)), sum[j][v],
                                                          weight);
                    }
                }
            }
        }
    }
}

/* All positions of a sweep: `part` has them all. */
static void dense_kernel(const glb_sweep_data *data, const glb_part *part) {
    for (int32_t number = part->first; number < part->last; number++) {
        if (data->plan->words == 2) {
            dense_block(data, number, 2, 4);
        } else if (data->plan->byte_vectors == 2) {
            dense_block(data, number, 1, 2);
        } else {
            dense_block(data, number, 1, 1);
        }
    }
}
