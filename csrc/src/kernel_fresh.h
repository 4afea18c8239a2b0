/* Site planes without edges, fields that are new in every call: 64 neighbouring positions at once, for AVX-512 with VBMI
 * and GFNI.
 *
 * Exact thresholds would cost more than all the rest, and be used once. Brackets decide all but a few (wide.h).
 */

/* Sixty-four fields from a position on; zeros beyond the last. */
GLB_INLINE void load_fields(const int32_t *field, int64_t position, int64_t n, __m512i total[4]) {
    for (int v = 0; v < 4; v++) {
        int64_t left = n - position - 16 * v;
        __mmask16 there = left >= 16 ? 0xFFFF : left > 0 ? (__mmask16)((1u << left) - 1) : 0;
        total[v] = _mm512_maskz_loadu_epi32(there, field + position + 16 * v);
    }
}

static void fresh_kernel(const glb_sweep_data *data, const glb_part *part) {
    enum { UNIT = 64, UNITS = V / 2 };
    const glb_run *run = data->run;
    const glb_plan *plan = data->plan;
    int64_t n = data->program->n_sites;
    glb_key key = glb_make_key(run->seed, GLB_DECISION, GLB_SITE_PLANES, run->stream, data->sweep);
    constants k = constants_of(data->heat, 4);
    for (int32_t chain = part->first; chain < part->last; chain++) {
        uint32_t *spins = data->state + plan->rows * chain + GLB_SITE_PAD;
        const uint32_t *free = data->free == NULL ? NULL : data->free + plan->rows * chain + GLB_SITE_PAD;
        const int32_t *field = run->chain_field + plan->lanes * chain;
        tie_list ties;
        ties.b = data->heat->b;
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
                int64_t within = part->end - UNIT * number;
                unit at = {.target = spins + 2 * number, .unit = (uint32_t)number};
                __m512i total[4];
                at.open = free == NULL ? ~UINT64_C(0) : mask_at(free + 2 * number, 2);
                at.open &= within < UNIT ? (UINT64_C(1) << within) - 1 : ~UINT64_C(0);
                load_fields(field, UNIT * number, n, total);
                decide_unit(&k, &ties, &at, total, bytes_of_planes(&k, planes[number - start]), 2, 4);
                if (ties.n >= TIES) {
                    resolve_ties(data, &key, &ties, 4);
                }
            }
        }
        if (ties.n > 0) {
            resolve_ties(data, &key, &ties, 4);
        }
    }
}
