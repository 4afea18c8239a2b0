/* Every range is checked here, once per program, so that the kernels need no checks. */
#include "ising.h"

#define SUM_LIMIT (INT64_C(1) << 30)

static int64_t magnitude(int32_t value) { return value < 0 ? -(int64_t)value : (int64_t)value; }

/* Without a branch, so that a compiler makes vectors of it. */
int64_t glb_largest_magnitude(const int32_t *value, int64_t n) {
    int32_t least = 0;
    int32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        least = value[i] < least ? value[i] : least;
        most = value[i] > most ? value[i] : most;
    }
    return -(int64_t)least > most ? -(int64_t)least : most;
}

/* Colours tile the positions; rows are in order, ascend and point at other colours. */
static int check_graph(int32_t n_sites, int32_t n_colours, const int32_t *colour_start, const int32_t *site,
                       const int64_t *row_start, const int32_t *neighbour) {
    if (n_sites < 1 || n_colours < 1 || n_colours > n_sites) {
        return GLB_E_SIZE;
    }
    if (colour_start[0] != 0 || colour_start[n_colours] != n_sites || row_start[0] != 0) {
        return GLB_E_ORDER;
    }
    for (int32_t c = 0; c < n_colours; c++) {
        if (colour_start[c + 1] <= colour_start[c]) {
            return GLB_E_ORDER;
        }
    }
    for (int32_t c = 0; c < n_colours; c++) {
        for (int32_t p = colour_start[c]; p < colour_start[c + 1]; p++) {
            if (site[p] < 0 || site[p] >= n_sites) {
                return GLB_E_INDEX;
            }
            if (row_start[p + 1] < row_start[p]) {
                return GLB_E_ORDER;
            }
            for (int64_t k = row_start[p]; k < row_start[p + 1]; k++) {
                int32_t other = neighbour[k];
                if (other < 0 || other >= n_sites) {
                    return GLB_E_INDEX;
                }
                if (other == p) {
                    return GLB_E_LOOP;
                }
                if (other >= colour_start[c] && other < colour_start[c + 1]) {
                    return GLB_E_COLOUR;
                }
                if (k > row_start[p] && other <= neighbour[k - 1]) {
                    return GLB_E_ORDER;
                }
            }
        }
    }
    return GLB_OK;
}

/* Entries of row p that lie beside one of the row before. */
static int64_t entries_in_line(const glb_ising *program, int32_t p) {
    int64_t found = 0;
    int64_t other = program->row_start[p - 1];
    for (int64_t k = program->row_start[p]; k < program->row_start[p + 1]; k++) {
        while (other < program->row_start[p] && program->neighbour[other] < program->neighbour[k] - 1) {
            other++;
        }
        found += other < program->row_start[p] && program->neighbour[other] == program->neighbour[k] - 1;
    }
    return found;
}

/* Whether there are no edges and all sites are in order: seen without a branch, as layers of such sites bring new
 * programs often. */
static int is_loose_and_in_order(const glb_ising *program) {
    int32_t other = 0;
    int64_t entries = 0;
    if (program->n_sites < 1 || program->n_colours != 1 || program->n_edges != 0 || program->colour_start[0] != 0 ||
        program->colour_start[1] != program->n_sites || program->row_start[0] != 0) {
        return 0;
    }
    for (int32_t p = 0; p < program->n_sites; p++) {
        other |= (program->site[p] ^ p) | (program->position[p] ^ p);
        entries |= program->row_start[p + 1];
    }
    return other == 0 && entries == 0;
}

static int check_loose(const glb_ising *program, glb_traits *traits) {
    int32_t parities = 0; /* unlike the first's; a number and its magnitude have the same parity */
    for (int32_t p = 0; p < program->n_sites; p++) {
        parities |= (program->field[p] ^ program->field[0]) & 1;
    }
    traits->one_parity = parities == 0;
    traits->sum = glb_largest_magnitude(program->field, program->n_sites);
    return traits->sum < SUM_LIMIT ? GLB_OK : GLB_E_RANGE;
}

int glb_ising_check(const glb_ising *program, glb_traits *traits) {
    if (is_loose_and_in_order(program)) {
        *traits = (glb_traits){.one_parity = 1, .in_order = 1};
        return check_loose(program, traits);
    }
    int rc = check_graph(program->n_sites, program->n_colours, program->colour_start, program->site,
                         program->row_start, program->neighbour);
    *traits = (glb_traits){.one_parity = 1, .in_order = 1};
    if (rc != GLB_OK) {
        return rc;
    }
    for (int32_t p = 0; p < program->n_sites; p++) {
        if (program->position[program->site[p]] != p) { /* so both are permutations */
            return GLB_E_ORDER;
        }
        traits->in_order = traits->in_order && program->site[p] == p;
    }
    int64_t first_parity = -1;
    for (int32_t p = 0; p < program->n_sites; p++) {
        int64_t weights = 0;
        traits->in_line += p > 0 ? entries_in_line(program, p) : 0;
        for (int64_t k = program->row_start[p]; k < program->row_start[p + 1]; k++) {
            int64_t weight = magnitude(program->weight[k]);
            weights += weight;
            traits->max_weight = weight > traits->max_weight ? weight : traits->max_weight;
            if (weights >= SUM_LIMIT) {
                return GLB_E_RANGE;
            }
        }
        int64_t total = weights + magnitude(program->field[p]);
        if (total >= SUM_LIMIT) {
            return GLB_E_RANGE;
        }
        traits->weight_sum = weights > traits->weight_sum ? weights : traits->weight_sum;
        traits->sum = total > traits->sum ? total : traits->sum;
        first_parity = p == 0 ? total & 1 : first_parity;
        traits->one_parity = traits->one_parity && (total & 1) == first_parity;
    }
    for (int32_t four = 0; four < program->n_sites; four += 4) {
        int32_t begin;
        int32_t end;
        glb_dense_range(program, four, &begin, &end);
        traits->slots += 16 * (int64_t)(end - begin);
    }
    if (program->n_edges < 0) {
        return GLB_E_SIZE;
    }
    for (int64_t e = 0; e < 2 * program->n_edges; e++) {
        if (program->edge[e] < 0 || program->edge[e] >= program->n_sites) {
            return GLB_E_INDEX;
        }
    }
    return GLB_OK;
}

int glb_potts_check(const glb_potts *program, int64_t *sum) {
    int32_t q = program->n_states;
    int rc = check_graph(program->n_sites, program->n_colours, program->colour_start, program->site,
                         program->row_start, program->neighbour);
    *sum = 0;
    if (rc != GLB_OK) {
        return rc;
    }
    if (q < 2 || q > 65536) {
        return GLB_E_SIZE;
    }
    int64_t entries = program->row_start[program->n_sites];
    if (entries > 0 && (program->weight == NULL) == (program->table_start == NULL)) {
        return GLB_E_SIZE;
    }
    for (int32_t p = 0; p < program->n_sites; p++) {
        int64_t total = glb_largest_magnitude(program->field + (int64_t)p * q, q);
        int allows = program->allowed == NULL;
        for (int32_t k = 0; k < q && !allows; k++) {
            allows = program->allowed[(int64_t)p * q + k] != 0;
        }
        if (!allows) {
            return GLB_E_ALLOWED;
        }
        for (int64_t r = program->row_start[p]; r < program->row_start[p + 1]; r++) {
            if (program->weight != NULL) {
                total += magnitude(program->weight[r]);
            } else {
                int64_t start = program->table_start[r];
                int64_t largest = 0;
                if (start < 0 || start > program->table_size - (int64_t)q * q) {
                    return GLB_E_INDEX;
                }
                for (int64_t t = start; t < start + (int64_t)q * q; t++) {
                    int64_t value = magnitude(program->table[t]);
                    largest = value > largest ? value : largest;
                }
                total += largest;
            }
            if (total >= SUM_LIMIT) {
                return GLB_E_RANGE;
            }
        }
        if (total >= SUM_LIMIT) {
            return GLB_E_RANGE;
        }
        *sum = total > *sum ? total : *sum;
    }
    return GLB_OK;
}
