/* Asynchronous p-bits: the first four words of n neighbouring positions, counters (first + i, sweep, chain, 0). */
static void event_words(const glb_key *key, uint32_t first, uint32_t sweep_low, uint32_t chain, int64_t n,
                        uint32_t out[][4]) {
    for (int64_t i = 0; i < n; i += V) {
        words x[4] = {splat(first + (uint32_t)i) + counting(1), splat(sweep_low), splat(chain), splat(0)};
        uint32_t lane[4][V];
        GLB_THREEFRY4X32(x, key);
        for (int w = 0; w < 4; w++) {
            store(lane[w], x[w]);
        }
        for (int64_t k = 0; k < V && i + k < n; k++) {
            for (int w = 0; w < 4; w++) {
                out[i + k][w] = lane[w][k];
            }
        }
    }
}
