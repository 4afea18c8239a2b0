/* Decisions of a unit one after the other, for instruction sets that cannot look numbers up in vectors. */

typedef struct {
    const glb_filter *filter;
    int32_t factor; /* with the bits to the left */
} constants;

GLB_INLINE constants constants_of(const glb_heat *heat, int WIDTH) {
    (void)WIDTH;
    return (constants){&heat->filter, heat->filter.factor * (1 << heat->filter.left)};
}

/* Eight planes of V words as a byte a chain, the first plane on top. */
GLB_INLINE void bytes_of(const words random[8], uint8_t *bytes) {
    uint32_t plane[8][V];
    for (int k = 0; k < 8; k++) {
        store(plane[k], random[k]);
    }
    for (int i = 0; i < V; i++) {
        for (int eight = 0; eight < 4; eight++) {
            uint64_t x = 0;
            for (int k = 0; k < 8; k++) {
                x |= (uint64_t)((plane[k][i] >> (8 * eight)) & 0xFFu) << (8 * (7 - k));
            }
            x = glb_transposed(x);
            memcpy(bytes + 32 * i + 8 * eight, &x, sizeof x);
        }
    }
}

/* Compares the bytes of the chains of W words with their thresholds by field. Spins are put, ties listed. */
GLB_INLINE void decide_unit(const constants *k, tie_list *ties, const unit *at, const void *fields, const uint8_t *u,
                            int W, int WIDTH) {
    const glb_filter *filter = k->filter;
    int32_t clamp = filter->clamp;
    int32_t half = filter->half;
    int32_t right = filter->right;
    int32_t factor = k->factor;
    int32_t place[64];
    uint64_t below = 0;
    uint64_t decided = 0;
    for (int l = 0; l < 32 * W; l++) {
        int32_t narrow = (field_at(fields, l, WIDTH) + half) >> right;
        narrow = narrow > clamp ? clamp : narrow;
        narrow = narrow < -clamp ? -clamp : narrow;
        int32_t y = (narrow * factor + (1 << 14)) >> 15;
        y = y > 8191 ? 8191 : y;
        place[l] = y < -8191 ? -8191 : y;
    }
    for (int l = 0; l < 32 * W; l++) {
        uint32_t piece = (uint32_t)(place[l] >> 8) & 63u;
        int32_t t = (int32_t)(filter->start[piece] + (filter->rise[piece] * ((uint32_t)place[l] & 255u) >> 8));
        uint64_t less = u[l] < (t - GLB_FILTER_BOUND) >> 8;
        uint64_t more = u[l] > (t + GLB_FILTER_BOUND) >> 8;
        below |= less << l;
        decided |= (less | more) << l;
    }
    put(at, below, W);
    list_ties(ties, at, ~decided & at->open, u, fields, WIDTH);
}
