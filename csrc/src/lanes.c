/* Sixty-four searches side by side: start, anneal with or without resampling, tempering with crossover. */
#include <string.h>

#include "ising.h"
#include "solve.h"

enum { SUM_LIMIT = 1 << 29, BYTE_SUM = INT8_MAX, SHORT_SUM = INT16_MAX, RESAMPLE_EVERY = 4, MIX_EVERY = 4, LOOK_EVERY = 16 };

static int64_t magnitude(int32_t value) { return value < 0 ? -(int64_t)value : value; }

int glb_check_sums(const glb_graph *graph, int32_t but) {
    int32_t n = graph->n_sites;
    int64_t up = 0;
    if (n < 1 || graph->row_start[0] != 0) {
        return GLB_E_SIZE;
    }
    for (int32_t i = 0; i < n; i++) {
        int64_t sum = graph->field == NULL ? 0 : magnitude(graph->field[i]);
        if (graph->row_start[i + 1] < graph->row_start[i] || graph->row_start[i + 1] >= INT32_MAX) {
            return GLB_E_ORDER;
        }
        for (int64_t k = graph->row_start[i]; k < graph->row_start[i + 1]; k++) {
            if (graph->neighbour[k] < 0 || graph->neighbour[k] >= n) {
                return GLB_E_INDEX;
            }
            if (graph->neighbour[k] == i) {
                return GLB_E_LOOP;
            }
            up += graph->neighbour[k] > i;
            sum += magnitude(graph->weight[k]);
        }
        if (sum >= SUM_LIMIT && i != but) {
            return GLB_E_RANGE;
        }
    }
    return 2 * up == graph->row_start[n] ? GLB_OK : GLB_E_ORDER;
}

int glb_graph_check(const glb_graph *graph) { return glb_check_sums(graph, -1); }

int32_t glb_lanes_width(const glb_graph *graph) {
    int64_t largest = 0;
    for (int32_t i = 0; i < graph->n_sites; i++) {
        int64_t sum = graph->field == NULL ? 0 : magnitude(graph->field[i]);
        for (int64_t k = graph->row_start[i]; k < graph->row_start[i + 1]; k++) {
            sum += magnitude(graph->weight[k]);
        }
        largest = sum > largest ? sum : largest;
    }
    return largest <= BYTE_SUM ? 1 : largest <= SHORT_SUM ? 2 : 4;
}

int64_t glb_lanes_net_bytes(const glb_graph *graph) {
    int width = glb_lanes_width(graph);
    if (glb_lanes_are_dense(graph, width)) {
        return glb_lanes_terms_at(graph) + graph->n_sites * width * glb_lanes_stride(graph, width);
    }
    return glb_lanes_terms_at(graph) + graph->row_start[graph->n_sites] * (int64_t)sizeof(glb_lanes_term);
}

int64_t glb_lanes_scratch_bytes(const glb_graph *graph) {
    int width = glb_lanes_width(graph);
    int64_t size = glb_lanes_fields_at(graph, width);
    if (glb_lanes_are_dense(graph, width)) {
        size += 64 + ((int64_t)graph->n_sites * 8 + 63) / 64 * 64 + GLB_LANES * width * glb_lanes_stride(graph, width);
    }
    return size;
}

/* Rows of twice the weights, of 16 or 32 bits. */
static void fill_rows(const glb_graph *graph, int width, uint8_t *rows) {
    int64_t stride = glb_lanes_stride(graph, width);
    memset(rows, 0, (size_t)(graph->n_sites * width * stride));
    for (int32_t i = 0; i < graph->n_sites; i++) {
        for (int64_t k = graph->row_start[i]; k < graph->row_start[i + 1]; k++) {
            int64_t at = stride * i + graph->neighbour[k];
            uint32_t twice = 2 * (uint32_t)graph->weight[k]; /* added, should a neighbour be listed twice */
            if (width == 2) {
                ((uint16_t *)(void *)rows)[at] = (uint16_t)(((uint16_t *)(void *)rows)[at] + twice);
            } else {
                ((uint32_t *)(void *)rows)[at] += twice;
            }
        }
    }
}

int glb_lanes_net(const glb_graph *graph, uint8_t *net) {
    int rc = glb_graph_check(graph);
    if (rc != GLB_OK) {
        return rc;
    }
    int width = glb_lanes_width(graph);
    int dense = glb_lanes_are_dense(graph, width);
    uint32_t mask = width == 1 ? 0xFFu : width == 2 ? 0xFFFFu : 0xFFFFFFFFu;
    uint32_t repeat = width == 1 ? 0x01010101u : width == 2 ? 0x00010001u : 1u;
    int32_t *base = (void *)net;
    glb_lanes_term *terms = (void *)(net + glb_lanes_terms_at(graph));
    for (int32_t i = 0; i < graph->n_sites; i++) {
        base[i] = graph->field == NULL ? 0 : graph->field[i];
        for (int64_t k = graph->row_start[i]; k < graph->row_start[i + 1]; k++) {
            base[i] -= graph->weight[k];
            if (!dense) {
                terms[k].neighbour = graph->neighbour[k];
                terms[k].twice = (2 * (uint32_t)graph->weight[k] & mask) * repeat;
            }
        }
    }
    if (dense) {
        fill_rows(graph, width, net + glb_lanes_terms_at(graph));
    }
    return GLB_OK;
}

/* Whether every pace can be multiplied as the kernel does: with x < 2^8 in 16 bits that are shifted by 16, in 16 that
 * are shifted by 8 to 16, or in 31. */
static int check_paces(const glb_lanes *lanes, int width, const uint32_t *pace, int64_t n) {
    uint32_t limit = width == 4 ? 1u << 23 : 1u << 16;
    int32_t least = width == 1 ? 16 : width == 2 ? 8 : 0;
    if (lanes->shift < least || lanes->shift > (width == 4 ? 20 : 16)) {
        return GLB_E_RANGE;
    }
    for (int64_t i = 0; i < n; i++) {
        if (pace[i] >= limit) {
            return GLB_E_RANGE;
        }
    }
    return GLB_OK;
}

static int coldest_energy(const glb_lanes *lanes) {
    int lowest = 0;
    for (int l = 1; l < GLB_LANES; l++) {
        lowest = lanes->energy[l] < lanes->energy[lowest] ? l : lowest;
    }
    return lowest;
}

int glb_lanes_start(glb_lanes *lanes) {
    glb_key key = glb_make_key(lanes->seed, GLB_SOLVE, 0, lanes->stream, lanes->sweep);
    int8_t *spins = (int8_t *)lanes->scratch;
    for (int32_t i = 0; i < lanes->graph->n_sites; i++) {
        uint32_t word[4];
        glb_threefry(&key, (uint32_t)i, (uint32_t)lanes->sweep, 0, GLB_DRAW_START, word);
        lanes->spins[i] = word[0] | (uint64_t)word[1] << 32;
    }
    for (int l = 0; l < GLB_LANES; l++) {
        glb_lane_spins(lanes, l, spins);
        lanes->energy[l] = glb_energy_of(lanes->graph, spins);
    }
    int lowest = coldest_energy(lanes);
    glb_lane_spins(lanes, lowest, lanes->best);
    lanes->best_energy = lanes->energy[lowest];
    return GLB_OK;
}

int glb_lanes_restart(glb_lanes *lanes) {
    for (int32_t i = 0; i < lanes->graph->n_sites; i++) {
        lanes->spins[i] = lanes->best[i] > 0 ? ~UINT64_C(0) : 0;
    }
    for (int l = 0; l < GLB_LANES; l++) {
        lanes->energy[l] = lanes->best_energy;
    }
    return GLB_OK;
}

/* Draws the lanes anew by the weights that a step to a colder b gives them: lane k of the new ones is the lane that
 * holds (k + u) / 64 of the sum, u uniform. */
static void resample(glb_lanes *lanes, uint64_t colder_by) {
    const glb_kernels *kernels = glb_kernels_of(lanes->isa);
    int64_t lowest = lanes->energy[coldest_energy(lanes)];
    uint64_t sum[GLB_LANES]; /* weights of 26 bits, so that 64 of them have 32 */
    uint64_t total = 0;
    int64_t energy[GLB_LANES];
    uint8_t source[GLB_LANES];
    uint32_t word[4];
    glb_key key = glb_make_key(lanes->seed, GLB_SOLVE, 0, lanes->stream, lanes->sweep);
    for (int l = 0; l < GLB_LANES; l++) {
        total += glb_exp2(glb_scale((uint64_t)(lanes->energy[l] - lowest) / 2, colder_by)) >> 36;
        sum[l] = total;
        energy[l] = lanes->energy[l];
    }
    glb_threefry(&key, 0, (uint32_t)lanes->sweep, 0, GLB_DRAW_RESAMPLE, word);
    int from = 0;
    for (int k = 0; k < GLB_LANES; k++) {
        uint64_t target = ((((uint64_t)k << 26) + (word[0] >> 6)) * total) >> 32;
        while (sum[from] <= target) {
            from++;
        }
        source[k] = (uint8_t)from;
        lanes->energy[k] = energy[from];
    }
    kernels->permute_lanes(lanes->spins, lanes->graph->n_sites, source);
}

static int check_lanes(const glb_lanes *lanes) { return glb_kernels_of(lanes->isa) == NULL ? GLB_E_ISA : GLB_OK; }

int glb_lanes_anneal(glb_lanes *lanes, const uint32_t *pace, const uint64_t *b, int64_t n_sweeps, int32_t do_resample,
                     int64_t *energy_sum) {
    int width = glb_lanes_width(lanes->graph);
    int rc = check_lanes(lanes);
    rc = rc == GLB_OK ? check_paces(lanes, width, pace, n_sweeps) : rc;
    if (rc != GLB_OK) {
        return rc;
    }
    const glb_kernels *kernels = glb_kernels_of(lanes->isa);
    for (int64_t s = 0; s < n_sweeps; s++) {
        /* counted from the sweep's number, so that it does not matter how an anneal is cut into calls */
        if (do_resample && lanes->resampled == 0) {
            lanes->resampled = b[s];
        } else if (do_resample && lanes->sweep % RESAMPLE_EVERY == 0 && b[s] > lanes->resampled) {
            resample(lanes, b[s] - lanes->resampled);
            lanes->resampled = b[s];
        }
        for (int l = 0; l < GLB_LANES; l++) {
            lanes->pace[l] = pace[s];
        }
        lanes->sweep++;
        kernels->lanes(lanes, width);
        if (energy_sum != NULL) {
            energy_sum[s] = 0;
            for (int l = 0; l < GLB_LANES; l++) {
                energy_sum[s] += lanes->energy[l];
            }
        }
        int lowest = coldest_energy(lanes);
        if (lanes->sweep % LOOK_EVERY == 0 && lanes->energy[lowest] < lanes->best_energy) {
            glb_lane_harvest(lanes, lowest, 0);
        }
    }
    return GLB_OK;
}

static uint32_t draw(const glb_lanes *lanes, uint32_t a, uint32_t c, uint32_t what) {
    uint32_t word[4];
    glb_key key = glb_make_key(lanes->seed, GLB_SOLVE, 0, lanes->stream, lanes->sweep);
    glb_threefry(&key, a, (uint32_t)lanes->sweep, c, what, word);
    return word[0];
}

/* Exchanges of neighbouring temperatures, accepted with min(1, exp((beta' - beta) (E' - E))). */
static void exchange(glb_lanes *lanes, glb_ladder *ladder) {
    int32_t K = ladder->n_temperatures;
    for (int32_t r = 0; r < ladder->n_ladders; r++) {
        int32_t *lane = ladder->lane + (int64_t)K * r;
        for (int32_t k = (int32_t)(lanes->sweep % 2); k + 1 < K; k += 2) {
            int64_t half = (lanes->energy[lane[k]] - lanes->energy[lane[k + 1]]) / 2;
            ladder->attempts[k]++;
            if (half > 0) {
                uint64_t e = glb_exp2(glb_scale((uint64_t)half, ladder->b[k + 1] - ladder->b[k]));
                if (draw(lanes, (uint32_t)k, (uint32_t)r, GLB_DRAW_EXCHANGE) >= e >> 30) {
                    continue;
                }
            }
            int32_t hotter = lane[k];
            lane[k] = lane[k + 1];
            lane[k + 1] = hotter;
            ladder->accepted[k]++;
        }
    }
}

/* Lanes of one temperature change ladders: each temperature's are turned round by a random number of ladders. */
static void mix_ladders(glb_lanes *lanes, glb_ladder *ladder) {
    int32_t K = ladder->n_temperatures;
    int32_t R = ladder->n_ladders;
    for (int32_t k = 0; R > 1 && k < K; k++) {
        int32_t turned[GLB_LANES];
        int32_t by = (int32_t)(((uint64_t)draw(lanes, (uint32_t)k, 64, GLB_DRAW_EXCHANGE) * (uint64_t)R) >> 32);
        for (int32_t r = 0; r < R; r++) {
            turned[(r + by) % R] = ladder->lane[K * r + k];
        }
        for (int32_t r = 0; r < R; r++) {
            ladder->lane[K * r + k] = turned[r];
        }
    }
}

/* Each lane gets the pace of its temperature; those on no ladder the coldest. */
static void set_paces(glb_lanes *lanes, const glb_ladder *ladder) {
    int32_t K = ladder->n_temperatures;
    for (int l = 0; l < GLB_LANES; l++) {
        lanes->pace[l] = ladder->pace[K - 1];
    }
    for (int32_t i = 0; i < K * ladder->n_ladders; i++) {
        lanes->pace[ladder->lane[i]] = ladder->pace[i % K];
    }
}

static int check_ladder(const glb_ladder *ladder) {
    uint64_t seen = 0;
    int32_t K = ladder->n_temperatures;
    if (K < 2 || K > GLB_LANES || ladder->n_ladders < 1 || K * ladder->n_ladders > GLB_LANES || ladder->harvest < 0) {
        return GLB_E_SIZE;
    }
    for (int32_t i = 0; i < K * ladder->n_ladders; i++) {
        if (ladder->lane[i] < 0 || ladder->lane[i] >= GLB_LANES || (seen >> ladder->lane[i]) & 1) {
            return GLB_E_INDEX;
        }
        seen |= UINT64_C(1) << ladder->lane[i];
    }
    for (int32_t k = 0; k + 1 < K; k++) {
        if (ladder->b[k + 1] < ladder->b[k]) {
            return GLB_E_RANGE;
        }
    }
    return GLB_OK;
}

int glb_lanes_temper(glb_lanes *lanes, glb_ladder *ladder, int64_t n_sweeps) {
    int width = glb_lanes_width(lanes->graph);
    int rc = check_lanes(lanes);
    rc = rc == GLB_OK ? check_ladder(ladder) : rc;
    rc = rc == GLB_OK ? check_paces(lanes, width, ladder->pace, ladder->n_temperatures) : rc;
    if (rc != GLB_OK) {
        return rc;
    }
    const glb_kernels *kernels = glb_kernels_of(lanes->isa);
    int32_t K = ladder->n_temperatures;
    int32_t R = ladder->n_ladders;
    for (int64_t s = 0; s < n_sweeps; s++) {
        set_paces(lanes, ladder);
        lanes->sweep++;
        kernels->lanes(lanes, width);
        for (int32_t i = 0; i < K * R; i++) {
            ladder->energy_sum[i % K] += lanes->energy[ladder->lane[i]];
        }
        ladder->n_summed += R;
        int lowest = coldest_energy(lanes);
        if (lanes->energy[lowest] < lanes->best_energy) {
            glb_lane_harvest(lanes, lowest, ladder->harvest > 0);
        }
        exchange(lanes, ladder);
        if (lanes->sweep % MIX_EVERY == 0) {
            mix_ladders(lanes, ladder);
        }
        if (ladder->harvest > 0 && lanes->sweep % (uint64_t)ladder->harvest == 0) {
            int64_t before = lanes->best_energy;
            int32_t cold = K / 2 + (int32_t)(((uint64_t)draw(lanes, 0, 0, GLB_DRAW_LANE) * (uint64_t)(K - K / 2)) >> 32);
            int32_t r = (int32_t)(((uint64_t)draw(lanes, 1, 0, GLB_DRAW_LANE) * (uint64_t)R) >> 32);
            glb_lane_harvest(lanes, ladder->lane[K * r + cold], 1);
            if (ladder->reseed && lanes->best_energy < before) {
                glb_lane_set(lanes, ladder->lane[K * r + K - 1], lanes->best, lanes->best_energy);
            }
        }
    }
    return GLB_OK;
}

int glb_lanes_take(glb_lanes *lanes, const int8_t *state) {
    int32_t n = lanes->graph->n_sites;
    int64_t energy = glb_energy_of(lanes->graph, state);
    int8_t *other = (int8_t *)((int32_t *)(void *)lanes->scratch + 3 * (int64_t)n);
    memcpy(other, energy < lanes->best_energy ? lanes->best : state, (size_t)n);
    if (energy < lanes->best_energy) {
        memcpy(lanes->best, state, (size_t)n);
        lanes->best_energy = energy;
    }
    glb_cross(lanes, other, GLB_LANES, (int32_t *)(void *)lanes->scratch);
    return GLB_OK;
}

int glb_lanes_harvest(glb_lanes *lanes) {
    for (int l = 0; l < GLB_LANES; l++) {
        glb_lane_harvest(lanes, l, 1);
    }
    return GLB_OK;
}
