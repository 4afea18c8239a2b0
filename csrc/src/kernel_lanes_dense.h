/* The lanes of a dense graph: fields are kept, a row of all sites for each lane, and a spin that flips adds its row of
 * twice the weights to its lane's fields. The search is the same as kernel_lanes.h's, bit for bit.
 *
 * Others change spins too (a resampling, a new start), so the spins that the fields belong to are kept beside them, and
 * what differs is caught up first.
 */

/* row, or its negative, added; modulo the width. */
GLB_INLINE void add_row(uint8_t *GLB_RESTRICT field, const uint8_t *GLB_RESTRICT row, int64_t stride, int up, int WIDTH) {
    if (WIDTH == 2) {
        uint16_t *f = (uint16_t *)(void *)field;
        const uint16_t *w = (const uint16_t *)(const void *)row;
        for (int64_t j = 0; j < stride; j++) {
            f[j] = (uint16_t)(up ? f[j] + w[j] : f[j] - w[j]);
        }
    } else {
        uint32_t *f = (uint32_t *)(void *)field;
        const uint32_t *w = (const uint32_t *)(const void *)row;
        for (int64_t j = 0; j < stride; j++) {
            f[j] = up ? f[j] + w[j] : f[j] - w[j];
        }
    }
}

/* The lanes of `flips` turn at one site; those of `up` were up before. */
GLB_INLINE void turn_lanes(uint8_t *fields, const uint8_t *row, int64_t stride, uint64_t flips, uint64_t up, int WIDTH) {
    for (; flips != 0; flips &= flips - 1) {
        int l = glb_lowest_bit64(flips);
        uint8_t *field = fields + (int64_t)WIDTH * stride * l;
        if ((up >> l) & 1) {
            add_row(field, row, stride, 0, WIDTH);
        } else {
            add_row(field, row, stride, 1, WIDTH);
        }
    }
}

/* One lane's fields of a few sites, sign-extended, into a column of `field`. */
GLB_INLINE void fields_of_lane(const uint8_t *source, int lane, int some, uint32_t field[EIGHT][GLB_LANES], int WIDTH) {
    for (int i = 0; i < some; i++) {
        field[i][lane] = WIDTH == 2 ? (uint32_t)((const int16_t *)(const void *)source)[i]
                                    : ((const uint32_t *)(const void *)source)[i];
    }
}

/* All ones where a <= b, as signed numbers. */
GLB_INLINE words at_most(words a, words b) {
#if GLB_VECTOR_BYTES > 4
    typedef int32_t signed_words __attribute__((vector_size(GLB_VECTOR_BYTES)));
    return (words)((signed_words)a <= (signed_words)b);
#else
    return 0u - (uint32_t)((int32_t)a <= (int32_t)b);
#endif
}

/* Bit i of the result is set where word i of `mask` is all ones. */
GLB_INLINE uint32_t lanes_of(words mask) {
#if defined(GLB_AVX512)
    return _mm512_movepi32_mask((__m512i)mask);
#elif defined(GLB_AVX2)
    return (uint32_t)_mm256_movemask_ps((__m256)mask);
#else
    uint32_t lane[V];
    uint32_t bits = 0;
    store(lane, mask);
    for (int i = 0; i < V; i++) {
        bits |= (lane[i] & 1u) << i;
    }
    return bits;
#endif
}

/* Who flips at one site; adds the changes to the energies. */
GLB_INLINE uint64_t dense_flips(const uint32_t *field, uint64_t up, const uint8_t *x, const uint32_t *pace, int32_t shift,
                                int64_t *energy) {
    uint32_t wide[GLB_LANES];
    int32_t change[GLB_LANES];
    uint64_t flips = 0;
    for (int l = 0; l < GLB_LANES; l++) {
        wide[l] = x[l];
    }
    for (int v = 0; v < GLB_LANES / V; v++) {
        words is_down = from_lanes((uint32_t)(~up >> (V * v)) & ALL_LANES);
        words gain = (load(field + V * v) ^ is_down) - is_down;
        words step = (load(wide + V * v) * load(pace + V * v)) >> (uint32_t)shift;
        words turns = at_most(gain, step);
        store((uint32_t *)change + V * v, gain & turns);
        flips |= (uint64_t)(lanes_of(turns) & ALL_LANES) << (V * v);
    }
    for (int l = 0; l < GLB_LANES; l++) {
        energy[l] += 2 * (int64_t)change[l];
    }
    return flips;
}

GLB_INLINE void dense_lanes_of_width(glb_lanes *lanes, int WIDTH) {
    const glb_graph *graph = lanes->graph;
    int32_t n = graph->n_sites;
    int64_t stride = glb_lanes_stride(graph, WIDTH);
    const int32_t *base = (const void *)lanes->net;
    const uint8_t *rows = lanes->net + glb_lanes_terms_at(graph);
    glb_lanes_fields kept = glb_lanes_fields_of(lanes, WIDTH);
    glb_key key = glb_make_key(lanes->seed, GLB_SOLVE, 0, lanes->stream, lanes->sweep);
    uint32_t pace[GLB_LANES];
    int64_t energy[GLB_LANES];
    if (*kept.made == 0) { /* fields of all spins down */
        *kept.made = 1;
        for (int64_t at = 0; at < GLB_LANES * stride; at++) {
            int32_t value = at % stride < n ? base[at % stride] : 0;
            if (WIDTH == 2) {
                ((int16_t *)(void *)kept.fields)[at] = (int16_t)value;
            } else {
                ((int32_t *)(void *)kept.fields)[at] = value;
            }
        }
    }
    for (int32_t p = 0; p < n; p++) {
        turn_lanes(kept.fields, rows + WIDTH * stride * p, stride, lanes->spins[p] ^ kept.spins[p], kept.spins[p], WIDTH);
    }
    for (int l = 0; l < GLB_LANES; l++) {
        pace[l] = lanes->pace[l];
        energy[l] = lanes->energy[l];
    }
    for (int32_t first = 0; first < n; first += EIGHT) {
        int some = n - first < EIGHT ? n - first : EIGHT;
        uint8_t x[EIGHT][GLB_LANES];
        uint32_t field[EIGHT][GLB_LANES];
        eight_variates(&key, (uint32_t)first / EIGHT, (uint32_t)lanes->sweep, x);
        for (int l = 0; l < GLB_LANES; l++) {
            fields_of_lane(kept.fields + WIDTH * (stride * l + first), l, some, field, WIDTH);
        }
        for (int i = 0; i < some; i++) {
            const uint8_t *row = rows + WIDTH * stride * (first + i);
            uint64_t up = lanes->spins[first + i];
            uint64_t flips = dense_flips(field[i], up, x[i], pace, lanes->shift, energy);
            if (flips == 0) {
                continue;
            }
            for (int j = i + 1; j < some; j++) {
                uint32_t twice = WIDTH == 2 ? (uint32_t)((const int16_t *)(const void *)row)[first + j]
                                            : ((const uint32_t *)(const void *)row)[first + j];
                for (int v = 0; v < GLB_LANES / V; v++) {
                    words was_up = from_lanes((uint32_t)(up >> (V * v)) & ALL_LANES);
                    words turns = from_lanes((uint32_t)(flips >> (V * v)) & ALL_LANES);
                    store(field[j] + V * v, load(field[j] + V * v) + (((splat(twice) ^ was_up) - was_up) & turns));
                }
            }
            turn_lanes(kept.fields, row, stride, flips, up, WIDTH);
            lanes->spins[first + i] = up ^ flips;
        }
    }
    for (int l = 0; l < GLB_LANES; l++) {
        lanes->energy[l] = energy[l];
    }
    memcpy(kept.spins, lanes->spins, 8 * (size_t)n);
}
