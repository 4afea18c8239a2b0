/* Replica planes, a chip with flaws: every p-bit has a slope and an offset of its own, and noise with memory. */
#include "chip.h"

/* Adds the noises of 32 chains to x, and leaves that of slot 0, which decides, in `decider`. */
static inline void add_noises(const glb_sweep_data *data, const glb_key *key, int32_t position, uint32_t word,
                              int64_t x[32], int32_t decider[32]) {
    const glb_chip *chip = data->run->chip;
    int64_t lanes = data->plan->lanes;
    uint32_t chain = 32 * ((data->run->first_chain >> 5) + word);
    uint32_t random[4][32];
    int32_t group = -1;
    for (int32_t k = 0; k < chip->n_noises; k++) {
        const glb_noise *noise = &chip->noise[k];
        int32_t *g = chip->memory + lanes * ((int64_t)k * data->program->n_sites + position) + 32 * (int64_t)word;
        if (noise->slot >> 2 != group) {
            group = noise->slot >> 2;
            for (uint32_t lane = 0; lane < 32; lane += V) {
                uint32_t a[V];
                uint32_t c[V];
                words out[4];
                for (uint32_t i = 0; i < V; i++) {
                    a[i] = (uint32_t)position;
                    c[i] = chain + lane + i;
                }
                random_planes(key, load(a), (uint32_t)data->sweep, load(c), (uint32_t)group, out);
                for (int w = 0; w < 4; w++) {
                    store(random[w] + lane, out[w]);
                }
            }
        }
        for (int lane = 0; lane < 32; lane++) {
            g[lane] = glb_noise_next(noise, g[lane], glb_normal(chip->normal, random[noise->slot & 3][lane]));
        }
        if (noise->slot == 0) {
            memcpy(decider, g, 32 * sizeof *decider);
            continue;
        }
        for (int lane = 0; lane < 32; lane++) {
            x[lane] += glb_product(noise->size, g[lane]);
        }
    }
}

static void chip_kernel(const glb_sweep_data *data, const glb_part *part) {
    const glb_run *run = data->run;
    const glb_plan *plan = data->plan;
    const glb_chip *chip = run->chip;
    int64_t at_sweep = (int64_t)(data->sweep - chip->first_sweep);
    uint64_t b = data->heat->b * (uint64_t)chip->slope[at_sweep] >> 20;
    glb_key key = glb_make_key(run->seed, GLB_DECISION, GLB_REPLICA_PLANES, run->stream, data->sweep);
    glb_key noise_key = glb_make_key(run->seed, GLB_NOISE, GLB_REPLICA_PLANES, run->stream, data->sweep);
    int remembers = chip->n_noises > 0 && chip->noise[0].slot == 0;
    for (int32_t number = part->first; number < part->last; number++) {
        uint32_t *block = data->state + (int64_t)number * plan->rows;
        const uint32_t *open = data->free + (int64_t)number * plan->rows;
        uint32_t word = (run->first_chain >> 5) + (uint32_t)number;
        for (int32_t position = part->begin; position < part->end; position++) {
            int32_t field[32];
            int64_t x[32];
            int32_t decider[32];
            uint32_t threshold[32];
            if (open[position] == 0) {
                continue;
            }
            if (plan->sum <= INT16_MAX) {
                narrow_fields(data, block, 1, position, field);
            } else {
                wide_fields(data, block, 1, position, field);
            }
            const int32_t *own = run->chain_field == NULL ? NULL : run->chain_field + plan->lanes * position + 32 * (int64_t)number;
            uint64_t slope = b * chip->gain[position] >> 20;
            uint64_t most = slope == 0 ? UINT64_MAX : (GLB_X_MAX << chip->fine) / slope;
            for (int lane = 0; lane < 32; lane++) {
                int64_t h = field[lane] + (own == NULL ? data->program->field[position] : own[lane]);
                uint64_t magnitude = (uint64_t)(h < 0 ? -h : h);
                int64_t size = magnitude > most ? (int64_t)GLB_X_MAX : (int64_t)(magnitude * slope >> chip->fine);
                x[lane] = (h < 0 ? -size : size) + chip->offset[position];
            }
            for (int32_t k = 0; k < chip->n_modes; k++) {
                const int32_t *mode = chip->mode + plan->lanes * (at_sweep * chip->n_modes + k) + 32 * (int64_t)number;
                int32_t size = chip->mode_size[(int64_t)k * data->program->n_sites + position];
                for (int lane = 0; lane < 32; lane++) {
                    x[lane] += glb_product(size, mode[lane]);
                }
            }
            add_noises(data, &noise_key, position, (uint32_t)number, x, decider);
            for (int lane = 0; lane < 32; lane++) {
                uint64_t magnitude = (uint64_t)(x[lane] < 0 ? -x[lane] : x[lane]);
                threshold[lane] = glb_threshold_at(magnitude < GLB_X_MAX ? magnitude : GLB_X_MAX, x[lane] < 0);
            }
            uint32_t below = 0;
            if (remembers) {
                for (int lane = 0; lane < 32; lane++) {
                    below |= (uint32_t)(decider[lane] < glb_normal(chip->normal, threshold[lane])) << lane;
                }
                below &= open[position];
            } else {
                uint32_t planes[8];
                glb_threefry(&key, (uint32_t)position, (uint32_t)data->sweep, word, 0, planes);
                glb_threefry(&key, (uint32_t)position, (uint32_t)data->sweep, word, 1, planes + 4);
                below = glb_decide_lanes(&key, (uint32_t)position, word, (uint32_t)data->sweep, planes, 1, threshold,
                                         open[position]);
            }
            block[position] = (block[position] & ~open[position]) | below;
        }
    }
}
