/* Bit-sliced replica planes: one bit a spin and chain, fields of at most 32 levels.
 *
 * A vector holds V / W positions with W words of chains each. Adders over the bits of the neighbours give each chain's
 * level as BITS planes; the level chooses, plane by plane, the bits of its threshold, which are compared with the
 * random planes, most significant first. A level's bit is looked up four levels at a time: the 16 Boolean functions of
 * the two lowest planes are made once, and a plane's pick says which of them four neighbouring levels follow.
 */

/* The spins of one operation's neighbours. */
GLB_INLINE words source_of(const uint32_t *block, const int32_t *gather, int32_t source, int W) {
    if (source >= 0) {
        return load(block + (int64_t)W * source);
    }
    const int32_t *from = gather + (-1 - source);
#if defined(GLB_AVX512)
    if (W == 1) {
        return (words)_mm512_i32gather_epi32(_mm512_loadu_si512(from), block, 4);
    }
    if (W == 2) {
        return (words)_mm512_i32gather_epi64(_mm256_loadu_si256((const void *)from), block, 8);
    }
#endif
    words v;
    for (int i = 0; i < V / W; i++) {
        memcpy((uint32_t *)&v + W * i, block + (int64_t)W * from[i], 4 * (size_t)W);
    }
    return v;
}

/* Adds `carry` to the planes from `plane` on. */
GLB_INLINE void add_at(words sum[5], int plane, words carry, int BITS) {
    for (int k = plane; k < BITS; k++) {
        words next = sum[k] & carry;
        sum[k] ^= carry;
        carry = next;
    }
}

/* The level of each lane's field, BITS planes. */
GLB_INLINE void levels_of(const uint32_t *block, const glb_group *group, const glb_operation *operation,
                          const int32_t *gather, words sum[5], int W, int BITS) {
    for (int k = 0; k < BITS; k++) {
        sum[k] = from_lanes(group->base[k]);
    }
    for (int k = 0; k < BITS; k++) {
        int count = group->count[k];
        for (; count >= 2; count -= 2, operation += 2) {
            words x = keep_lanes(invert_lanes(source_of(block, gather, operation[0].source, W), operation[0].inverted),
                                 operation[0].kept);
            words y = keep_lanes(invert_lanes(source_of(block, gather, operation[1].source, W), operation[1].inverted),
                                 operation[1].kept);
            words carry = (sum[k] & x) | (y & (sum[k] | x));
            sum[k] ^= x ^ y;
            add_at(sum, k + 1, carry, BITS);
        }
        if (count == 1) {
            words x = keep_lanes(invert_lanes(source_of(block, gather, operation->source, W), operation->inverted),
                                 operation->kept);
            add_at(sum, k, x, BITS);
            operation++;
        }
    }
}

/* All Boolean functions of two planes; bit i of the index is the value at p0 + 2 p1 = i. */
GLB_INLINE void functions_of_two(words p0, words p1, words f[16]) {
    f[0] = splat(0);
    f[1] = ~(p0 | p1);
    f[2] = p0 & ~p1;
    f[3] = ~p1;
    f[4] = ~p0 & p1;
    f[5] = ~p0;
    f[6] = p0 ^ p1;
    f[7] = ~(p0 & p1);
    f[8] = p0 & p1;
    f[9] = ~f[6];
    f[10] = p0;
    f[11] = ~f[4];
    f[12] = p1;
    f[13] = ~f[2];
    f[14] = p0 | p1;
    f[15] = ~f[0];
}

GLB_INLINE words choose(words selector, words one, words zero) { return (selector & one) | (~selector & zero); }

/* A plane of every lane's threshold. */
GLB_INLINE words threshold_plane(const words f[16], const uint8_t pick[8], const words sum[5], int BITS) {
    words low = choose(sum[2], f[pick[1]], f[pick[0]]);
    if (BITS == 3) {
        return low;
    }
    words high = choose(sum[2], f[pick[3]], f[pick[2]]);
    low = choose(sum[3], high, low);
    if (BITS == 4) {
        return low;
    }
    words third = choose(sum[2], f[pick[5]], f[pick[4]]);
    words fourth = choose(sum[2], f[pick[7]], f[pick[6]]);
    return choose(sum[4], choose(sum[3], fourth, third), low);
}

GLB_INLINE void bits_block(const glb_sweep_data *data, const glb_part *part, int32_t number, int W, int BITS) {
    enum { AT_ONCE = V >= 8 ? 3 : 2 }; /* calls before the first look: fewer would leave a lane of nearly every vector */
    const glb_bits_net *net = (const void *)data->net;
    const glb_group *groups = (const void *)(data->net + net->groups);
    const glb_operation *operations = (const void *)(data->net + net->operations);
    const int32_t *gather = (const void *)(data->net + net->gather);
    const int32_t *colour_group = (const void *)(data->net + net->colour_group);
    const int32_t G = V / W;
    int32_t start = data->program->colour_start[part->colour];
    int32_t begin = colour_group[part->colour] + (part->begin - start) / G;
    int32_t end = colour_group[part->colour] + (part->end - start + G - 1) / G;
    uint32_t *block = data->state + (int64_t)number * data->plan->rows * W;
    const uint32_t *free = data->free == NULL ? NULL : data->free + (int64_t)number * data->plan->rows * W;
    uint32_t sweep_low = (uint32_t)data->sweep;
    const glb_heat *heat = data->heat + glb_heat_of(data, number);
    glb_key key = glb_make_key(data->run->seed, GLB_DECISION, GLB_REPLICA_PLANES, data->run->stream, data->sweep);
    words site = counting(W);
    words c = cycling(W) + ((data->run->first_chain >> 5) + (uint32_t)(number * W));
    for (int32_t g = begin; g < end; g++) {
        const glb_group *group = groups + g;
        words sum[5];
        words f[16];
        words random[4 * AT_ONCE];
        words below = splat(0);
        words undecided = ~splat(0);
        words a = site + (uint32_t)group->first;
        uint32_t *target = block + (int64_t)W * group->first;
        if (free != NULL) {
            undecided = load(free + (int64_t)W * group->first);
        }
        if (group->lanes != ALL_LANES) {
            undecided &= from_lanes(group->lanes);
        }
        words open = undecided;
        levels_of(block, group, operations + group->operation, gather, sum, W, BITS);
        functions_of_two(sum[0], sum[1], f);
        for (uint32_t call = 0; call < AT_ONCE; call++) {
            random_planes(&key, a, sweep_low, c, call, random + 4 * call);
        }
        for (int k = 0; k < 4 * AT_ONCE; k++) {
            words v = threshold_plane(f, heat->pick[k], sum, BITS);
            below |= undecided & v & ~random[k];
            undecided &= ~(v ^ random[k]);
        }
        for (uint32_t call = AT_ONCE; call < 8 && any(undecided); call++) { /* what is left cannot change the rest */
            random_planes(&key, a, sweep_low, c, call, random);
            for (int k = 0; k < 4; k++) {
                words v = threshold_plane(f, heat->pick[4 * call + (uint32_t)k], sum, BITS);
                below |= undecided & v & ~random[k];
                undecided &= ~(v ^ random[k]);
            }
        }
        if (free != NULL) {
            below |= load(target) & ~open;
        }
        if (group->lanes == ALL_LANES) {
            store(target, below);
        } else { /* what lies behind belongs to another colour */
            uint32_t lane[V];
            store(lane, below);
            for (int i = 0; i < V && (group->lanes >> i) & 1; i++) {
                target[i] = lane[i];
            }
        }
    }
}

static void bits_kernel(const glb_sweep_data *data, const glb_part *part) {
    int n_bits = ((const glb_bits_net *)(const void *)data->net)->levels.n_bits;
    for (int32_t number = part->first; number < part->last; number++) {
#define GLB_CASE(W)                                                                                                    \
    case W:                                                                                                            \
        if (n_bits == 3) {                                                                                             \
            bits_block(data, part, number, W, 3);                                                                      \
        } else if (n_bits == 4) {                                                                                      \
            bits_block(data, part, number, W, 4);                                                                      \
        } else {                                                                                                       \
            bits_block(data, part, number, W, 5);                                                                      \
        }                                                                                                              \
        break
        switch (data->plan->words) {
            GLB_CASE(1);
#if GLB_VECTOR_BYTES >= 16
            GLB_CASE(2);
            GLB_CASE(4);
#endif
#if GLB_VECTOR_BYTES >= 32
            GLB_CASE(8);
#endif
#if GLB_VECTOR_BYTES >= 64
            GLB_CASE(16);
#endif
        default:
            break;
        }
#undef GLB_CASE
    }
}
