/* Replica planes, 64 chains at once, any weights: a neighbour costs an addition of 2w where its spins are up. Fields are
 * int8 (sums up to 63), int16 or int32.
 */

GLB_INLINE void wide_block(const glb_sweep_data *data, const glb_part *part, int32_t number, int W, int WIDTH) {
    enum { UNITS = V / 2 }; /* in one vector of random words */
    const glb_run *run = data->run;
    const glb_plan *plan = data->plan;
    uint32_t *block = data->state + (int64_t)number * plan->rows * W;
    const uint32_t *open = data->free + (int64_t)number * plan->rows * W;
    uint32_t first_word = (run->first_chain >> 5) + (uint32_t)(number * W);
    int64_t lane = 32 * (int64_t)number * W; /* of the block's first word, in chain_field */
    glb_key key = glb_make_key(run->seed, GLB_DECISION, GLB_REPLICA_PLANES, run->stream, data->sweep);
    const glb_wide_net *net = (const void *)data->net;
    const int32_t *base = (const void *)(data->net + net->base);
    const glb_term *terms = (const void *)(data->net + net->terms);
    const int64_t *row_start = data->program->row_start;
    const int32_t *field = data->program->field;
    const int32_t *own = run->chain_field;
    words site = counting(W);
    words c = cycling(W) + first_word;
    const glb_heat *heat = data->heat + glb_heat_of(data, number);
    constants k = constants_of(heat, WIDTH);
    tie_list ties;
    ties.b = heat->b;
    ties.words = block;
    ties.first = first_word;
    ties.W = W;
    ties.n = 0;
    for (int64_t p = part->begin; p < part->end; p += V / W) {
        words random[8];
        unit_random bytes;
        random_planes(&key, site + (uint32_t)p, (uint32_t)data->sweep, c, 0, random);
        random_planes(&key, site + (uint32_t)p, (uint32_t)data->sweep, c, 1, random + 4);
        random_of(random, &bytes);
        for (int j = 0; j < UNITS; j++) {
            int64_t position = p + 2 * j / W;
            int word = W == 1 ? 0 : 2 * (j % (W == 1 ? 1 : W / 2));
            if (position >= part->end) {
                break;
            }
            int two = W > 1 || position + 1 < part->end; /* a last position alone fills half a unit */
            unit at = {.target = block + position * W + word,
                       .unit = (uint32_t)position << PAIR_BITS | (uint32_t)word / 2,
                       .open = mask_at(open + position * W + word, two ? 2 : 1),
                       .has_own = own != NULL};
            if (at.open == 0) {
                continue;
            }
            for (int v = 0; own != NULL && v < 4; v++) {
                int64_t begin = W == 1 ? lane + 16 * (v % 2) : lane + 32 * word + 16 * v;
                int64_t at_position = W == 1 ? position + v / 2 : position;
                int there = begin < plan->lanes && (two || v < 2);
                at.own[v] = there ? own + plan->lanes * at_position + begin : NULL;
            }
            row rows[2];
            for (int r = 0; r < (W == 1 ? 2 : 1); r++) {
                int64_t own_row = r == 0 || two ? position + r : position;
                int64_t end = r == 0 || two ? row_start[own_row + 1] : row_start[own_row];
                rows[r] = (row){terms + row_start[own_row], terms + end,
                                base[own_row] + (own == NULL ? field[own_row] : 0)};
            }
            unit_fields fields;
            fields_of(&k, block + word, rows, &at, W, WIDTH, &fields);
            decide_fields(&k, &ties, &at, &fields, &bytes, j, two ? 2 : 1, WIDTH);
            if (ties.n >= TIES) {
                resolve_ties(data, &key, &ties, WIDTH);
            }
        }
    }
    if (ties.n > 0) {
        resolve_ties(data, &key, &ties, WIDTH);
    }
}

GLB_INLINE void wide_blocks(const glb_sweep_data *data, const glb_part *part, int WIDTH) {
    for (int32_t number = part->first; number < part->last; number++) {
        switch (data->plan->words) {
        case 1:
            wide_block(data, part, number, 1, WIDTH);
            break;
        case 2:
            wide_block(data, part, number, 2, WIDTH);
            break;
        case 4:
            wide_block(data, part, number, 4, WIDTH);
            break;
        case 8:
            wide_block(data, part, number, 8, WIDTH);
            break;
        default:
            wide_block(data, part, number, 16, WIDTH);
        }
    }
}

static void bytes_kernel(const glb_sweep_data *data, const glb_part *part) { wide_blocks(data, part, 1); }

static void filter_kernel(const glb_sweep_data *data, const glb_part *part) {
    if (data->plan->sum <= INT16_MAX) {
        wide_blocks(data, part, 2);
    } else {
        wide_blocks(data, part, 4);
    }
}
