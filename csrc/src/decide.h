/* Thirty-two decisions at once, each against a threshold of its own.
 *
 * The thresholds' top bytes are transposed into bit planes, and those are compared with the planes of the random words,
 * most significant first. After eight planes one lane in 256 is still undecided; those go on, four planes a call.
 * Stopping early cannot change a result.
 */

/* The first eight planes of V words at once: planes[k][i] belongs to the counter (a[i], sweep, c[i], k / 4). */
static inline void first_planes(const glb_key *key, const uint32_t a[V], const uint32_t c[V], uint32_t sweep_low,
                                uint32_t planes[8][V]) {
    for (uint32_t g = 0; g < 2; g++) {
        words x[4];
        random_planes(key, load(a), sweep_low, load(c), g, x);
        for (int w = 0; w < 4; w++) {
            store(planes[4 * g + (uint32_t)w], x[w]);
        }
    }
}

/* Byte `level` (0 is the top one) of 32 thresholds as eight planes, most significant first. */
static inline void transposed_byte(const uint32_t threshold[32], int level, uint32_t planes[8]) {
    int shift = 24 - 8 * level;
    for (int k = 0; k < 8; k++) {
        planes[k] = 0;
    }
    for (int group = 0; group < 4; group++) {
        uint64_t x = 0;
        uint64_t t;
        for (int i = 0; i < 8; i++) {
            x |= (uint64_t)((threshold[8 * group + i] >> shift) & 0xFFu) << (8 * i);
        }
        /* 8 x 8 bit transpose: swap bits across the diagonal at distances 1, 2 and 4. */
        t = (x ^ (x >> 7)) & UINT64_C(0x00AA00AA00AA00AA);
        x ^= t ^ (t << 7);
        t = (x ^ (x >> 14)) & UINT64_C(0x0000CCCC0000CCCC);
        x ^= t ^ (t << 14);
        t = (x ^ (x >> 28)) & UINT64_C(0x00000000F0F0F0F0);
        x ^= t ^ (t << 28);
        for (int k = 0; k < 8; k++) {
            planes[k] |= (uint32_t)((x >> (8 * (7 - k))) & 0xFFu) << (8 * group);
        }
    }
}

/* The lanes of `mask` whose random word is below their threshold. */
static inline uint32_t decide(const glb_key *key, uint32_t a, uint32_t c, uint32_t sweep_low,
                              uint32_t random[8][V], int item, const uint32_t threshold[32], uint32_t mask) {
    uint32_t below = 0;
    uint32_t planes[8];
    transposed_byte(threshold, 0, planes);
    for (int k = 0; k < 8; k++) {
        below |= mask & planes[k] & ~random[k][item];
        mask &= ~(planes[k] ^ random[k][item]);
    }
    for (int level = 1; mask != 0 && level < 4; level++) {
        transposed_byte(threshold, level, planes);
        for (int half = 0; mask != 0 && half < 2; half++) {
            uint32_t word[4];
            glb_threefry(key, a, sweep_low, c, (uint32_t)(2 * level + half), word);
            for (int w = 0; w < 4; w++) {
                below |= mask & planes[4 * half + w] & ~word[w];
                mask &= ~(planes[4 * half + w] ^ word[w]);
            }
        }
    }
    return below;
}

/* The threshold of a field, or under Metropolis of a field times the spin. */
static inline uint32_t threshold_in(const glb_run *run, int32_t field, uint64_t b) {
    return run->dynamics == GLB_BY_METROPOLIS ? glb_flip_threshold(field, b) : glb_threshold(field, b);
}

/* The thresholds of 32 fields at one temperature. */
static inline void thresholds_of(const glb_sweep_data *data, int64_t heat, const int32_t field[32],
                                 uint32_t threshold[32]) {
    if (data->table != NULL) {
        const uint32_t *middle = data->table + (2 * data->plan->sum + 1) * heat + data->plan->sum;
        for (int i = 0; i < 32; i++) {
            threshold[i] = middle[field[i]];
        }
    } else {
        for (int i = 0; i < 32; i++) {
            threshold[i] = threshold_in(data->run, field[i], data->heat[heat].b);
        }
    }
}

/* The same where each lane has a temperature of its own. */
static inline void thresholds_by_lane(const glb_sweep_data *data, const int32_t heat[32], const int32_t field[32],
                                      uint32_t threshold[32]) {
    for (int i = 0; i < 32; i++) {
        threshold[i] = data->table != NULL
                           ? data->table[(2 * data->plan->sum + 1) * heat[i] + data->plan->sum + field[i]]
                           : threshold_in(data->run, field[i], data->heat[heat[i]].b);
    }
}
