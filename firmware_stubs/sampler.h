/* A run: sweeps over the program in memory, a bounded piece of work at a time, and what they leave in the stream. */
#ifndef GLAUBER_SAMPLER_H
#define GLAUBER_SAMPLER_H

#include <stdint.h>

#include "chip.h"

typedef struct {
    uint64_t seed;
    uint64_t first_sweep;
    uint64_t n_warmup;
    uint64_t n_samples;
    uint64_t sweeps_per_sample;
    uint64_t last_sweep;
    uint64_t beta_first; /* sweep of the table's first entry */
    uint32_t n_chains;
    uint32_t first_chain;
    uint32_t n_beta;
    uint32_t n_counted; /* samples in the sums that were given */
    uint32_t stream;
    uint32_t layout;
    uint32_t flags;
} run_order;

/* The stream of a run: bytes from `tail` to `head` wait to be fetched; offsets count from the run's first byte, modulo
 * 2^32. */
typedef struct {
    uint8_t bytes[CHIP_STREAM];
    uint32_t tail;
    uint32_t head;
    uint32_t crc;
} byte_stream;

extern byte_stream stream;

uint32_t sampler_words(const run_order *run); /* words of a row: of 32 chains, or of 32 positions */
uint64_t sampler_cells(const run_order *run); /* words of the state */
uint64_t sampler_sums(const run_order *run);  /* sums of its moments */

void sampler_start(const run_order *run); /* the order has been checked, segments are written */
void sampler_stop(void);                  /* ends the run and its stream at once */
int sampler_step(void);                   /* a bounded piece of work; 0 if there is nothing to do */
void sampler_checkpoint(void);            /* the state is wanted after the present sweep */
uint32_t sampler_activity(void);          /* enum wire_activity */
uint64_t sampler_sweeps(void);            /* number of the last sweep that was done */
uint64_t sampler_updates(void);           /* since power-on */

#endif
