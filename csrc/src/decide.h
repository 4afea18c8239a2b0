/* What kernels decide with: the first planes of a vector of words, and thresholds of 32 lanes. The decision itself is
 * glauber/decide.h, which the firmware has too. */
#include "glauber/decide.h"

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
