/* The C core's interface: what CFFI reads and what the compiler checks. Declarations only.
 *
 * All arrays are the caller's; the core allocates nothing but the threads of one call. "Position" is a site's place
 * in the program's order (colour by colour); "site" is the user's index. A chain number is global: a shard that
 * starts at first_chain draws what the whole job would have drawn there.
 */

enum glb_error {
    GLB_OK = 0,
    GLB_E_SIZE = -1,     /* a size is negative, zero or too large */
    GLB_E_ORDER = -2,    /* colours do not cover the positions, site is no permutation, or a row does not ascend */
    GLB_E_INDEX = -3,    /* a neighbour, state or table index is out of range */
    GLB_E_LOOP = -4,     /* a site is its own neighbour */
    GLB_E_COLOUR = -5,   /* two neighbours share a colour */
    GLB_E_RANGE = -6,    /* a sum of weights reaches 2^30, or b reaches 2^63 */
    GLB_E_ISA = -7,      /* the instruction set is not available */
    GLB_E_THREAD = -8,   /* a thread could not be started */
    GLB_E_ALLOWED = -9,  /* a Potts site allows no state, or not the one it is clamped to */
    GLB_E_KERNEL = -10,  /* the kernel that was asked for does not fit the run */
    GLB_E_ROOM = -11     /* more updates or flips than room was asked for */
};

/* Instruction sets, weakest first. Every level gives the same samples. */
enum glb_isa {
    GLB_ISA_PORTABLE = 0, /* 32-bit words, any compiler */
    GLB_ISA_SSE2 = 1,
    GLB_ISA_AVX2 = 2,
    GLB_ISA_AVX512 = 3,    /* F, BW, VL, DQ */
    GLB_ISA_AVX512ICL = 4, /* and VBMI, VNNI, GFNI, BITALG: from Ice Lake and Zen 4 on */
    GLB_ISA_NEON = 5,      /* 64-bit ARM */
    GLB_N_ISA = 6
};

/* Ways to compute the same samples. Which are possible follows from the program and the run. */
enum glb_kernel {
    GLB_KERNEL_AUTO = 0,
    GLB_KERNEL_EXACT = 1,  /* replica planes: a threshold for each decision; fits every run */
    GLB_KERNEL_BITS = 2,   /* replica planes: bit-sliced, fields of at most 32 levels, no fields per chain */
    GLB_KERNEL_SITES = 3,  /* site planes */
    GLB_KERNEL_BYTES = 4,  /* replica planes: fields in a byte, sums up to 63; from AVX2 on */
    GLB_KERNEL_FILTER = 5, /* replica planes: 16 or 32 bits, thresholds bracketed first; from AVX2 on */
    GLB_KERNEL_DENSE = 6,  /* replica planes: products of matrices, weights up to 16 bits */
    GLB_KERNEL_DIAGONALS = 7,  /* site planes: 64 positions at once; AVX512ICL */
    GLB_KERNEL_INDEPENDENT = 8,  /* site planes: no edges, the program's fields at one temperature */
    GLB_KERNEL_EVENTS = 9,       /* site planes: asynchronous p-bits, and nothing else for them */
    GLB_KERNEL_INCREMENTAL = 10, /* site planes: fields are kept, and changed by spins that flip */
    GLB_KERNEL_LATTICE = 11,     /* site planes: bit-sliced, fields of at most 32 levels, no fields per chain */
    GLB_KERNEL_CHIP = 12         /* replica planes: a chip with flaws, and nothing else for it */
};

/* How a p-bit is updated. */
enum glb_dynamics {
    GLB_BY_HEAT_BATH = 0,
    GLB_BY_METROPOLIS = 1 /* with the exact kernel and that of sites */
};

/* An Ising program: integer fields and directed integer rows, in colour order. */
typedef struct {
    int32_t n_sites;
    int32_t n_colours;
    const int32_t *colour_start; /* n_colours + 1 positions, from 0 to n_sites */
    const int32_t *site;         /* n_sites: the site at each position */
    const int32_t *position;     /* n_sites: the position of each site */
    const int64_t *row_start;    /* n_sites + 1 */
    const int32_t *neighbour;    /* row_start[n_sites] positions, ascending in each row */
    const int32_t *weight;       /* as many, in steps */
    const int32_t *field;        /* n_sites, in steps, by position */
    int64_t n_edges;             /* for moments; may be 0 */
    const int32_t *edge;         /* 2 n_edges positions: the two ends of each edge */
} glb_ising;

/* A Potts program: fields by state, and couplings either as tables or as a weight on equal states. */
/* What the choice of a kernel depends on; glb_ising_check. */
typedef struct {
    int64_t sum;        /* largest |field| + sum |weight| over the sites */
    int64_t weight_sum; /* largest sum |weight| */
    int64_t max_weight; /* largest |weight| */
    int64_t slots;      /* entries of a dense matrix over the program, from the first neighbour of four positions to
                         * the last */
    int64_t in_line;    /* row entries as far from their position as one of the position before it is */
    int32_t in_order;   /* every site is its own position */
    int32_t one_parity; /* field + sum of weights is even at every site, or odd at every site */
} glb_traits;

typedef struct {
    int32_t n_sites;
    int32_t n_states;
    int32_t n_colours;
    const int32_t *colour_start;
    const int32_t *site;
    const int64_t *row_start;
    const int32_t *neighbour;
    const int32_t *weight;       /* per row entry: what an equal neighbour adds, or NULL when there are tables */
    const int64_t *table_start;  /* per row entry: where its table begins, or NULL */
    const int32_t *table;        /* tables of n_states x n_states: [state of the neighbour][own state] */
    int64_t table_size;
    const int32_t *field;        /* n_sites x n_states, by position */
    const uint8_t *allowed;      /* n_sites x n_states by position, 0 or 1; NULL allows all */
} glb_potts;

enum { GLB_MAX_DELAY = 64 };

/* Asynchronous p-bits: docs/machine.md, section 8. Ticks are 2^-32 of a sweep. */
typedef struct {
    const int32_t *rate;      /* n_sites: a row of counts, by position */
    const uint64_t *counts;   /* n_rates x n_counts: 2^32 times the probability of at most k updates in a sweep */
    int32_t n_rates;
    int32_t n_counts;
    uint64_t delay;           /* ticks from a flip until neighbours see it */
    int32_t room;             /* updates of a chain in a sweep that there is memory for; beyond, GLB_E_ROOM */
    int32_t room_for_flips;   /* with a delay: flips of a chain on their way, and made in a sweep; the same */
    int64_t n_in_flight;
    const int64_t *in_flight; /* for glb_ising_start: chain of the shard, position and tick of flips on their way, by
                               * chain and time */
} glb_clock;

enum { GLB_MAX_NOISES = 16, GLB_MAX_MODES = 8, GLB_MAX_FINE = 25 };

/* A noise that every p-bit has for itself: g' = (keep g + fresh z + 2^29) >> 30, z normal; g and z are in 2^-24. */
typedef struct {
    int32_t slot;   /* z is of word slot & 3 at counter (position, sweep, chain, slot >> 2), purpose 8; noises have
                     * ascending slots. That of slot 0 is compared with the threshold, in place of purpose 0 */
    int32_t keep;   /* 2^30 is 1 */
    int32_t fresh;
    int32_t size;   /* what g = 1 adds to x, in 2^8; of no use for slot 0 */
} glb_noise;

/* A chip whose p-bits differ: docs/machine.md, section 10. Arrays by position. */
typedef struct {
    const uint32_t *gain;      /* n_sites: factor of b, 2^20 is 1; below 2^23 */
    const int64_t *offset;     /* n_sites: added to x; below 2^40 in size */
    int32_t fine;              /* weights and fields are in steps of 2^-fine, 0 .. GLB_MAX_FINE */
    int32_t n_modes;           /* what all p-bits have in common: temperature, supply, age */
    const int32_t *mode_size;  /* n_modes x n_sites: what a mode of 1 adds to x, in 2^8 */
    uint64_t first_sweep;      /* that the next two begin with, */
    int64_t n_sweeps;          /* and how many of them there are */
    const uint32_t *slope;     /* n_sweeps: factor of b, 2^20 is 1; below 2^21 */
    const int32_t *mode;       /* n_sweeps x n_modes x lanes, in 2^-24 */
    int32_t n_noises;
    const glb_noise *noise;
    int32_t *memory;           /* n_noises x n_sites x lanes: g of each */
    const int32_t *normal;     /* the table that glb_normal reads */
} glb_chip;

/* What a chip's readout does to a spin, by site: 2^32 times probabilities, each added to those before it. */
typedef struct {
    const uint32_t *late;      /* reads the value before the last sweep */
    const uint32_t *low;       /* undecided, reads -1 */
    const uint32_t *high;      /* undecided, reads +1 */
    const uint32_t *wrong_up;  /* a +1 is read as -1 */
    const uint32_t *wrong_down;
} glb_readout;

/* One run, or a part of one, of a program. "Lanes" below: replica planes [position][lane], a row of
 * round_up_32(first_chain % 32 + n_chains) lanes, the first chain in lane first_chain % 32; site planes
 * [chain][position], a row of round_up_32(n_sites). */
typedef struct {
    uint64_t seed;
    uint32_t stream;
    int32_t layout;              /* enum glb_layout; Potts takes 0 */
    int32_t n_chains;            /* chains of this shard */
    uint32_t first_chain;        /* global number of its first chain */
    const uint64_t *b;           /* n_b values: beta step 2^32 log2(e), doubled for Ising */
    int64_t n_b;                 /* 1 for all sweeps, or one for each sweep from sweep 1 */
    const int32_t *chain_field;  /* NULL, or fields of each chain: Ising by lane, Potts n_chains x n_sites x n_states
                                  * by position */
    const int8_t *clamp;         /* Ising: NULL, or -1, +1 or 0 (free) by lane */
    const int32_t *potts_clamp;  /* Potts: NULL, or state or -1 (free), n_chains x n_sites by position */
    int32_t n_threads;
    int32_t isa;                 /* enum glb_isa */
    int32_t kernel;              /* enum glb_kernel; Potts takes 0 */
    int32_t dynamics;            /* enum glb_dynamics; Potts takes 0 */
    const glb_clock *clock;      /* NULL, or for asynchronous p-bits; Potts takes NULL */
    int32_t n_ladders;           /* tempering: chain k n_ladders + l is at b[k], and n_chains = n_ladders n_b;
                                  * 0: all chains are at the sweep's b */
    int64_t moves_every;         /* exchanges (n_ladders > 0) or resamplings of the population follow every sweep whose
                                  * number this divides; the latter only while another b follows; 0: neither */
    const glb_chip *chip;        /* NULL, or the flaws of the chip; Potts takes NULL */
} glb_run;

/* How a run is computed; glb_ising_plan. Memory is the caller's and begins at a multiple of 64 bytes. */
typedef struct {
    int32_t kernel;
    int32_t isa;
    int64_t sum;           /* largest |field| + sum |weight|, the chains' own fields included */
    int32_t width;         /* bytes that hold every field: 1, 2 or 4; the first up to 63 */
    int64_t lanes;         /* length of a row of clamp and chain_field */
    int32_t in_order;      /* every site is its own position */
    int32_t words;         /* replica planes: words of 32 chains that lie side by side in a block */
    int32_t n_blocks;
    int64_t rows;          /* of a block, with room for a vector to read beyond the last; bits of site planes: words of a
                            * chain */
    int32_t byte_vectors;  /* dense: vectors of 16 chains in a block */
    int64_t byte_stride;   /* dense: bytes of spins as bytes, a block */
    int64_t state_bytes;
    int64_t scratch_bytes;
} glb_plan;

/* Where results go; any pointer may be NULL. A sample is taken after every `every`-th sweep of the call. */
typedef struct {
    int64_t every;
    uint8_t *samples;            /* Ising: n_chains x n_samples x ceil(n_sites / 8), bit i % 8 of byte i / 8 by site */
    int64_t n_samples;           /* room per chain */
    int64_t *site_sum;           /* Ising: n_sites x n_chains by site; Potts: n_chains x n_sites x n_states by site */
    int64_t *edge_sum;           /* Ising: n_edges x n_chains */
    int64_t *exchanges;          /* tempering: (n_b - 1) x 2, tried and made by pair of temperatures; added to */
    int64_t *lowest;             /* resampling: lowest energy, in steps, for each one of the call */
    uint64_t *weights;           /* resampling: sum of weights, for each one of the call */
    int32_t *family;             /* resampling: n_chains, goes with the states */
    uint8_t *history;            /* Ising: glb_ising_history_bytes of working memory, where sums are wanted */
    int64_t *updates;            /* asynchronous p-bits: n_sites by site, over the chains; added to */
} glb_output;

int glb_contract_version(void);
int glb_isa_best(void);
int glb_isa_available(int isa);

/* Pure functions of the contract, for tests. */
void glb_test_threefry(const uint32_t key[4], const uint32_t counter[4], uint32_t out[4]);
uint32_t glb_test_threshold(int32_t field, uint64_t b);
uint64_t glb_test_exp2(uint64_t x);
int32_t glb_test_normal(const int32_t *table, uint32_t u);
int glb_test_thresholds(int isa, const int32_t *field, int64_t n, uint64_t b, uint32_t *out);
int glb_test_dit_sums(int isa, const int32_t *field, const uint8_t *allowed, uint64_t b, uint32_t shift, int32_t n,
                      uint64_t *out);
void glb_test_cuts(int64_t sum, uint64_t b, int32_t cuts[512]);
void glb_test_bracket(int64_t sum, int32_t field, uint64_t b, int coarse, uint32_t bracket[2]);

/* Checks a program whole. */
int glb_ising_check(const glb_ising *program, glb_traits *traits);
int glb_potts_check(const glb_potts *program, int64_t *sum);

/* Checks a run against its program and chooses how to compute it. */
int glb_ising_plan(const glb_ising *program, const glb_traits *traits, const glb_run *run, glb_plan *plan);

/* The program in the plan's form, the net: read-only afterwards, the same for all plans of one kernel, instruction set,
 * width and number of words. Returns its size in bytes, or a negative error. */
int64_t glb_ising_net_bytes(const glb_ising *program, const glb_traits *traits, const glb_plan *plan);
int glb_ising_net(const glb_ising *program, const glb_traits *traits, const glb_plan *plan, uint8_t *net);

/* Fills the state: from `packed` (layout of glb_output.samples with one sample) if not NULL, else at random. */
int glb_ising_start(const glb_ising *program, const glb_run *run, const glb_plan *plan, const uint8_t *packed,
                    uint8_t *state);

/* Brings the noises of a chip to the end of a sweep, 0 being the start: what a resumed run begins with. */
int glb_chip_start(const glb_ising *program, const glb_run *run, const glb_plan *plan, uint64_t sweep);

/* Reads states in place: n_chains x n_samples x ceil(n_sites / 8), the first after first_sweep and the others `every`
 * sweeps apart. `before` has the states a sweep earlier, in the same form; NULL where no reading is late. */
int glb_read_out(const glb_readout *readout, const glb_run *run, int32_t n_sites, uint64_t first_sweep, int64_t every,
                 int64_t n_samples, uint8_t *samples, const uint8_t *before);

/* Working memory for moments, in bytes; begins at a multiple of 64. */
int64_t glb_ising_history_bytes(const glb_ising *program, const glb_run *run, const glb_plan *plan);

/* Runs n_sweeps sweeps; first_sweep is the number of the first of them (the start was sweep 0). The scratch memory is
 * zeroed before its first use, and may be used again for another run of the same program and plan. */
int glb_ising_sweep(const glb_ising *program, const glb_run *run, const glb_plan *plan, const uint8_t *net,
                    uint8_t *state, uint8_t *scratch, uint64_t first_sweep, int64_t n_sweeps,
                    const glb_output *output);

/* Writes the present state as packed bits: n_chains x ceil(n_sites / 8). */
int glb_ising_pack(const glb_ising *program, const glb_run *run, const glb_plan *plan, const uint8_t *state,
                   uint8_t *packed);

/* Asynchronous p-bits: the rows of glb_clock.in_flight for a run that goes on from here, into `rows` if not NULL; returns
 * how many. */
int64_t glb_events_in_flight(const glb_run *run, const glb_plan *plan, uint8_t *state, int64_t *rows);

/* Potts: the state is int32, n_chains x n_sites by position; samples are n_chains x n_samples x n_sites by site. */
int glb_potts_check_run(const glb_potts *program, const glb_run *run);
int glb_potts_start(const glb_potts *program, const glb_run *run, const int32_t *initial, int32_t *state);

/* Working memory of glb_potts_sweep, in bytes; begins at a multiple of 64. With run->kernel = GLB_KERNEL_EXACT every
 * state is drawn by itself. */
int64_t glb_potts_scratch(const glb_potts *program, const glb_run *run);
int glb_potts_sweep(const glb_potts *program, const glb_run *run, int32_t *state, uint8_t *scratch,
                    uint64_t first_sweep, int64_t n_sweeps, const glb_output *output, int32_t *samples);

/* Solving: low energies of E(s) = - sum of weight s s' over edges - sum of field s. docs/solver.md has the arithmetic. */

/* Rows in both directions, without loops or repeated neighbours; sums of a site stay below 2^29. */
typedef struct {
    int32_t n_sites;
    const int64_t *row_start;
    const int32_t *neighbour;
    const int32_t *weight;
    const int32_t *field; /* or NULL */
} glb_graph;

/* How a site that was taken out follows from others: the sign of the weighted sum of their spins, +1 where it is 0. */
typedef struct {
    int32_t site;
    int32_t from[3]; /* -1 behind the last */
    int32_t weight[3];
} glb_removal;

/* A graph with all sites taken out that can be; every array is the caller's. What is left, the kernel, is ordered by
 * component and within by colour; neighbours are counted from their component's first site. */
typedef struct {
    int32_t n_removals;
    int32_t n_kept;
    int32_t n_components;
    glb_removal *removal;     /* n_sites */
    int32_t *kept;            /* n_sites: which site each one of the kernel is */
    int32_t *component_start; /* n_sites + 1, into kept */
    int64_t *row_start;       /* n_sites + 1 */
    int32_t *neighbour;       /* as many as the graph has */
    int32_t *weight;
    int32_t *field;           /* n_sites: weights to the pinned site */
} glb_presolved;

int glb_graph_check(const glb_graph *graph);

/* Exact reductions: sites of degree 0 to 3 and sites that must follow one neighbour. The graph has no fields; a site
 * that stands for them is `pinned` and stays; else -1. Sites of degree 3 go where their weights' sum is even, which a
 * graph with all weights doubled has everywhere. No site's sum of weights grows, nor the number of edges. */
int64_t glb_presolve_bytes(const glb_graph *graph);
int glb_presolve(const glb_graph *graph, int32_t pinned, uint8_t *scratch, glb_presolved *result);

/* The spins of the removed sites from those of the others. */
int glb_presolve_undo(const glb_presolved *result, int8_t *spins);

/* Sixty-four searches side by side, the lanes: bit l of a word is lane l's spin. */
enum { GLB_LANES = 64 };

typedef struct {
    const glb_graph *graph;
    const uint8_t *net;      /* glb_lanes_net */
    uint64_t *spins;         /* n_sites */
    uint8_t *scratch;        /* glb_lanes_scratch_bytes, zeroed at first */
    int8_t *best;            /* n_sites: the best state found */
    int64_t best_energy;
    int64_t energy[64];
    uint32_t pace[64];       /* temperature by lane: uphill steps are drawn as (x pace) >> shift */
    uint64_t resampled;      /* b at the last resampling; 0 before the first */
    int32_t shift;
    int32_t isa;
    uint64_t seed;
    uint32_t stream;
    int32_t symmetric;       /* no site has a field: both signs of a state are the same */
    uint64_t sweep;          /* sweeps done */
    int64_t merges;          /* crossovers that improved the best */
} glb_lanes;

/* A temperature ladder over lanes: `lane` holds, for each ladder in turn, the lane at each temperature, hot to cold. */
typedef struct {
    int32_t n_temperatures;
    int32_t n_ladders;
    int32_t harvest;         /* sweeps from one crossover with the best to the next; 0 never */
    int32_t reseed;          /* whether an improved best goes back into the coldest lane */
    int32_t lane[64];
    uint64_t b[64];          /* by temperature, ascending: 2 beta step log2(e) 2^32 */
    uint32_t pace[64];
    int64_t attempts[64];    /* exchanges with the next colder one */
    int64_t accepted[64];
    int64_t energy_sum[64];  /* by temperature, over sweeps and ladders: n_summed of them */
    int64_t n_summed;
} glb_ladder;

int64_t glb_lanes_net_bytes(const glb_graph *graph);
int glb_lanes_net(const glb_graph *graph, uint8_t *net);
int64_t glb_lanes_scratch_bytes(const glb_graph *graph);

/* Bytes of a gain: 1 wants paces below 2^16 and a shift of 16, 2 the same and 8 to 16, 4 paces below 2^23 and 0 to 20. */
int32_t glb_lanes_width(const glb_graph *graph);

/* Random spins, other ones at another sweep; the best is the best of them. */
int glb_lanes_start(glb_lanes *lanes);
/* Crosses the best with a state, after they have changed places if the state is better. */
int glb_lanes_take(glb_lanes *lanes, const int8_t *state);
/* Every lane becomes the best state. */
int glb_lanes_restart(glb_lanes *lanes);
/* A sweep for each entry of pace and b. With `resample` the lanes are drawn anew before each sweep that is colder than
 * the one before it, by their weights (population annealing). energy_sum, if not NULL, takes the lanes' sum after each
 * sweep. */
int glb_lanes_anneal(glb_lanes *lanes, const uint32_t *pace, const uint64_t *b, int64_t n_sweeps, int32_t resample,
                     int64_t *energy_sum);
/* Sweeps with exchanges between neighbouring temperatures. */
int glb_lanes_temper(glb_lanes *lanes, glb_ladder *ladder, int64_t n_sweeps);
/* Crossover of the best with every lane, each slid downhill first. */
int glb_lanes_harvest(glb_lanes *lanes);

/* The state of lowest energy of at most 24 sites, by trying all. */
int glb_enumerate(const glb_graph *graph, int8_t *spins);
