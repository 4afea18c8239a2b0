/* Site planes: one chain, 32 neighbouring positions a word, spins as int8. Under Metropolis fields are taken times the
 * spins, and what is decided is who flips. */

static inline void set_spins(int8_t spin[32], uint32_t below, uint32_t free) {
    if (free == 0xFFFFFFFFu) {
        for (int i = 0; i < 32; i++) {
            spin[i] = (int8_t)(2 * (int)((below >> i) & 1u) - 1);
        }
    } else {
        for (int i = 0; i < 32; i++) {
            if ((free >> i) & 1u) {
                spin[i] = (int8_t)(2 * (int)((below >> i) & 1u) - 1);
            }
        }
    }
}

/* Fields of the positions of one word of one chain that are in `mask`; the others get 0, which is in every table. */
static inline void site_fields(const glb_sweep_data *data, const int8_t *spin, int32_t chain, int32_t first,
                               uint32_t mask, int32_t field[32]) {
    const glb_ising *program = data->program;
    for (int i = 0; i < 32; i++) {
        int32_t position = first + i;
        int32_t total = 0;
        if ((mask >> i) & 1u) {
            total = data->run->chain_field != NULL ? data->run->chain_field[data->plan->lanes * chain + position]
                                                   : program->field[position];
            for (int64_t k = program->row_start[position]; k < program->row_start[position + 1]; k++) {
                total += program->weight[k] * spin[program->neighbour[k]];
            }
        }
        field[i] = total;
    }
}

/* Fields times spins. */
static inline void held_fields(const int8_t spin[32], uint32_t mask, int32_t field[32]) {
    for (int i = 0; i < 32; i++) {
        if ((mask >> i) & 1u) {
            field[i] *= spin[i];
        }
    }
}

static inline void flip_spins(int8_t spin[32], uint32_t flipped) {
    for (int i = 0; i < 32; i++) {
        if ((flipped >> i) & 1u) {
            spin[i] = (int8_t)-spin[i];
        }
    }
}

static void sites_kernel(const glb_sweep_data *data, const glb_part *part) {
    int flips = data->run->dynamics == GLB_BY_METROPOLIS;
    uint32_t purpose = flips ? GLB_METROPOLIS : GLB_DECISION;
    glb_key key = glb_make_key(data->run->seed, purpose, GLB_SITE_PLANES, data->run->stream, data->sweep);
    int64_t words = data->plan->lanes / 32;
    int32_t first = part->begin / 32;
    int32_t last = (part->end - 1) / 32;
    for (int32_t chain = part->first; chain < part->last; chain++) {
        int8_t *spin = data->spins + data->plan->lanes * chain;
        int64_t heat = glb_heat_of(data, chain);
        uint32_t c[V];
        for (int i = 0; i < V; i++) {
            c[i] = data->run->first_chain + (uint32_t)chain;
        }
        for (int32_t start = first; start <= last; start += V) {
            uint32_t a[V];
            uint32_t random[8][V];
            int count = last - start + 1 < V ? last - start + 1 : V;
            for (int i = 0; i < V; i++) {
                a[i] = (uint32_t)(start + i);
            }
            first_planes(&key, a, c, (uint32_t)data->sweep, random);
            for (int i = 0; i < count; i++) {
                int32_t position = 32 * (start + i);
                uint32_t mask = data->free[words * chain + start + i];
                if (position < part->begin) {
                    mask &= 0xFFFFFFFFu << (part->begin - position);
                }
                if (part->end - position < 32) {
                    mask &= 0xFFFFFFFFu >> (32 - (part->end - position));
                }
                if (mask != 0) {
                    int32_t field[32];
                    uint32_t threshold[32];
                    site_fields(data, spin, chain, position, mask, field);
                    if (flips) {
                        held_fields(spin + position, mask, field);
                    }
                    thresholds_of(data, heat, field, threshold);
                    uint32_t below =
                        glb_decide_lanes(&key, a[i], c[i], (uint32_t)data->sweep, &random[0][i], V, threshold, mask);
                    if (flips) {
                        flip_spins(spin + position, below);
                    } else {
                        set_spins(spin + position, below, mask);
                    }
                }
            }
        }
    }
}
