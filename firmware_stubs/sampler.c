#include "sampler.h"

#include <string.h>

#include "frame.h"
#include "glauber/decide.h"
#include "memory.h"

#ifndef SAMPLER_SLICE
#define SAMPLER_SLICE 32768 /* a piece of work, in row entries; a slow controller does a million of them in a second */
#endif
enum { WORD_COST = 32, CACHED = 256 }; /* random numbers and thresholds of a word, in the same unit; kept thresholds */

byte_stream stream;

static run_order run;
static enum { NOTHING, STARTING, SWEEPING, ENDING } phase;
static uint64_t sweep; /* the present one, 0 for the start */
static uint64_t updates;
static uint32_t place; /* where in the sweep: a word of the state, or a word of the colour */
static uint32_t colour;
static int wanted; /* a checkpoint */
static int closed; /* the last checkpoint is on its way */
static uint32_t counted;
static uint32_t adding; /* chains of a sample that are in the moments; all of them when there is nothing to add */

/* What waits to go into the stream: up to five pieces of memory that do not change until it has. */
static struct {
    const uint8_t *from;
    uint32_t count;
} piece[5];
static uint32_t pieces;
static uint8_t headers[2][WIRE_RECORD_HEADER];
static uint8_t counts[4];
static uint8_t ending[4];

/* Thresholds of fields at one temperature; models have few different fields, and a threshold is a division of 64 bits. */
static struct {
    int32_t field;
    uint32_t threshold;
} cache[CACHED];
static uint64_t cached_beta;

static uint32_t threshold_of(int32_t field, uint64_t b) {
    uint32_t slot = (uint32_t)field % CACHED;
    if (cache[slot].field != field || cache[slot].threshold == 0) { /* 0 is the threshold of no field that fits here */
        cache[slot].field = field;
        cache[slot].threshold = glb_threshold(field, b);
    }
    return cache[slot].threshold;
}

uint32_t sampler_words(const run_order *r) {
    return r->layout == GLB_REPLICA_PLANES ? (r->first_chain % 32 + r->n_chains + 31) / 32 : (mem.n_sites + 31) / 32;
}

uint64_t sampler_cells(const run_order *r) {
    return (uint64_t)sampler_words(r) * (r->layout == GLB_REPLICA_PLANES ? mem.n_sites : r->n_chains);
}

uint64_t sampler_sums(const run_order *r) {
    return (uint64_t)r->n_chains * ((uint64_t)mem.n_sites + mem.n_entries / 2);
}

uint32_t sampler_activity(void) {
    return phase == NOTHING ? WIRE_IDLE : phase == ENDING && pieces == 0 ? WIRE_ENDED : WIRE_RUNNING;
}

uint64_t sampler_sweeps(void) { return sweep == 0 ? 0 : sweep - 1; }

uint64_t sampler_updates(void) { return updates; }

void sampler_checkpoint(void) { wanted = 1; }

void sampler_start(const run_order *order) {
    run = *order;
    pieces = 0;
    wanted = 0;
    place = colour = 0;
    counted = run.n_counted;
    sweep = run.first_sweep;
    closed = 0;
    adding = run.n_chains;
    memset(cache, 0, sizeof cache);
    stream.tail = stream.head = stream.crc = 0;
    if (run.flags & WIRE_KEEP_MOMENTS && !(run.flags & WIRE_INITIAL_SUMS)) {
        memset(mem.sums, 0, 4 * (size_t)sampler_sums(&run));
    }
    phase = run.flags & WIRE_INITIAL ? SWEEPING : STARTING;
}

void sampler_stop(void) {
    phase = NOTHING;
    pieces = 0;
}

/* Chain and word of a word of the state. */
static uint32_t chain_word(uint32_t word) {
    return run.layout == GLB_REPLICA_PLANES ? run.first_chain / 32 + word : run.first_chain + word;
}

/* A random start of one word of the state; clamped bits are there already. */
static void start_word(uint32_t at) {
    uint32_t words = sampler_words(&run);
    glb_key key = glb_make_key(run.seed, GLB_START, run.layout, run.stream, 0);
    uint32_t a = run.layout == GLB_REPLICA_PLANES ? at / words : at % words;
    uint32_t c = chain_word(run.layout == GLB_REPLICA_PLANES ? at % words : at / words);
    uint32_t random[4];
    uint32_t held = run.flags & WIRE_CLAMPED ? mem.held[at] : 0;
    glb_threefry(&key, a, 0, c, 0, random);
    mem.state[at] = (mem.state[at] & held) | (~random[0] & ~held);
}

static const int32_t *base_field(void) { return run.flags & WIRE_OWN_FIELDS ? mem.own_field : mem.field; }

/* Decides 32 lanes of counter (a, sweep, c). */
static uint32_t decided(uint32_t a, uint32_t c, uint64_t b, const int32_t field[32], uint32_t open) {
    glb_key key = glb_make_key(run.seed, GLB_DECISION, run.layout, run.stream, sweep);
    uint32_t first[8];
    uint32_t threshold[32];
    glb_threefry(&key, a, (uint32_t)sweep, c, 0, first);
    glb_threefry(&key, a, (uint32_t)sweep, c, 1, first + 4);
    for (int i = 0; i < 32; i++) {
        threshold[i] = threshold_of(field[i], b);
    }
    return glb_decide_lanes(&key, a, (uint32_t)c, (uint32_t)sweep, first, 1, threshold, open);
}

/* Replica planes: a position of 32 chains. */
static void update_chains(uint32_t position, uint32_t word, uint32_t words, uint64_t b) {
    uint32_t at = position * words + word;
    uint32_t open = run.flags & WIRE_CLAMPED ? ~mem.held[at] : 0xFFFFFFFFu;
    int32_t field[32];
    int32_t down = base_field()[position]; /* the field if all neighbours are -1 */
    for (int i = 0; i < 32; i++) {
        field[i] = 0;
    }
    if (open == 0) {
        return;
    }
    for (uint32_t k = mem.row_start[position]; k < mem.row_start[position + 1]; k++) {
        uint32_t spins = mem.state[mem.neighbour[k] * words + word];
        int32_t weight = mem.weight[k];
        down -= weight;
        for (int i = 0; i < 32; i++) {
            field[i] += weight & -(int32_t)((spins >> i) & 1u);
        }
    }
    for (int i = 0; i < 32; i++) {
        field[i] = 2 * field[i] + down;
    }
    mem.state[at] = (mem.state[at] & ~open) | decided(position, chain_word(word), b, field, open);
}

/* Site planes: those of 32 positions that belong to the colour, in one chain. */
static void update_sites(uint32_t chain, uint32_t word, uint32_t words, uint64_t b) {
    uint32_t *state = mem.state + chain * words;
    uint32_t open = run.flags & WIRE_CLAMPED ? ~mem.held[chain * words + word] : 0xFFFFFFFFu;
    int32_t field[32] = {0};
    for (uint32_t i = 0; i < 32; i++) {
        uint32_t position = 32 * word + i;
        if (position < mem.colour_start[colour] || position >= mem.colour_start[colour + 1]) {
            open &= ~(1u << i);
        }
        if (!((open >> i) & 1u)) {
            continue;
        }
        int32_t sum = base_field()[position];
        for (uint32_t k = mem.row_start[position]; k < mem.row_start[position + 1]; k++) {
            uint32_t q = mem.neighbour[k];
            sum += (state[q / 32] >> (q % 32)) & 1u ? mem.weight[k] : -mem.weight[k];
        }
        field[i] = sum;
    }
    if (open != 0) {
        state[word] = (state[word] & ~open) | decided(word, chain_word(chain), b, field, open);
    }
}

/* One item of the sweep; 1 when it was the last. Colour by colour, as the contract's order demands. Adds what it cost. */
static int sweep_item(uint64_t b, uint32_t *cost) {
    uint32_t words = sampler_words(&run);
    uint32_t first = mem.colour_start[colour];
    uint32_t last = mem.colour_start[colour + 1];
    uint32_t items;
    if (run.layout == GLB_REPLICA_PLANES) {
        uint32_t position = first + place / words;
        items = (last - first) * words;
        *cost += WORD_COST + mem.row_start[position + 1] - mem.row_start[position];
        update_chains(position, place % words, words, b);
    } else {
        uint32_t across = (last - 1) / 32 - first / 32 + 1;
        items = across * run.n_chains;
        uint32_t word = first / 32 + place % across;
        uint32_t end = 32 * word + 32 < mem.n_sites ? 32 * word + 32 : mem.n_sites;
        *cost += 2 * WORD_COST + (mem.row_start[end] - mem.row_start[32 * word]) / 8; /* one chain, not 32 */
        update_sites(place / across, word, words, b);
    }
    if (++place < items) {
        return 0;
    }
    place = 0;
    if (++colour < mem.n_colours) {
        return 0;
    }
    colour = 0;
    return 1;
}

static int spin_of(uint32_t chain, uint32_t position) {
    uint32_t words = sampler_words(&run);
    if (run.layout == GLB_REPLICA_PLANES) {
        uint32_t lane = run.first_chain % 32 + chain;
        return (mem.state[position * words + lane / 32] >> (lane % 32)) & 1u ? 1 : -1;
    }
    return (mem.state[chain * words + position / 32] >> (position % 32)) & 1u ? 1 : -1;
}

/* Adds one chain's present state to the moments: spins by position, then products by row entry with the higher position. */
static void add_moments(uint32_t chain) {
    int32_t *sum = mem.sums + (size_t)chain * (mem.n_sites + mem.n_entries / 2);
    for (uint32_t p = 0; p < mem.n_sites; p++) {
        *sum++ += spin_of(chain, p);
    }
    for (uint32_t p = 0; p < mem.n_sites; p++) {
        int spin = spin_of(chain, p);
        for (uint32_t k = mem.row_start[p]; k < mem.row_start[p + 1]; k++) {
            if (mem.neighbour[k] > p) {
                *sum++ += spin * spin_of(chain, mem.neighbour[k]);
            }
        }
    }
}

static void add_piece(const void *from, uint32_t count) {
    piece[pieces].from = from;
    piece[pieces].count = count;
    pieces++;
}

static void add_record(int which, uint32_t kind, uint32_t bytes) {
    uint8_t *at = headers[which];
    at = put32(at, kind);
    at = put32(at, bytes);
    put64(at, sweep - 1); /* `sweep` is the next one by now */
    add_piece(headers[which], WIRE_RECORD_HEADER);
}

static void add_checkpoint(void) {
    uint32_t bytes = 4 * (uint32_t)sampler_cells(&run);
    add_record(0, WIRE_CHECKPOINT, bytes);
    add_piece(mem.state, bytes);
    if (run.flags & WIRE_KEEP_MOMENTS) {
        uint32_t sums = 4 * (uint32_t)sampler_sums(&run);
        put32(counts, counted);
        add_record(1, WIRE_MOMENTS, 4 + sums);
        add_piece(counts, 4);
        add_piece(mem.sums, sums);
    }
    wanted = 0;
}

/* Moves what waits into the stream, as far as there is room; 1 when all is there. */
static int emit(void) {
    while (pieces > 0) {
        uint32_t room = CHIP_STREAM - (stream.head - stream.tail);
        uint32_t until = CHIP_STREAM - stream.head % CHIP_STREAM;
        uint32_t count = piece[0].count;
        count = count < room ? count : room;
        count = count < until ? count : until;
        if (room == 0) {
            return 0;
        }
        memcpy(stream.bytes + stream.head % CHIP_STREAM, piece[0].from, count);
        stream.crc = crc32_of(stream.crc, piece[0].from, count);
        stream.head += count;
        piece[0].from += count;
        piece[0].count -= count;
        if (piece[0].count == 0) {
            pieces--;
            memmove(piece, piece + 1, pieces * sizeof piece[0]);
        }
    }
    return 1;
}

/* The present state is a sample. */
static void add_sample(void) {
    counted++;
    if (run.flags & WIRE_KEEP_SAMPLES) {
        uint32_t bytes = 4 * (uint32_t)sampler_cells(&run);
        add_record(0, WIRE_SAMPLE, bytes);
        add_piece(mem.state, bytes);
    }
}

static void after_sweep(void) {
    uint64_t done = sweep++;
    updates += (uint64_t)mem.n_sites * run.n_chains;
    if (done <= run.n_warmup || (done - run.n_warmup) % run.sweeps_per_sample != 0) {
        return;
    }
    if (run.flags & WIRE_KEEP_MOMENTS) {
        adding = 0; /* chain by chain: all of them can take long */
    } else {
        add_sample();
    }
}

int sampler_step(void) {
    if (phase == NOTHING || phase == ENDING) {
        return phase == ENDING && pieces > 0 && emit();
    }
    for (uint32_t cost = 0; cost < SAMPLER_SLICE;) {
        if (pieces > 0 && !emit()) {
            return 0; /* the stream is full: the host has to fetch */
        }
        if (phase == STARTING) {
            start_word(place);
            cost += WORD_COST;
            if (++place == sampler_cells(&run)) {
                place = 0;
                phase = SWEEPING;
            }
            continue;
        }
        if (adding < run.n_chains) {
            add_moments(adding);
            cost += mem.n_sites + mem.n_entries / 2;
            if (++adding == run.n_chains) {
                add_sample();
            }
            continue;
        }
        int over = sweep > run.last_sweep;
        if (over && closed) {
            put32(ending, stream.crc);
            add_record(0, WIRE_END, 4);
            add_piece(ending, 4);
            phase = ENDING;
            emit();
            return 1;
        }
        if (over || (wanted && place == 0 && colour == 0 && sweep > run.first_sweep)) {
            add_checkpoint();
            closed = over;
            continue;
        }
        uint64_t b = mem.beta[run.n_beta == 1 ? 0 : sweep - run.beta_first];
        if (b != cached_beta) {
            memset(cache, 0, sizeof cache);
            cached_beta = b;
        }
        if (sweep_item(b, &cost)) {
            after_sweep();
        }
    }
    return 1;
}
