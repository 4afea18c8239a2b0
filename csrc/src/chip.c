/* A chip with flaws: what is checked of it, its noises' memory, its readout. Its sweeps are kernel_chip.h. */
#include "chip.h"

#include <string.h>

#include "state.h"

int glb_chip_check(const glb_ising *program, const glb_run *run) {
    const glb_chip *chip = run->chip;
    if (!is_replica(run) || run->dynamics != GLB_BY_HEAT_BATH || run->moves_every > 0 || run->clock != NULL) {
        return GLB_E_KERNEL;
    }
    if (chip->fine < 0 || chip->fine > GLB_MAX_FINE || chip->n_modes < 0 || chip->n_modes > GLB_MAX_MODES ||
        chip->n_noises < 0 || chip->n_noises > GLB_MAX_NOISES) {
        return GLB_E_SIZE;
    }
    for (int64_t i = 0; i < run->n_b; i++) {
        if (run->b[i] >> 40) {
            return GLB_E_RANGE;
        }
    }
    for (int32_t p = 0; p < program->n_sites; p++) {
        if (chip->gain[p] >> 23 || chip->offset[p] >= INT64_C(1) << 40 || chip->offset[p] <= -(INT64_C(1) << 40)) {
            return GLB_E_RANGE;
        }
    }
    for (int32_t k = 0; k < chip->n_noises; k++) {
        const glb_noise *noise = &chip->noise[k];
        if (noise->slot < 0 || noise->slot > 4 * GLB_MAX_NOISES || (k > 0 && noise->slot <= noise[-1].slot)) {
            return GLB_E_INDEX;
        }
        if (noise->keep < 0 || noise->keep >= 1 << 30 || noise->fresh < 0 || noise->fresh > 1 << 30) {
            return GLB_E_RANGE;
        }
    }
    return GLB_OK;
}

int glb_chip_start(const glb_ising *program, const glb_run *run, const glb_plan *plan, uint64_t sweep) {
    const glb_chip *chip = run->chip;
    if (chip == NULL || plan->kernel != GLB_KERNEL_CHIP) {
        return GLB_E_KERNEL;
    }
    for (int32_t k = 0; k < chip->n_noises; k++) {
        const glb_noise *noise = &chip->noise[k];
        for (uint64_t t = 0; t <= sweep; t++) {
            glb_key key = glb_make_key(run->seed, GLB_NOISE, GLB_REPLICA_PLANES, run->stream, t);
            for (int64_t i = 0; i < plan->lanes * program->n_sites; i++) {
                int32_t *g = chip->memory + plan->lanes * (int64_t)k * program->n_sites + i;
                uint32_t chain = 32 * (run->first_chain >> 5) + (uint32_t)(i % plan->lanes);
                uint32_t word[4];
                glb_threefry(&key, (uint32_t)(i / plan->lanes), (uint32_t)t, chain, (uint32_t)noise->slot >> 2, word);
                int32_t z = glb_normal(chip->normal, word[noise->slot & 3]);
                *g = t == 0 ? z : glb_noise_next(noise, *g, z);
            }
        }
    }
    return GLB_OK;
}

/* One state of one chain. */
static void read_state(const glb_readout *readout, const glb_key *key, int32_t n_sites, uint32_t sweep_low,
                       uint32_t chain, uint8_t *state, const uint8_t *before) {
    uint32_t word[4];
    uint8_t held = 0;
    for (int32_t site = 0; site < n_sites; site++) {
        int32_t byte = site / 8;
        uint8_t bit = (uint8_t)(1u << (site % 8));
        if (site % 4 == 0) {
            glb_threefry(key, (uint32_t)site >> 2, sweep_low, chain, 0, word);
        }
        if (site % 8 == 0) {
            held = state[byte];
        }
        uint32_t u = word[site % 4];
        int up = (held & bit) != 0;
        int reads = up;
        if (u < readout->late[site]) {
            reads = before == NULL ? up : (before[byte] & bit) != 0;
        } else if (u < readout->high[site]) {
            reads = u >= readout->low[site];
        } else if (u < (up ? readout->wrong_up : readout->wrong_down)[site]) {
            reads = !up;
        }
        state[byte] = (uint8_t)(reads ? state[byte] | bit : state[byte] & ~bit);
    }
}

int glb_read_out(const glb_readout *readout, const glb_run *run, int32_t n_sites, uint64_t first_sweep, int64_t every,
                 int64_t n_samples, uint8_t *samples, const uint8_t *before) {
    int64_t bytes = ((int64_t)n_sites + 7) / 8;
    if (n_sites < 1 || every < 1 || n_samples < 0) {
        return GLB_E_SIZE;
    }
    for (int32_t chain = 0; chain < run->n_chains; chain++) {
        for (int64_t sample = 0; sample < n_samples; sample++) {
            uint64_t sweep = first_sweep + (uint64_t)(every * sample);
            glb_key key = glb_make_key(run->seed, GLB_READOUT, GLB_REPLICA_PLANES, run->stream, sweep);
            int64_t at = bytes * (n_samples * chain + sample);
            read_state(readout, &key, n_sites, (uint32_t)sweep, run->first_chain + (uint32_t)chain, samples + at,
                       before == NULL ? NULL : before + at);
        }
    }
    return GLB_OK;
}
