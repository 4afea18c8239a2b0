/* States by themselves: energies, descent, and partition crossover of two of them.
 *
 * Where two states differ, the sites fall into connected parts; flipping one part changes nothing for another. So the
 * best of both takes every part that gains.
 */
#include <string.h>

#include "solve.h"

int64_t glb_energy_of(const glb_graph *graph, const int8_t *spins) {
    int64_t pairs = 0;
    int64_t fields = 0;
    for (int32_t i = 0; i < graph->n_sites; i++) {
        int64_t sum = 0;
        for (int64_t k = graph->row_start[i]; k < graph->row_start[i + 1]; k++) {
            sum += (int64_t)graph->weight[k] * spins[graph->neighbour[k]];
        }
        pairs += sum * spins[i];
        fields += graph->field == NULL ? 0 : (int64_t)graph->field[i] * spins[i];
    }
    return -pairs / 2 - fields;
}

static int32_t field_at(const glb_graph *graph, const int8_t *spins, int32_t i) {
    int32_t sum = graph->field == NULL ? 0 : graph->field[i];
    for (int64_t k = graph->row_start[i]; k < graph->row_start[i + 1]; k++) {
        sum += graph->weight[k] * spins[graph->neighbour[k]];
    }
    return sum;
}

int64_t glb_descend(const glb_graph *graph, int8_t *spins, int64_t energy, int32_t *work) {
    int32_t n = graph->n_sites;
    int32_t *field = work;
    int32_t *stack = work + n;
    int32_t *stacked = work + 2 * n;
    int32_t depth = 0;
    for (int32_t i = 0; i < n; i++) {
        field[i] = field_at(graph, spins, i);
        stacked[i] = field[i] * spins[i] < 0;
        if (stacked[i]) {
            stack[depth++] = i;
        }
    }
    while (depth > 0) {
        int32_t i = stack[--depth];
        stacked[i] = 0;
        if (field[i] * spins[i] >= 0) {
            continue;
        }
        energy += 2 * (int64_t)field[i] * spins[i];
        spins[i] = (int8_t)-spins[i];
        for (int64_t k = graph->row_start[i]; k < graph->row_start[i + 1]; k++) {
            int32_t j = graph->neighbour[k];
            field[j] += 2 * graph->weight[k] * spins[i];
            if (!stacked[j] && field[j] * spins[j] < 0) {
                stacked[j] = 1;
                stack[depth++] = j;
            }
        }
    }
    return energy;
}

void glb_lane_spins(const glb_lanes *lanes, int lane, int8_t *spins) {
    for (int32_t i = 0; i < lanes->graph->n_sites; i++) {
        spins[i] = (int8_t)(2 * (int)((lanes->spins[i] >> lane) & 1) - 1);
    }
}

void glb_lane_set(glb_lanes *lanes, int lane, const int8_t *spins, int64_t energy) {
    for (int32_t i = 0; i < lanes->graph->n_sites; i++) {
        uint64_t up = spins[i] > 0;
        lanes->spins[i] = (lanes->spins[i] & ~(UINT64_C(1) << lane)) | up << lane;
    }
    lanes->energy[lane] = energy;
}

void glb_cross(glb_lanes *lanes, const int8_t *other, int lane, int32_t *work) {
    const glb_graph *graph = lanes->graph;
    int32_t n = graph->n_sites;
    int8_t *best = lanes->best;
    int32_t *part = work;        /* 0: alike; -1: differs, no part yet; else the part's number */
    int32_t *member = work + n;
    int32_t n_different = 0;
    int32_t n_parts = 0;
    int64_t before = lanes->best_energy;
    glb_key key = glb_make_key(lanes->seed, GLB_SOLVE, 0, lanes->stream, lanes->sweep);
    for (int32_t i = 0; i < n; i++) {
        n_different += best[i] != other[i];
    }
    int flipped = lanes->symmetric && 2 * n_different > n;
    for (int32_t i = 0; i < n; i++) {
        part[i] = -((best[i] != other[i]) != flipped);
    }
    for (int32_t root = 0; root < n; root++) {
        int32_t end = 1;
        int64_t gain = 0; /* half of what flipping the part adds to the energy */
        if (part[root] != -1) {
            continue;
        }
        n_parts++;
        part[root] = n_parts;
        member[0] = root;
        for (int32_t m = 0; m < end; m++) {
            int32_t i = member[m];
            int32_t outside = graph->field == NULL ? 0 : graph->field[i];
            for (int64_t k = graph->row_start[i]; k < graph->row_start[i + 1]; k++) {
                int32_t j = graph->neighbour[k];
                if (part[j] == -1) {
                    part[j] = n_parts;
                    member[end++] = j;
                }
                outside += part[j] == n_parts ? 0 : graph->weight[k] * best[j];
            }
            gain += (int64_t)outside * best[i];
        }
        int take = gain < 0;
        if (gain == 0) {
            uint32_t word[4];
            glb_threefry(&key, (uint32_t)n_parts, (uint32_t)lanes->sweep, (uint32_t)lane, GLB_DRAW_TIE, word);
            take = (int)(word[0] >> 31);
        }
        if (take) {
            for (int32_t m = 0; m < end; m++) {
                best[member[m]] = (int8_t)-best[member[m]];
            }
            lanes->best_energy += 2 * gain;
        }
    }
    lanes->merges += lanes->best_energy < before;
}

void glb_lane_harvest(glb_lanes *lanes, int lane, int cross) {
    int32_t n = lanes->graph->n_sites;
    int32_t *work = (int32_t *)(void *)lanes->scratch;
    int8_t *spins = (int8_t *)(work + 3 * (int64_t)n);
    glb_lane_spins(lanes, lane, spins);
    int64_t energy = glb_descend(lanes->graph, spins, lanes->energy[lane], work);
    if (energy < lanes->best_energy) {
        /* the old best may still have parts that the new one lacks */
        int8_t *old = spins + n;
        memcpy(old, lanes->best, (size_t)n);
        memcpy(lanes->best, spins, (size_t)n);
        lanes->best_energy = energy;
        memcpy(spins, old, (size_t)n);
    }
    if (cross) {
        glb_cross(lanes, spins, lane, work);
    }
}

int glb_enumerate(const glb_graph *graph, int8_t *spins) {
    int32_t n = graph->n_sites;
    int8_t state[24];
    int64_t energy = 0;
    int64_t best = 0;
    uint32_t best_code = 0;
    if (n < 1 || n > 24) {
        return GLB_E_SIZE;
    }
    int rc = glb_graph_check(graph);
    if (rc != GLB_OK) {
        return rc;
    }
    memset(state, -1, sizeof state);
    for (uint32_t step = 1; step < UINT32_C(1) << n; step++) { /* each differs from the one before by one flip */
        int32_t i = 0;
        while (!((step >> i) & 1)) {
            i++;
        }
        energy += 2 * (int64_t)field_at(graph, state, i) * state[i];
        state[i] = (int8_t)-state[i];
        if (energy < best) {
            best = energy;
            best_code = step ^ (step >> 1);
        }
    }
    for (int32_t i = 0; i < n; i++) {
        spins[i] = (best_code >> i) & 1 ? 1 : -1;
    }
    return GLB_OK;
}
