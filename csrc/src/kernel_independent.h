/* Site planes without edges: thresholds that do not change are kept as bit planes and compared word by word. */

static void independent_kernel(const glb_sweep_data *data, const glb_part *part) {
    enum { AT_ONCE = V >= 8 ? 3 : 2 };
    const glb_run *run = data->run;
    const glb_plan *plan = data->plan;
    glb_key key = glb_make_key(run->seed, GLB_DECISION, GLB_SITE_PLANES, run->stream, data->sweep);
    for (int32_t chain = part->first; chain < part->last; chain++) {
        uint32_t *spins = data->state + plan->rows * chain + GLB_SITE_PAD;
        const uint32_t *open = data->free == NULL ? NULL : data->free + plan->rows * chain + GLB_SITE_PAD;
        words c = splat(run->first_chain + (uint32_t)chain);
        for (int64_t word = part->begin / 32; 32 * word < part->end; word += V) {
            const uint32_t *planes = data->planes + data->plane_words * chain + 32 * word;
            words a = counting(1) + (uint32_t)word;
            words random[4 * AT_ONCE];
            words below = splat(0);
            words undecided = open == NULL ? ~splat(0) : load(open + word);
            words free = undecided;
            for (uint32_t call = 0; call < AT_ONCE; call++) {
                random_planes(&key, a, (uint32_t)data->sweep, c, call, random + 4 * call);
            }
            for (int k = 0; k < 4 * AT_ONCE; k++) {
                words v = load(planes + V * k);
                below |= undecided & v & ~random[k];
                undecided &= ~(v ^ random[k]);
            }
            for (uint32_t call = AT_ONCE; call < 8 && any(undecided); call++) {
                random_planes(&key, a, (uint32_t)data->sweep, c, call, random);
                for (int k = 0; k < 4; k++) {
                    words v = load(planes + V * (4 * call + (uint32_t)k));
                    below |= undecided & v & ~random[k];
                    undecided &= ~(v ^ random[k]);
                }
            }
            if (open != NULL) {
                below |= load(spins + word) & ~free;
            }
            store(spins + word, below);
        }
    }
}
