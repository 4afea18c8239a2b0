/* What an Ising run (ising.c), its plan (plan.c) and the kernels (kernel_*.h, once per instruction set) share. */
#ifndef GLAUBER_ISING_H
#define GLAUBER_ISING_H

#include "glauber/contract.h"
#include "glauber/core.h"
#include "potts.h"
#include "solve.h"

/* Replica planes keep spins as bits, 1 for +1: the words of one position for up to 32 x `words` chains side by side,
 * position after position, block after block. A word is 32 chains, cut at global multiples of 32. Site planes keep
 * int8, one row a chain. */

/* The filter's way from a field to 16 bits of its threshold: y = field x factor, clamped to +-8191 for +-10 bits, is a
 * place in one of 64 straight pieces. */
typedef struct {
    uint16_t start[64]; /* the threshold's upper half at each piece's start; pieces by y / 256 modulo 64 */
    uint16_t rise[64];  /* over the piece */
    int16_t clamp;      /* largest |field| after the shift to the right; beyond it y is beyond 8191 */
    int16_t left;       /* bits to the left before the factor */
    int16_t factor;     /* y 2^15 per field */
    int16_t unused;
    int32_t right;      /* 32-bit fields: bits to the right, rounded */
    int32_t half;
    uint8_t coarse[4][16]; /* sixteen pieces for y from 0 on, by y / 512: starts and rises, lower and upper bytes */
} glb_filter;

/* Words in a line of the cache, and in a row of those that are turned (kernel_moments.h). */
enum { GLB_LINE_WORDS = 16 };

/* The upper half of a threshold is within this of the filter's: docs/decisions/0007. */
enum { GLB_FILTER_BOUND = 44, GLB_COARSE_BOUND = 100 };

/* What the kernels look up at one temperature (tables.c). */
typedef struct {
    uint64_t b;
    uint8_t pick[32][8]; /* bit-sliced kernel: for each plane, the truth tables of four levels each */
    uint8_t top[128];    /* byte fields: top byte of the threshold by the field's lowest seven bits */
    int32_t cut[2][256]; /* incremental, by the upper byte of u: fields above the second mean up, up to the first down;
                          * fields of 16 bits: both in the first, the latter in the lower half */
    glb_filter filter;
} glb_heat;

/* A sweep's constants, and where a kernel finds its data. */
typedef struct {
    const glb_ising *program;
    const glb_run *run;
    const glb_plan *plan;
    const uint8_t *net;
    uint32_t *state;       /* replica planes */
    int8_t *spins;         /* site planes */
    const uint32_t *free;  /* a bit per lane in the state's order: clear when clamped or padding; NULL if all are free */
    uint8_t *bytes;        /* dense: spins as bytes 0 and 1, [position / 4][chain][position % 4] a block */
    const uint32_t *planes; /* independent: 32 planes of thresholds for each vector of words */
    int64_t plane_words;   /* from one chain's planes to the next one's; 0 where all have the same */
    uint8_t *fields;       /* incremental: every chain's, a stride apart */
    const int32_t *own;    /* diagonals: the chains' fields in rows of whole units */
    const glb_heat *heat;  /* one, or under tempering one for each temperature */
    const int32_t *heat_of_lane; /* exact kernel under tempering: which of them, by lane; else NULL */
    const uint32_t *table; /* thresholds of the fields -sum .. sum, a row for each heat, or NULL to compute each */
    uint64_t sweep;
} glb_sweep_data;

/* Which heat a unit has: a block of replica planes, or a chain of site planes. */
static inline int64_t glb_heat_of(const glb_sweep_data *data, int64_t unit) {
    int64_t chains = data->run->layout == GLB_REPLICA_PLANES ? 32 * (int64_t)data->plan->words : 1;
    return data->run->n_ladders == 0 ? 0 : unit * chains / data->run->n_ladders;
}

/* Positions begin .. end - 1 of one colour, in the blocks (replica planes) or chains (site planes) first .. last - 1.
 * `begin` is a whole number of grains (glb_ising_grain) from the colour's start. */
typedef struct {
    int32_t colour;
    int32_t begin;
    int32_t end;
    int32_t first;
    int32_t last;
} glb_part;

typedef void (*glb_ising_kernel)(const glb_sweep_data *data, const glb_part *part);

/* Replica planes: energies, in steps, of the 32 chains of a word. */
typedef void (*glb_energies)(const glb_ising *program, const glb_run *run, const glb_plan *plan, const uint32_t *state,
                             int64_t word, int64_t energy[32]);

/* The largest |value| of n, or 0 (check.c). */
int64_t glb_largest_magnitude(const int32_t *value, int64_t n);

/* The kernels of one instruction set; vector_words is how many 32-bit words it decides at once. */
typedef struct {
    int vector_words;
    void (*first_plane)(const glb_key *key, uint32_t a, uint32_t da, uint32_t c, uint32_t dc, int64_t n,
                        uint32_t *out);
    glb_ising_kernel exact;
    glb_ising_kernel bits;
    glb_ising_kernel bytes;  /* or NULL */
    glb_ising_kernel filter; /* or NULL */
    glb_ising_kernel dense;  /* or NULL; takes all positions of a sweep */
    glb_ising_kernel sites;
    glb_ising_kernel diagonals; /* or NULL */
    glb_ising_kernel independent;
    glb_ising_kernel fresh; /* or NULL; independent sites whose thresholds are used once */
    void (*thresholds)(const int32_t *field, int64_t n, uint64_t b, uint32_t *out);
    void (*planes_of)(const uint32_t *number, uint32_t *planes); /* 32 vector_words numbers */
    int64_t (*largest_magnitude)(const int32_t *number, int64_t n);
    glb_energies energies;
    glb_ising_kernel lattice;
    glb_ising_kernel chip;
    glb_ising_kernel incremental; /* takes all positions of a sweep */
    void (*incremental_start)(const glb_sweep_data *data, int32_t chain); /* a chain's fields from its spins */
    void (*turn)(uint64_t *group, int n);
    void (*add_products)(int64_t *sum, const uint64_t *one, const uint64_t *other, int n, int kept);
    void (*event_words)(const glb_key *key, uint32_t first, uint32_t sweep_low, uint32_t chain, int64_t n,
                        uint32_t out[][4]);
    glb_potts_kernel potts;       /* or NULL */
    glb_potts_kernel potts_bytes; /* or NULL */
    glb_lanes_kernel lanes;
    void (*permute_lanes)(uint64_t *spins, int32_t n, const uint8_t source[64]);
    uint64_t (*dit_sums)(const int32_t *field, const uint8_t *allowed, uint64_t b, uint32_t shift, int32_t n,
                         uint64_t *out);
    void (*dit_find)(const uint64_t *sum, const uint64_t *ends, int32_t n_blocks, const uint64_t *target, int lanes,
                     int32_t *state);
    void (*dit_words)(const glb_key *key, uint32_t a, const uint32_t *sweep_low, const uint32_t *chain,
                      uint32_t out[4][16]);
} glb_kernels;

extern const glb_kernels glb_kernels_portable;
extern const glb_kernels glb_kernels_sse2;
extern const glb_kernels glb_kernels_avx2;
extern const glb_kernels glb_kernels_avx512;
extern const glb_kernels glb_kernels_avx512icl;
extern const glb_kernels glb_kernels_neon;

/* The kernels of a level, or NULL where this machine does not have it (dispatch.c). */
const glb_kernels *glb_kernels_of(int isa);

/* Words of the planes of all positions. */
static inline int64_t glb_plane_words(const glb_ising *program, const glb_plan *plan) {
    int64_t unit = 32 * (int64_t)glb_kernels_of(plan->isa)->vector_words;
    return (program->n_sites + unit - 1) / unit * unit;
}

/* Temperatures that a run has at the same time. */
static inline int64_t glb_n_heats(const glb_run *run) { return run->n_ladders == 0 ? 1 : run->n_b; }

/* Thresholds to tabulate for each heat, 0 where computing each costs less. */
int64_t glb_ising_table_entries(const glb_ising *program, const glb_run *run, const glb_plan *plan);

/* Positions that a kernel takes together, and at whose multiples threads may share a colour. */
int32_t glb_ising_grain(const glb_plan *plan);

/* The bit-sliced net (plan.c makes it, kernel_bits.h reads it). A group is as many positions of one colour as fit into
 * a vector, and its fields are a sum of operations: each adds one bit per chain, the spin of a neighbour, inverted
 * where the coupling is negative, into one plane of the sum. Lane masks have a bit per 32-bit word of the vector. */
typedef struct {
    int32_t first;        /* position */
    int32_t operation;    /* its first; they are sorted by plane */
    uint16_t lanes;       /* lanes that belong to this colour */
    uint16_t base[5];     /* what the sum starts from, a lane mask a plane */
    uint8_t count[5];     /* operations by plane */
    uint8_t unused[3];
} glb_group;

/* How sums of a bit-sliced kernel are fields. */
typedef struct {
    int32_t n_bits;       /* planes of the sum: 3, 4 or 5 */
    int32_t field_offset; /* field = field_scale * sum - field_offset */
    int32_t field_scale;
} glb_level_scale;

typedef struct {
    int32_t source;       /* the first of consecutive neighbours, or -1 - where the gather list has them */
    uint16_t inverted;    /* lanes */
    uint16_t kept;        /* lanes that have this term at all */
} glb_operation;

typedef struct {
    glb_level_scale levels;
    int32_t unused;
    int64_t groups;       /* where in the net, in bytes */
    int64_t operations;
    int64_t gather;
    int64_t colour_group; /* the first group of each colour */
    int64_t size;         /* of the whole net, in bytes */
} glb_bits_net;

/* The net of the byte and filter kernels: what a field starts from with all spins -1 and no field of its own, and a
 * term for each row entry. */
typedef struct {
    int32_t neighbour;
    uint32_t twice; /* 2 x weight, repeated in 8 or 16 bits */
} glb_term;

typedef struct {
    int64_t base;  /* where in the net, in bytes */
    int64_t terms;
} glb_wide_net;

/* The dense net: a block is four positions. */
typedef struct {
    int32_t begin; /* groups of four positions that have its neighbours */
    int32_t end;
    int64_t weights;     /* where in the net: for each group 4 x 4 int8, own position by neighbour; a second array has
                          * the lower halves where there are two passes */
    int32_t inner[4][4]; /* weights among the four, [own][neighbour] */
    int32_t coupled;     /* whether any of them is not 0 */
    int32_t unused;
} glb_dense_block;

typedef struct {
    int64_t base; /* of each position's sum, in bytes from the net's begin: minus the sum of its weights */
    int64_t blocks;
    int64_t weights;
    int64_t size;
    int32_t passes; /* 1: weights are int8; 2: int16 */
    int32_t unused;
} glb_dense_net;

/* The diagonal net: a unit is 64 positions. Fields and doubled weights have 1, 2 or 4 bytes. */
typedef struct {
    int32_t diagonal; /* its first */
    int32_t n_diagonals;
    int32_t off; /* its first neighbour on no diagonal */
    int32_t n_off;
} glb_diagonals_unit;

typedef struct {
    int64_t distance; /* neighbour less position */
} glb_diagonal;

typedef struct {
    int32_t neighbour;
    int32_t twice; /* 2 x weight */
    int32_t lane;  /* position less the unit's first */
} glb_off_diagonal;

typedef struct {
    int64_t n_units;
    int64_t units; /* where in the net, in bytes */
    int64_t diagonals;
    int64_t off;
    int64_t base; /* fields with all spins -1 */
    int64_t base_without_fields;
    int64_t weights; /* doubled, 64 for each diagonal */
    int64_t size;
} glb_diagonals_net;

/* The incremental net: for each spin the positions whose fields it is in. */
typedef struct {
    int32_t position;
    int32_t twice; /* 2 x weight: what the field changes by when the spin turns up */
} glb_change;

enum { GLB_BOUNDS = 128 };

typedef struct {
    int64_t dense;  /* changes are rows of `stride` values of a field's width, else lists of glb_change */
    int64_t stride; /* fields of a chain */
    int64_t start;  /* where in the net, in bytes: the first change of each spin */
    int64_t terms;
    int64_t coupled; /* for each 32 positions, whether any depends on another of them */
    int64_t size;
    uint64_t above[GLB_BOUNDS]; /* x from which on thresholds are at least 2^31 + j 2^24, */
    uint64_t below[GLB_BOUNDS]; /* and up to which they are at most that */
} glb_incremental_net;

/* The lattice net: a group is a vector of positions, cut where colours end. Its masks are vectors: positions that belong
 * to it, planes of what sums start from, and for each operation the positions that have a neighbour at its distance and
 * those where the coupling is negative. */
typedef struct {
    int32_t word;      /* its first */
    int32_t count[5];  /* operations by plane */
    int64_t operation; /* its first; they are sorted by plane */
    int64_t mask;      /* its first word */
} glb_lattice_group;

typedef struct {
    int32_t distance; /* neighbour less position */
} glb_lattice_operation;

typedef struct {
    glb_level_scale levels;
    int32_t unused;
    int64_t groups; /* where in the net, in bytes */
    int64_t operations;
    int64_t masks;
    int64_t colour_group; /* the first group of each colour */
    int64_t size;
} glb_lattice_net;

/* Words before a chain's first and after its last, so that vectors and diagonals may reach beyond the ends. */
enum { GLB_SITE_PAD = 32 };

glb_diagonals_net glb_diagonals_net_fill(const glb_ising *program, const glb_plan *plan, const glb_diagonals_net *head,
                                         uint8_t *net);

/* Levels of a program's fields in the bit-sliced kernel. */
int64_t glb_levels(const glb_traits *traits);

/* The nets. Each is filled after its head is known: fill(..., NULL, NULL) of the bit-sliced one works that out. */
glb_bits_net glb_bits_net_fill(const glb_ising *program, const glb_traits *traits, const glb_plan *plan,
                               const glb_bits_net *head, uint8_t *net);
glb_wide_net glb_wide_net_head(const glb_ising *program);
void glb_wide_net_fill(const glb_ising *program, const glb_plan *plan, uint8_t *net);
glb_dense_net glb_dense_net_head(const glb_ising *program, const glb_traits *traits);
void glb_dense_net_fill(const glb_ising *program, const glb_traits *traits, uint8_t *net);

glb_lattice_net glb_lattice_net_fill(const glb_ising *program, const glb_traits *traits, const glb_plan *plan,
                                     const glb_lattice_net *head, uint8_t *net);
int glb_incremental_is_dense(const glb_ising *program);
glb_incremental_net glb_incremental_net_head(const glb_ising *program, const glb_plan *plan);
void glb_incremental_net_fill(const glb_ising *program, const glb_plan *plan, uint8_t *net);
void glb_incremental_fill(const glb_incremental_net *net, const glb_plan *plan, uint64_t b, int32_t cut[2][256]);

/* Groups of four positions from the first to the last that have a neighbour of four .. four + 3. */
void glb_dense_range(const glb_ising *program, int32_t four, int32_t *begin, int32_t *end);

/* What a kernel looks up at the temperature b (tables.c). */
void glb_ising_fill(const glb_plan *plan, const uint8_t *net, uint64_t b, glb_heat *heat);

#endif
