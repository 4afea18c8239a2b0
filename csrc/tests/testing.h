/* What the tests of the C core share: checks that are counted, memory of exact size, random numbers, graphs. */
#ifndef GLAUBER_TESTING_H
#define GLAUBER_TESTING_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "glauber/contract.h"
#include "glauber/core.h"

extern int checks, failures;

void check_at(const char *file, int line, int ok, const char *format, ...);
#define CHECK(ok, ...) check_at(__FILE__, __LINE__, (ok), __VA_ARGS__)

/* Zeroed memory of exactly the size asked for, on the heap, so that the sanitizer sees each step outside. */
void *allocate(size_t count, size_t size);
#define NEW(type, count) ((type *)allocate((size_t)(count), sizeof(type)))

/* The same, beginning at a multiple of 64 bytes. */
uint8_t *allocate_aligned(int64_t size);

/* The tests' own random numbers: SplitMix64, so that nothing depends on the generator under test. */
void random_start(uint64_t state);
uint64_t random_u64(void);
/* An integer from low to high, both included. */
int32_t random_int(int32_t low, int32_t high);

/* Every job of the identity tests: nine sweeps, every second one kept. */
enum { SWEEPS = 9, EVERY = 2, SAMPLES = SWEEPS / EVERY };

struct graph {
    int32_t n, n_colours, n_edges;
    int32_t *colour_start, *site, *position, *neighbour, *edge;
    int32_t *row_edge; /* the edge of each row entry */
    int64_t *row_start;
};

/* n positions in n_colours classes of unequal size, with random edges between different classes. */
struct graph make_graph(int32_t n, int32_t n_colours, int32_t n_edges);
/* The same, n_edges at most, between positions that lie at few distances. */
struct graph make_near_graph(int32_t n, int32_t n_colours, int32_t n_edges);
void free_graph(struct graph *g);

/* One group of tests each, in the file of its name. */
void test_chip(void);
void test_contract(void);
void test_errors(void);
void test_events(void);
void test_ising(void);
void test_moves(void);
void test_potts(void);

#endif
