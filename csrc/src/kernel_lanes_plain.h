/* The lanes in plain C. */

/* The variates of 64 lanes and eight sites. */
GLB_INLINE void eight_variates(const glb_key *key, uint32_t eight, uint32_t sweep_low, uint8_t x[EIGHT][64]) {
    static const uint8_t fractions[16] = {GLB_FRACTIONS};
    static const uint8_t zeros[16] = {4, 0, 1, 0, 2, 0, 1, 0, 3, 0, 1, 0, 2, 0, 1, 0};
    uint8_t rows[RANDOM_ROWS][64];
    for (uint32_t c = 0; c < 48; c += V) {
        words drawn[4];
        random_planes(key, splat(eight), sweep_low, counting(1) + c, GLB_DRAW_STEP, drawn);
        for (int w = 0; w < 4; w++) {
            uint32_t lane[V];
            store(lane, drawn[w]);
            for (int i = 0; i < V; i++) {
                for (int byte = 0; byte < 4; byte++) {
                    uint32_t counter = c + (uint32_t)i;
                    rows[4 * (counter / 16) + (uint32_t)w][4 * (counter % 16) + (uint32_t)byte] =
                        (uint8_t)(lane[i] >> (8 * byte));
                }
            }
        }
    }
    for (int site = 0; site < EIGHT; site++) {
        for (int l = 0; l < 64; l++) {
            uint8_t bits = rows[site][l];
            int whole = zeros[bits & 15] + ((bits & 15) == 0 ? zeros[bits >> 4] : 0);
            x[site][l] = (uint8_t)((whole << 4) + fractions[(rows[EIGHT + site / 2][l] >> (4 * (site % 2))) & 15]);
        }
    }
}

/* The flips of one site from its gains and variates; adds the changes to the lanes' energies. */
static uint64_t lane_flips(glb_lanes *lanes, const int32_t gain[64], const uint8_t x[64]) {
    uint64_t word = 0;
    for (int l = 0; l < 64; l++) {
        int32_t flips = gain[l] <= (int32_t)((x[l] * lanes->pace[l]) >> lanes->shift);
        word |= (uint64_t)flips << l;
        lanes->energy[l] += 2 * (int64_t)gain[l] * flips;
    }
    return word;
}

GLB_INLINE void lanes_of_width(glb_lanes *lanes, int WIDTH) {
    const glb_graph *graph = lanes->graph;
    const int32_t *base = (const void *)lanes->net;
    glb_key key = glb_make_key(lanes->seed, GLB_SOLVE, 0, lanes->stream, lanes->sweep);
    uint8_t x[EIGHT][64];
    uint32_t bit[64];
    (void)WIDTH;
    for (int l = 0; l < 64; l++) {
        bit[l] = 1u << (l % 32);
    }
    for (int32_t p = 0; p < graph->n_sites; p++) {
        int32_t gain[64];
        uint32_t total[64] = {0};
        uint64_t own = lanes->spins[p];
        if (p % EIGHT == 0) {
            eight_variates(&key, (uint32_t)p / EIGHT, (uint32_t)lanes->sweep, x);
        }
        for (int64_t k = graph->row_start[p]; k < graph->row_start[p + 1]; k++) {
            uint64_t word = lanes->spins[graph->neighbour[k]];
            uint32_t twice = 2u * (uint32_t)graph->weight[k];
            for (int half = 0; half < 2; half++) {
                uint32_t up = (uint32_t)(word >> (32 * half));
                for (int l = 32 * half; l < 32 * half + 32; l++) {
                    total[l] += (up & bit[l]) != 0 ? twice : 0u;
                }
            }
        }
        for (int l = 0; l < 64; l++) {
            int32_t field = (int32_t)(total[l] + (uint32_t)base[p]);
            gain[l] = (own >> l) & 1 ? field : -field;
        }
        lanes->spins[p] = own ^ lane_flips(lanes, gain, x[p % EIGHT]);
    }
}
