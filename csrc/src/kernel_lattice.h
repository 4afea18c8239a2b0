/* Bit-sliced site planes: one bit a position, a vector of neighbouring positions of one chain at once.
 *
 * On a lattice in colour order nearly all positions of a vector have neighbours at the same few distances: their spins are
 * a vector of bits that begins elsewhere. Levels, thresholds and decisions are those of kernel_bits.h.
 */

/* The spins of as many positions as a vector has bits, from some bit on. */
GLB_INLINE words spins_from(const uint32_t *spins, int64_t bit) {
    const uint32_t *from = spins + (bit >> 5);
    int shift = (int)(bit & 31);
    return load(from) >> shift | load(from + 1) << 1 << (31 - shift);
}

GLB_INLINE void lattice_chain(const glb_sweep_data *data, const glb_part *part, int32_t chain, int BITS) {
    enum { AT_ONCE = V >= 8 ? 3 : 2 };
    const glb_lattice_net *net = (const void *)data->net;
    const glb_lattice_group *groups = (const void *)(data->net + net->groups);
    const glb_lattice_operation *operations = (const void *)(data->net + net->operations);
    const uint32_t *masks = (const void *)(data->net + net->masks);
    const int32_t *colour_group = (const void *)(data->net + net->colour_group);
    int32_t before = data->program->colour_start[part->colour] / (32 * V);
    int32_t begin = colour_group[part->colour] + part->begin / (32 * V) - before;
    int32_t end = colour_group[part->colour] + (part->end - 1) / (32 * V) - before + 1;
    uint32_t *spins = data->state + data->plan->rows * chain + GLB_SITE_PAD;
    const uint32_t *free = data->free == NULL ? NULL : data->free + data->plan->rows * chain + GLB_SITE_PAD;
    uint32_t sweep_low = (uint32_t)data->sweep;
    glb_key key = glb_make_key(data->run->seed, GLB_DECISION, GLB_SITE_PLANES, data->run->stream, data->sweep);
    words c = splat(data->run->first_chain + (uint32_t)chain);
    for (int32_t g = begin; g < end; g++) {
        const glb_lattice_group *group = groups + g;
        const glb_lattice_operation *operation = operations + group->operation;
        const uint32_t *mask = masks + group->mask;
        words sum[5];
        words f[16];
        words random[4 * AT_ONCE];
        words below = splat(0);
        words undecided = load(mask);
        words a = counting(1) + (uint32_t)group->word;
        if (free != NULL) {
            undecided &= load(free + group->word);
        }
        words open = undecided;
        for (int k = 0; k < BITS; k++) {
            sum[k] = load(mask + V * (1 + k));
        }
        mask += V * (1 + BITS);
        for (int k = 0; k < BITS; k++) {
            for (int32_t i = 0; i < group->count[k]; i++, operation++, mask += 2 * V) {
                words up = spins_from(spins, 32 * (int64_t)group->word + operation->distance);
                add_at(sum, k, (up ^ load(mask + V)) & load(mask), BITS);
            }
        }
        functions_of_two(sum[0], sum[1], f);
        for (uint32_t call = 0; call < AT_ONCE; call++) {
            random_planes(&key, a, sweep_low, c, call, random + 4 * call);
        }
        for (int k = 0; k < 4 * AT_ONCE; k++) {
            words v = threshold_plane(f, data->heat->pick[k], sum, BITS);
            below |= undecided & v & ~random[k];
            undecided &= ~(v ^ random[k]);
        }
        for (uint32_t call = AT_ONCE; call < 8 && any(undecided); call++) {
            random_planes(&key, a, sweep_low, c, call, random);
            for (int k = 0; k < 4; k++) {
                words v = threshold_plane(f, data->heat->pick[4 * call + (uint32_t)k], sum, BITS);
                below |= undecided & v & ~random[k];
                undecided &= ~(v ^ random[k]);
            }
        }
        store(spins + group->word, below | (load(spins + group->word) & ~open));
    }
}

static void lattice_kernel(const glb_sweep_data *data, const glb_part *part) {
    int n_bits = ((const glb_lattice_net *)(const void *)data->net)->levels.n_bits;
    for (int32_t chain = part->first; chain < part->last; chain++) {
        if (n_bits == 3) {
            lattice_chain(data, part, chain, 3);
        } else if (n_bits == 4) {
            lattice_chain(data, part, chain, 4);
        } else {
            lattice_chain(data, part, chain, 5);
        }
    }
}
