/* What every kernel is given: sizes and device addresses of a program and a run. The driver fills it (cuda_job.py, with the
 * same names in the same order); each member is eight bytes.
 *
 * Positions, lanes, layouts and counters are those of docs/machine.md. A row of the state has `row_words` words of 32 lanes:
 * replica planes [position][word of chains], site planes [chain][word of positions]. Potts states are [position][chain].
 */
#ifndef GLAUBER_CUDA_JOB_H
#define GLAUBER_CUDA_JOB_H

#include "device.h"

typedef struct {
    uint64_t seed;
    int64_t stream;
    int64_t layout;
    int64_t n_sites;
    int64_t n_states;   /* 2 for Ising */
    int64_t n_chains;
    int64_t first_chain; /* global number of the first one */
    int64_t offset;     /* its lane */
    int64_t row_words;
    int64_t n_colours;
    int64_t n_b;
    int64_t sum;        /* largest |field| + sum |weight| */
    int64_t level_step; /* bit-sliced: steps of field from one level to the next, 1 or 2 */
    int64_t passes;     /* dense: bytes of a weight */
    int64_t groups;     /* dense: of four positions, in a row of weights */
    int64_t n_edges;
    int64_t n_samples;  /* room for samples in a batch */
    const uint64_t *b;  /* one for each sweep from sweep 1; the last one stays */
    uint64_t *clock;    /* number of the next sweep; launches count from it, so that a recorded graph can be launched again */
    const int32_t *colour_start;
    const int32_t *row_start;
    const int32_t *neighbour;
    const int32_t *weight;    /* Potts: what an equal neighbour adds; 0 where there are tables */
    const int64_t *table_start;
    const int32_t *table;     /* Potts: [state of the neighbour][own state]; Ising: thresholds of -sum .. sum, or 0 */
    const int32_t *base;      /* Ising: sum - sum |weight| (+ field, without own ones); bit-sliced: in levels */
    const int32_t *field;     /* Ising by position; Potts [position][state] */
    const int32_t *own_field; /* or 0: replica planes [position][lane], site planes [chain][position], Potts
                               * [chain][position][state] */
    const uint32_t *open;     /* or 0: lanes that may change, as the state */
    const uint32_t *up;       /* with `open`: clamped lanes that are up */
    const uint8_t *allowed;   /* Potts, or 0: [position][state] */
    const int32_t *potts_clamp; /* Potts, or 0: [chain][position], -1 is free */
    const int32_t *site;      /* by position */
    const int32_t *position;  /* by site */
    const int32_t *edge;      /* positions of both ends of each edge */
    uint32_t *state;
    uint32_t *bytes;          /* dense: spins 0 or 1, a byte each: [word of chains][group of four positions][chain] */
    const uint32_t *matrix;   /* dense: weights of four neighbours, [position][pass][group] */
    uint8_t *samples;         /* Ising [chain][sample][byte] of packed spins by site; Potts [chain][sample][site] */
    int64_t *site_sum;        /* Ising [chain][site]; Potts [chain][site][state] */
    int64_t *edge_sum;        /* [chain][edge] */
    int64_t sample_bytes;     /* Ising: bytes of a packed state; Potts: bytes of a state's number */
} glb_gpu_job;

/* The sweep whose number is `ahead` above the clock's. */
GLB_FUNCTION uint64_t glb_sweep_of(const glb_gpu_job *job, uint64_t ahead) { return GLB_GET(job->clock, 0) + ahead; }

GLB_FUNCTION uint64_t glb_b_of(const glb_gpu_job *job, uint64_t sweep) {
    uint64_t last = (uint64_t)job->n_b - 1;
    return GLB_GET(job->b, sweep - 1 < last ? sweep - 1 : last);
}

GLB_FUNCTION glb_key glb_key_of(const glb_gpu_job *job, uint32_t purpose, uint64_t sweep) {
    return glb_make_key(job->seed, purpose, (uint32_t)job->layout, (uint32_t)job->stream, sweep);
}

/* The third word of the counter: a word of chains, or a chain. */
GLB_FUNCTION uint32_t glb_third(const glb_gpu_job *job, int64_t row_or_word) {
    uint32_t first = (uint32_t)job->first_chain;
    return (job->layout == GLB_REPLICA_PLANES ? first >> 5 : first) + (uint32_t)row_or_word;
}

/* Lanes of a word of the state that may change. */
GLB_FUNCTION uint32_t glb_open(const glb_gpu_job *job, int64_t at) {
    return job->open == 0 ? 0xFFFFFFFFu : GLB_GET(job->open, at);
}

#endif
