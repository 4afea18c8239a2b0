#include "moves.h"

#include <string.h>

#include "state.h"

/* Chains with their padding. */
static int64_t n_lanes(const glb_run *run, const glb_plan *plan) {
    return is_replica(run) ? plan->lanes : ((int64_t)run->n_chains + 31) / 32 * 32;
}

static int64_t round_up(int64_t n) { return (n + 63) / 64 * 64; }

int64_t glb_moves_bytes(const glb_ising *program, const glb_run *run, const glb_plan *plan) {
    int64_t lanes = n_lanes(run, plan);
    int64_t heats = round_up((int64_t)sizeof(glb_heat) * run->n_b);
    if (run->moves_every == 0) {
        return 0;
    }
    if (run->n_ladders > 0) {
        return heats + round_up(4 * lanes) + round_up(lanes / 8) + round_up(8 * lanes);
    }
    return round_up(8 * lanes) + 2 * round_up(4 * lanes) + round_up(((int64_t)program->n_sites + 7) / 8 * run->n_chains);
}

/* Cuts `bytes` off the memory's begin. */
static uint8_t *cut(uint8_t **memory, int64_t bytes) {
    uint8_t *piece = *memory;
    *memory += round_up(bytes);
    return piece;
}

glb_moves glb_moves_in(const glb_ising *program, const glb_run *run, const glb_plan *plan, uint8_t *memory) {
    int64_t lanes = n_lanes(run, plan);
    glb_moves moves = {.program = program, .run = run, .plan = plan};
    moves.energy = (void *)cut(&memory, 8 * lanes);
    if (run->n_ladders > 0) {
        moves.heat = (void *)cut(&memory, (int64_t)sizeof(glb_heat) * run->n_b);
        moves.heat_of_lane = (void *)cut(&memory, 4 * lanes);
        moves.mask = (void *)cut(&memory, lanes / 8);
    } else {
        moves.source = (void *)cut(&memory, 4 * lanes);
        moves.family = (void *)cut(&memory, 4 * lanes);
        moves.packed = memory;
    }
    return moves;
}

void glb_fill_heats(const glb_moves *moves, const uint8_t *net) {
    const glb_run *run = moves->run;
    for (int64_t k = 0; run->n_ladders > 0 && k < run->n_b; k++) {
        glb_ising_fill(moves->plan, net, run->b[k], &moves->heat[k]);
    }
    for (int64_t lane = 0; run->n_ladders > 0 && lane < n_lanes(run, moves->plan); lane++) {
        int64_t k = lane / run->n_ladders;
        moves->heat_of_lane[lane] = (int32_t)(k < run->n_b ? k : run->n_b - 1);
    }
}

/* The energy of a chain of site planes, in steps. */
static int64_t energy_of_chain(const glb_ising *program, const glb_run *run, const glb_plan *plan,
                               const uint8_t *state, int32_t chain) {
    const int32_t *field = run->chain_field == NULL ? program->field : run->chain_field + plan->lanes * chain;
    int64_t energy = 0;
    for (int32_t p = 0; p < program->n_sites; p++) {
        int64_t sum = field[p];
        for (int64_t k = program->row_start[p + 1] - 1; k >= program->row_start[p] && program->neighbour[k] > p; k--) {
            int64_t weight = program->weight[k];
            sum += spin_at(run, plan, state, program->neighbour[k], chain) ? weight : -weight;
        }
        energy -= spin_at(run, plan, state, p, chain) ? sum : -sum;
    }
    return energy;
}

/* A thread's share of the energies. */
static void find_energies(const glb_moves *moves, int thread) {
    const glb_run *run = moves->run;
    const glb_plan *plan = moves->plan;
    int64_t units = is_replica(run) ? plan->lanes / 32 : run->n_chains;
    for (int64_t i = units * thread / run->n_threads; i < units * (thread + 1) / run->n_threads; i++) {
        if (is_replica(run)) {
            glb_kernels_of(plan->isa)->energies(moves->program, run, plan, (const void *)moves->state, i,
                                                moves->energy + 32 * i);
        } else {
            moves->energy[i] = energy_of_chain(moves->program, run, plan, moves->state, (int32_t)i);
        }
    }
}

/* Which pairs exchange: docs/machine.md, section 8. */
static void decide_exchanges(const glb_moves *moves, uint64_t sweep) {
    const glb_run *run = moves->run;
    const glb_output *output = moves->output;
    glb_key key = glb_make_key(run->seed, GLB_EXCHANGE, 0, run->stream, sweep);
    int64_t first = (int64_t)((sweep / (uint64_t)run->moves_every - 1) % 2);
    memset(moves->mask, 0, (size_t)(n_lanes(run, moves->plan) / 8));
    for (int64_t k = first; k + 1 < run->n_b; k += 2) {
        uint64_t apart = run->b[k + 1] - run->b[k];
        int64_t made = 0;
        for (int64_t ladder = 0; ladder < run->n_ladders; ladder++) {
            int64_t chain = k * run->n_ladders + ladder;
            int64_t rise = (moves->energy[chain + run->n_ladders] - moves->energy[chain]) / 2; /* always even */
            int accepted = rise >= 0;
            if (!accepted) {
                uint32_t word[4];
                glb_threefry(&key, (uint32_t)k, (uint32_t)sweep, (uint32_t)ladder, 0, word);
                accepted = word[0] < glb_exp2(glb_scale((uint64_t)-rise, apart)) >> 30;
            }
            moves->mask[chain / 32] |= (uint32_t)accepted << (chain % 32);
            made += accepted;
        }
        if (output->exchanges != NULL) {
            output->exchanges[2 * k] += run->n_ladders;
            output->exchanges[2 * k + 1] += made;
        }
    }
}

/* Swaps the bits in mask with those `distance` lanes on, in one position's words. Nothing that one word changes is read
 * again: no chain is in two pairs. */
static void swap_lanes(const glb_plan *plan, uint32_t *words, int64_t position, const uint32_t *mask, int64_t n_words,
                       int64_t distance) {
    int64_t far = distance / 32;
    int by = (int)(distance % 32);
    for (int64_t w = 0; w < n_words; w++) {
        if (mask[w] == 0) {
            continue;
        }
        uint32_t *own = words + word_at(plan, position, w);
        uint32_t *other = words + word_at(plan, position, w + far);
        if (by == 0) {
            uint32_t change = (*own ^ *other) & mask[w];
            *own ^= change;
            *other ^= change;
            continue;
        }
        uint32_t *next = w + far + 1 < n_words ? words + word_at(plan, position, w + far + 1) : NULL;
        uint32_t there = *other >> by | (next == NULL ? 0 : *next << (32 - by));
        uint32_t change = (*own ^ there) & mask[w];
        *own ^= change;
        *other ^= change << by;
        if (next != NULL) {
            *next ^= change >> (32 - by);
        }
    }
}

/* Swaps rows of site planes: words first .. last - 1 of 32 positions. */
static void swap_rows(const glb_run *run, const glb_plan *plan, uint8_t *state, const uint32_t *mask, int64_t first,
                      int64_t last) {
    int64_t size = has_bits(plan) ? 4 : 32;
    for (int64_t chain = 0; chain + run->n_ladders < run->n_chains; chain++) {
        if (!((mask[chain / 32] >> (chain % 32)) & 1u)) {
            continue;
        }
        for (int64_t w = first; w < last; w++) {
            uint8_t *own = state + size * word_at(plan, chain, w);
            uint8_t *other = state + size * word_at(plan, chain + run->n_ladders, w);
            uint8_t kept[32];
            memcpy(kept, own, (size_t)size);
            memcpy(own, other, (size_t)size);
            memcpy(other, kept, (size_t)size);
        }
    }
}

void glb_exchange(const glb_moves *moves, uint64_t sweep, glb_team *team, int thread) {
    const glb_run *run = moves->run;
    const glb_plan *plan = moves->plan;
    int64_t n = run->n_threads;
    int64_t words = plan->lanes / 32;
    int64_t n_sites = moves->program->n_sites;
    glb_barrier(team); /* the sweep has ended everywhere */
    find_energies(moves, thread);
    glb_barrier(team);
    if (thread == 0) {
        decide_exchanges(moves, sweep);
    }
    glb_barrier(team);
    if (is_replica(run)) {
        for (int64_t p = n_sites * thread / n; p < n_sites * (thread + 1) / n; p++) {
            swap_lanes(plan, (void *)moves->state, p, moves->mask, words, run->n_ladders);
        }
    } else {
        swap_rows(run, plan, moves->state, moves->mask, words * thread / n, words * (thread + 1) / n);
    }
    glb_barrier(team);
}

/* The parent of each chain, by systematic resampling: docs/machine.md, section 8. */
static void decide_parents(const glb_moves *moves, uint64_t sweep) {
    const glb_run *run = moves->run;
    const glb_output *output = moves->output;
    uint64_t n = (uint64_t)run->n_chains;
    uint64_t apart = run->b[sweep] - run->b[sweep - 1];
    uint32_t shift = glb_ceil_log2((uint32_t)n);
    int64_t lowest = moves->energy[0];
    uint64_t total = 0;
    uint32_t word[4];
    for (uint64_t c = 1; c < n; c++) {
        lowest = moves->energy[c] < lowest ? moves->energy[c] : lowest;
    }
    for (uint64_t c = 0; c < n; c++) { /* sums of weights take the energies' place; they stay below 2^63 */
        total += glb_exp2(glb_scale((uint64_t)((moves->energy[c] - lowest) / 2), apart)) >> shift;
        moves->energy[c] = (int64_t)total;
    }
    glb_key key = glb_make_key(run->seed, GLB_RESAMPLING, 0, run->stream, sweep);
    glb_threefry(&key, 0, (uint32_t)sweep, 0, 0, word);
    uint64_t start = glb_potts_target(word[0], total);
    uint64_t at = start / n; /* floor((c total + start) / n) for child c, and what that leaves over */
    uint64_t left = start % n;
    int32_t parent = 0;
    for (uint64_t c = 0; c < n; c++) {
        while ((uint64_t)moves->energy[parent] <= at) {
            parent++;
        }
        moves->source[c] = parent;
        at += total / n;
        left += total % n;
        if (left >= n) {
            left -= n;
            at++;
        }
    }
    int64_t number = (int64_t)(sweep / (uint64_t)run->moves_every) - moves->moves_before - 1;
    if (output->lowest != NULL && output->weights != NULL) {
        output->lowest[number] = lowest;
        output->weights[number] = total;
    }
    for (uint64_t c = 0; output->family != NULL && c < n; c++) {
        moves->family[c] = output->family[moves->source[c]];
    }
    if (output->family != NULL) {
        memcpy(output->family, moves->family, 4 * (size_t)n);
    }
}

void glb_resample(const glb_moves *moves, uint64_t sweep, glb_team *team, int thread) {
    const glb_run *run = moves->run;
    const glb_plan *plan = moves->plan;
    int64_t n = run->n_threads;
    int64_t bytes = ((int64_t)moves->program->n_sites + 7) / 8;
    int64_t chains = run->n_chains;
    int64_t words = plan->lanes / 32;
    glb_barrier(team); /* the sweep has ended everywhere */
    find_energies(moves, thread);
    glb_pack_chains(moves->program, run, plan, moves->state, (int32_t)(chains * thread / n),
                    (int32_t)(chains * (thread + 1) / n), moves->packed, bytes);
    glb_barrier(team);
    if (thread == 0) {
        decide_parents(moves, sweep);
    }
    glb_barrier(team);
    if (is_replica(run)) {
        glb_unpack_replicas(moves->program, run, plan, moves->packed, moves->source, words * thread / n,
                            words * (thread + 1) / n, (void *)moves->state);
    } else {
        for (int64_t c = chains * thread / n; c < chains * (thread + 1) / n; c++) {
            unpack_chain(moves->program, run, plan, moves->packed + bytes * moves->source[c], c, moves->state);
        }
    }
    glb_barrier(team);
}
