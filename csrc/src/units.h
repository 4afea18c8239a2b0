/* Sixty-four decisions at once: what all instruction sets have in common.
 *
 * The first eight random planes are transposed into one byte a decision and compared with the top byte of its
 * threshold: exact for byte fields (a table of 128), bracketed from both sides by the filter. What its byte does not
 * decide goes on a list, whose entries get their next eight bits and their exact threshold V at a time. Early decisions
 * cannot be wrong, so the samples are those of the exact kernel.
 */

enum { PAIR_BITS = 3, TIES = 64, MOST_TIES = TIES + 64, TIE_ROOM = MOST_TIES + 64 }; /* stores are whole vectors */

typedef struct {
    uint32_t *words;   /* of the spins: a block of replica planes, or a chain of site planes */
    uint32_t first;    /* replica planes: the counter's third word at the block's first; site planes: the chain */
    uint64_t b;        /* temperature of all on the list */
    int W;             /* words a position, or 0 for site planes */
    int n;
    uint32_t unit[TIE_ROOM]; /* position, and which pair of words; site planes: which pair of words */
    uint8_t lane[TIE_ROOM];  /* place in the unit */
    uint8_t first_byte[TIE_ROOM]; /* the byte that did not decide */
    int32_t field[TIE_ROOM]; /* or int16_t, or int8_t */
} tie_list;

/* The field at a place of fields of WIDTH bytes. */
GLB_INLINE int32_t field_at(const void *fields, int i, int WIDTH) {
    return WIDTH == 1   ? ((const int8_t *)fields)[i]
           : WIDTH == 2 ? ((const int16_t *)fields)[i]
                        : ((const int32_t *)fields)[i];
}

/* The last 16 bits of u, after `first`, of one on the list. */
static uint32_t rest_of_u(const glb_key *key, uint32_t a, uint32_t sweep_low, uint32_t c, uint32_t bit,
                          uint32_t first) {
    uint32_t u = first;
    for (uint32_t g = 4; g < 8; g++) {
        uint32_t next[4];
        glb_threefry(key, a, sweep_low, c, g, next);
        for (int w = 0; w < 4; w++) {
            u = u << 1 | ((next[w] >> bit) & 1u);
        }
    }
    return u;
}

/* Decides all on the list by the bits that follow, and empties it. */
GLB_APART void resolve_ties(const glb_sweep_data *data, const glb_key *key, tie_list *ties, int WIDTH) {
    for (int begin = 0; begin < ties->n; begin += V) {
        uint32_t counter[V];
        uint32_t third[V];
        uint32_t bit[V];
        uint32_t u[V];
        int32_t field[V];
        uint32_t threshold[V];
        for (int i = 0; i < V; i++) {
            bit[i] = ties->lane[begin + i];
            u[i] = ties->first_byte[begin + i];
            field[i] = field_at(ties->field, begin + i, WIDTH);
        }
        words unit = load(ties->unit + begin);
        words lane = load(bit);
        words second = load(u);
        words x[4];
        words y[4];
        words a = 2 * unit + (lane >> 5);
        words c = splat(ties->first);
        if (ties->W > 0) {
            a = unit >> PAIR_BITS;
            if (ties->W == 1) { /* a unit is two positions of one word */
                a += lane >> 5;
            } else {
                c += (unit & ((1u << PAIR_BITS) - 1)) * 2 + (lane >> 5);
            }
        }
        store(counter, a);
        store(third, c);
        store(bit, lane & 31u);
        random_planes(key, a, (uint32_t)data->sweep, c, 2, x);
        random_planes(key, a, (uint32_t)data->sweep, c, 3, y);
        for (int w = 0; w < 4; w++) {
            second = (second << 1) | ((x[w] >> (lane & 31u)) & 1u);
        }
        for (int w = 0; w < 4; w++) {
            second = (second << 1) | ((y[w] >> (lane & 31u)) & 1u);
        }
        store(u, second);
        int n = ties->n - begin < V ? ties->n - begin : V;
#if defined(GLB_AVX512)
        sixteen_thresholds(_mm512_loadu_si512(field), ties->b, threshold);
#else
        for (int i = 0; i < n; i++) {
            threshold[i] = glb_threshold(field[i], ties->b);
        }
#endif
        for (int i = 0; i < n; i++) {
            uint32_t below = u[i] < threshold[i] >> 16;
            if (u[i] == threshold[i] >> 16) { /* hardly ever */
                below = rest_of_u(key, counter[i], (uint32_t)data->sweep, third[i], bit[i], u[i]) < threshold[i];
            }
            int64_t at = ties->W > 0 ? (int64_t)ties->W * counter[i] + (third[i] - ties->first) : counter[i];
            ties->words[at] |= below << bit[i];
        }
    }
    ties->n = 0;
}

/* Sixty-four chains at one position: where their words are, and which of them may change. */
typedef struct {
    uint32_t *target;
    uint32_t unit; /* position, and which pair of words */
    uint64_t open;
    int has_own;           /* fields of the chains in place of the program's, */
    const int32_t *own[4]; /* by quarters of the unit; NULL for lanes that do not exist */
} unit;

/* A unit's 64 lanes hold one position's chains, or, where a word of 32 is all there is, those of two positions: a row
 * for each half then. */
typedef struct {
    const glb_term *term;
    const glb_term *end;
    int32_t start;
} row;

GLB_INLINE uint64_t mask_at(const uint32_t *words32, int W) {
    uint64_t mask;
    if (W == 1) {
        return *words32;
    }
    memcpy(&mask, words32, sizeof mask);
    return mask;
}

/* Where the spins go: those of `below` up, the rest of `open` down. */
GLB_INLINE void put(const unit *at, uint64_t below, int W) {
    uint64_t old = mask_at(at->target, W);
    uint64_t now = (old & ~at->open) | (below & at->open);
    if (W == 1) {
        *at->target = (uint32_t)now;
    } else {
        memcpy(at->target, &now, sizeof now);
    }
}

#if !defined(GLB_AVX512ICL)
GLB_INLINE void list_lane(tie_list *ties, const unit *at, uint64_t tied, const uint8_t *u, const void *fields,
                          int WIDTH) {
    int n = ties->n;
    int lane = glb_lowest_bit64(tied);
    ties->unit[n] = at->unit;
    ties->lane[n] = (uint8_t)lane;
    ties->first_byte[n] = u[lane];
    if (WIDTH == 1) {
        ((int8_t *)ties->field)[n] = ((const int8_t *)fields)[lane];
    } else if (WIDTH == 2) {
        ((int16_t *)ties->field)[n] = ((const int16_t *)fields)[lane];
    } else {
        ties->field[n] = ((const int32_t *)fields)[lane];
    }
}

/* Puts the chains of `tied` on the list. There may be none, in two units of three, and then a chain is put where the
 * list ends: a branch would be guessed wrong that often. */
GLB_INLINE void list_ties(tie_list *ties, const unit *at, uint64_t tied, const uint8_t *u, const void *fields,
                          int WIDTH) {
    list_lane(ties, at, tied | UINT64_C(1) << 63, u, fields, WIDTH);
    ties->n += tied != 0;
    for (tied &= tied - 1; tied != 0; tied &= tied - 1) {
        list_lane(ties, at, tied, u, fields, WIDTH);
        ties->n++;
    }
}
#endif
