/* Dense and bipartite programs in replica planes, for instruction sets without VNNI: fields as products of int8 matrices.
 *
 * Spins lie beside the bits as kernel_dense.h has them: bytes 0 and 1, four neighbouring positions of a chain in a
 * dword. Two products at a time fit 16 bits, and so do the sums of 64 groups; then these are added to sums of 32 bits.
 * Four positions read the same spins one after the other; as there, they may be neighbours of each other, and a spin
 * that changes corrects the sums of those after it.
 */

#if defined(__GNUC__) || defined(__clang__)
#define GLB_DENSE_PLAIN 1

/* Where words are all there is, the compiler makes vectors of 16 bytes out of what it has. OWN positions by VECS vectors
 * of sums are as many as there are registers for. */
enum { GROUP_BYTES = GLB_VECTOR_BYTES > 4 ? GLB_VECTOR_BYTES : 16, GROUP_CHAINS = GROUP_BYTES / 4, MOST_GROUPS = 64 };
#if defined(GLB_AVX512)
enum { MOST_VECS = 4, OWN = 4 };
#elif defined(GLB_AVX2)
enum { MOST_VECS = 2, OWN = 4 };
#elif defined(__aarch64__)
enum { MOST_VECS = 4, OWN = 4 };
#else
enum { MOST_VECS = 4, OWN = 2 };
#endif
typedef uint32_t dwords __attribute__((vector_size(GROUP_BYTES)));
typedef int32_t int_dwords __attribute__((vector_size(GROUP_BYTES)));
typedef uint16_t pairs __attribute__((vector_size(GROUP_BYTES)));
typedef int16_t int_pairs __attribute__((vector_size(GROUP_BYTES)));

/* Four weights of one position, ready for multiplication. */
typedef struct {
    dwords all;
    pairs even;
    pairs odd;
} four_weights;

GLB_INLINE four_weights ready_weights(const uint8_t *weight, int lower) {
    four_weights w;
    uint32_t four;
    memcpy(&four, weight, sizeof four);
    w.all = (dwords){0} + four;
#if !defined(GLB_AVX512) && !defined(GLB_AVX2)
    w.even = lower ? (pairs)w.all & 0xFF : (pairs)((int_pairs)((pairs)w.all << 8) >> 8);
    w.odd = lower ? (pairs)w.all >> 8 : (pairs)((int_pairs)w.all >> 8);
#endif
    (void)lower;
    return w;
}

/* Weight x (0 or 1), two added: from -256 to 510. */
GLB_INLINE pairs products_of(dwords spins, four_weights w, int lower) {
#if defined(GLB_AVX512)
    return lower ? (pairs)_mm512_maddubs_epi16((__m512i)w.all, (__m512i)spins)
                 : (pairs)_mm512_maddubs_epi16((__m512i)spins, (__m512i)w.all);
#elif defined(GLB_AVX2)
    return lower ? (pairs)_mm256_maddubs_epi16((__m256i)w.all, (__m256i)spins)
                 : (pairs)_mm256_maddubs_epi16((__m256i)spins, (__m256i)w.all);
#else
    (void)lower;
    return ((pairs)spins & 0xFF) * w.even + ((pairs)spins >> 8) * w.odd;
#endif
}

/* Adds the products of OWN positions from `own` on with up to MOST_GROUPS groups, for VECS vectors of chains. */
GLB_INLINE void add_groups(const uint8_t *bytes, int64_t stride, const uint8_t *weight, int32_t groups, int lower,
                           int32_t sum[4][64], int own, int chain, int VECS) {
    pairs total[OWN][MOST_VECS];
    for (int i = 0; i < OWN; i++) {
        for (int v = 0; v < VECS; v++) {
            total[i][v] = (pairs){0};
        }
    }
    for (int32_t g = 0; g < groups; g++) {
        dwords spins[MOST_VECS];
        for (int v = 0; v < VECS; v++) {
            memcpy(&spins[v], bytes + stride * g + 4 * (chain + GROUP_CHAINS * v), sizeof spins[v]);
        }
        for (int i = 0; i < OWN; i++) {
            four_weights w = ready_weights(weight + 16 * (int64_t)g + 4 * (own + i), lower);
            for (int v = 0; v < VECS; v++) {
                total[i][v] += products_of(spins[v], w, lower);
            }
        }
    }
    for (int i = 0; i < OWN; i++) {
        for (int v = 0; v < VECS; v++) {
            int32_t *to = sum[own + i] + chain + GROUP_CHAINS * v;
            dwords both = (dwords)total[i][v];
            int_dwords sums;
            memcpy(&sums, to, sizeof sums);
            sums += ((int_dwords)(both << 16) >> 16) + ((int_dwords)both >> 16);
            memcpy(to, &sums, sizeof sums);
        }
    }
}

/* Sums of weight x (0 or 1) of four positions for all chains. */
GLB_INLINE void plain_products(const uint8_t *bytes, const glb_dense_block *of, const uint8_t *weights, int passes,
                                     int32_t sum[4][64], int CHAINS) {
    enum { AT_ONCE = GROUP_CHAINS * MOST_VECS };
    const int VECS = CHAINS < AT_ONCE ? CHAINS / GROUP_CHAINS : MOST_VECS;
    int64_t stride = 4 * CHAINS;
    memset(sum, 0, sizeof(int32_t[4][64]));
    for (int pass = 0; pass < passes; pass++) {
        const uint8_t *weight = weights + of->weights + (int64_t)pass * 16 * (of->end - of->begin);
        for (int i = 0; pass == 1 && i < 4; i++) { /* the upper halves are done */
            for (int chain = 0; chain < 64; chain++) {
                sum[i][chain] *= 256;
            }
        }
        for (int32_t g = of->begin; g < of->end; g += MOST_GROUPS) {
            int32_t groups = of->end - g < MOST_GROUPS ? of->end - g : MOST_GROUPS;
            const uint8_t *from = weight + 16 * (int64_t)(g - of->begin);
            for (int chain = 0; chain < CHAINS; chain += GROUP_CHAINS * VECS) {
                for (int own = 0; own < 4; own += OWN) {
                    if (pass + 1 < passes || passes == 1) {
                        add_groups(bytes + stride * g, stride, from, groups, 0, sum, own, chain, VECS);
                    } else {
                        add_groups(bytes + stride * g, stride, from, groups, 1, sum, own, chain, VECS);
                    }
                }
            }
        }
    }
}

/* A position's new spins go into the bytes of its group and, where they changed, into the sums of those after it. */
GLB_INLINE void spread_spins(uint8_t *group, const glb_dense_block *of, int which, uint64_t old, uint64_t now,
                             int32_t sum[4][64], int CHAINS) {
    uint32_t place = 0xFFu << (8 * which);
    for (int chain = 0; chain < CHAINS; chain += V) {
        words up = from_lanes((uint32_t)(now >> chain) & ALL_LANES);
        words was = from_lanes((uint32_t)(old >> chain) & ALL_LANES);
        words bytes;
        memcpy(&bytes, group + 4 * chain, sizeof bytes);
        bytes = (bytes & ~splat(place)) | (up & splat(place & 0x01010101u));
        memcpy(group + 4 * chain, &bytes, sizeof bytes);
        for (int j = which + 1; of->coupled && j < 4; j++) {
            words weight = splat((uint32_t)of->inner[j][which]);
            words sums;
            memcpy(&sums, sum[j] + chain, sizeof sums);
            sums += (up & weight) - (was & weight);
            memcpy(sum[j] + chain, &sums, sizeof sums);
        }
    }
}

GLB_INLINE void plain_dense_block(const glb_sweep_data *data, int32_t number, int W, int CHAINS) {
    enum { WORDS = V > 8 ? V : 8, CALLS = WORDS / V }; /* random words of four positions or more */
    const int SPAN = WORDS / W;
    const glb_run *run = data->run;
    const glb_plan *plan = data->plan;
    const glb_dense_net *net = (const void *)data->net;
    const int32_t *base = (const void *)(data->net + net->base);
    const glb_dense_block *of = (const void *)(data->net + net->blocks);
    uint32_t *block = data->state + (int64_t)number * plan->rows * W;
    const uint32_t *open = data->free + (int64_t)number * plan->rows * W;
    uint8_t *bytes = data->bytes + (int64_t)number * plan->byte_stride;
    uint32_t first_word = (run->first_chain >> 5) + (uint32_t)(number * W);
    int64_t lane = 32 * (int64_t)number * W;
    int32_t n = data->program->n_sites;
    glb_key key = glb_make_key(run->seed, GLB_DECISION, GLB_REPLICA_PLANES, run->stream, data->sweep);
    const glb_heat *heat = data->heat + glb_heat_of(data, number);
    constants k = constants_of(heat, 4);
    tie_list ties;
    ties.b = heat->b;
    ties.words = block;
    ties.first = first_word;
    ties.W = W;
    ties.n = 0;
    for (int32_t p = 0; p < n; p += SPAN) {
        uint8_t u[32 * WORDS + 32]; /* a unit of one word is read as if it had two */
        for (int call = 0; call < CALLS; call++) {
            words random[8];
            words item = counting(1) + (uint32_t)(V * call);
            words a = (uint32_t)p + item / (uint32_t)W;
            words c = first_word + item % (uint32_t)W;
            random_planes(&key, a, (uint32_t)data->sweep, c, 0, random);
            random_planes(&key, a, (uint32_t)data->sweep, c, 1, random + 4);
            bytes_of(random, u + 32 * V * call);
        }
        memset(u + 32 * WORDS, 0, 32);
        for (int32_t four = p; four < p + SPAN && four < n; four += 4) {
            const glb_dense_block *here = of + four / 4;
            int32_t sum[4][64];
            plain_products(bytes, here, data->net, net->passes, sum, CHAINS);
            for (int i = 0; i < 4 && four + i < n; i++) {
                int32_t position = four + i;
                unit at = {.target = block + (int64_t)position * W,
                           .unit = (uint32_t)position << PAIR_BITS,
                           .open = mask_at(open + (int64_t)position * W, W)};
                int32_t field[64];
                int32_t start = base[position] + (run->chain_field == NULL ? data->program->field[position] : 0);
                for (int l = 0; l < 64; l++) {
                    field[l] = start + 2 * sum[i][l];
                }
                int64_t own = run->chain_field == NULL ? 0 : plan->lanes - lane < 32 * W ? plan->lanes - lane : 32 * W;
                for (int64_t l = 0; l < own; l++) {
                    field[l] += run->chain_field[plan->lanes * position + lane + l];
                }
                uint64_t old = mask_at(at.target, W);
                decide_unit(&k, &ties, &at, field, u + 32 * W * (position - p), W, 4);
                if (ties.n > 0) {
                    resolve_ties(data, &key, &ties, 4);
                }
                spread_spins(bytes + (int64_t)4 * CHAINS * (four / 4), here, i, old, mask_at(at.target, W), sum, CHAINS);
            }
        }
    }
}

/* All positions of a sweep: `part` has them all. */
static void plain_dense_kernel(const glb_sweep_data *data, const glb_part *part) {
    for (int32_t number = part->first; number < part->last; number++) {
        if (data->plan->words == 2) {
            plain_dense_block(data, number, 2, 64);
        } else if (data->plan->byte_vectors == 2) {
            plain_dense_block(data, number, 1, 32);
        } else {
            plain_dense_block(data, number, 1, 16);
        }
    }
}
#endif
