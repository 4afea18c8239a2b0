/* Replica planes: the energies of the 32 chains of a word, in steps.
 *
 * E = -sum_p s_p (h_p + sum over neighbours q > p of w_pq s_q). Fields are made as in the exact kernel, and summed in 32
 * bits for as many positions as cannot overflow.
 */
static void energies_of_word(const glb_ising *program, const glb_run *run, const glb_plan *plan, const uint32_t *state,
                             int64_t word, int64_t energy[32]) {
    enum { N = 32 / V };
    int W = plan->words;
    const uint32_t *block = state + (word / W * plan->rows) * W + word % W;
    int64_t at_once = plan->sum > 0 ? INT32_MAX / plan->sum : INT32_MAX; /* |field| <= sum < 2^30 */
    memset(energy, 0, 32 * sizeof energy[0]);
    for (int64_t start = 0; start < program->n_sites; start += at_once) {
        int64_t end = start + at_once < program->n_sites ? start + at_once : program->n_sites;
        words sum[N];
        int32_t lane[32];
        memset(sum, 0, sizeof sum);
        for (int64_t p = start; p < end; p++) {
            words field[N];
            uint32_t up = block[W * p];
            uint32_t base = run->chain_field == NULL ? (uint32_t)program->field[p] : 0;
            for (int v = 0; v < N; v++) {
                field[v] = splat(0);
            }
            /* rows ascend, so the later neighbours stand at the end */
            for (int64_t k = program->row_start[p + 1] - 1; k >= program->row_start[p] && program->neighbour[k] > p; k--) {
                uint32_t weight = (uint32_t)program->weight[k];
                uint32_t bits = block[(int64_t)W * program->neighbour[k]];
                base -= weight;
                for (int v = 0; v < N; v++) {
                    field[v] += splat(2u * weight) & from_lanes(bits >> (V * v));
                }
            }
            for (int v = 0; v < N; v++) {
                words down = from_lanes(~up >> (V * v));
                field[v] += splat(base);
                if (run->chain_field != NULL) {
                    field[v] += load((const uint32_t *)run->chain_field + plan->lanes * p + 32 * word + V * v);
                }
                sum[v] += (field[v] ^ down) - down; /* minus the field where the spin is down */
            }
        }
        memcpy(lane, sum, sizeof lane);
        for (int i = 0; i < 32; i++) {
            energy[i] -= lane[i];
        }
    }
}
