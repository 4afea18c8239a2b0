/* Exact reductions of a graph before it is searched.
 *
 * - A site of degree 0 may point anywhere.
 * - A site with |w| >= half of its sum of weights to one neighbour follows it: sign(w) s. Its other edges go over to
 *   that neighbour. This takes out all sites of degree 1 and 2.
 * - A site of degree 3 whose weights are no such case, |w1 s1 + w2 s2 + w3 s3| at its best, is a constant and a
 *   triangle of couplings (w1 + w2 - w3) / 2 and so on, up to signs.
 *
 * Where the sums of all sites are even, they stay so, and every half is a whole number.
 */
#include <string.h>

#include "solve.h"

enum { NONE = -1 };

/* Half-edges 2k and 2k + 1 are the two directions of edge k, each in the list of the site it leaves. */
struct half {
    int32_t to;
    int32_t weight;
    int32_t next;
    int32_t before;
};

/* Sites to look at, each at most once. */
struct queue {
    int32_t *site;
    int32_t size;
    int32_t first;
    int32_t count;
};

struct reduction {
    struct half *half;
    int32_t *head;
    int32_t *degree;
    int64_t *sum; /* of |weight| */
    uint8_t *state; /* bit 0: waits in a queue; bit 1: taken out */
    struct queue simple;
    struct queue triangles;
    glb_presolved *result;
    int32_t pinned;
};

enum { WAITING = 1, GONE = 2 };

static int32_t magnitude(int32_t w) { return w < 0 ? -w : w; }
static int32_t sign(int32_t w) { return w < 0 ? -1 : 1; }

static void put(struct queue *queue, int32_t site) {
    queue->site[(queue->first + queue->count) % queue->size] = site;
    queue->count++;
}

static int32_t take(struct queue *queue) {
    int32_t site = queue->site[queue->first];
    queue->first = (queue->first + 1) % queue->size;
    queue->count--;
    return site;
}

static void look_at(struct reduction *r, int32_t site) {
    if (r->state[site] == 0 && site != r->pinned) {
        r->state[site] = WAITING;
        put(&r->simple, site);
    }
}

static void link_half(struct reduction *r, int32_t e, int32_t from, int32_t to, int32_t weight) {
    r->half[e] = (struct half){.to = to, .weight = weight, .next = r->head[from], .before = NONE};
    if (r->head[from] != NONE) {
        r->half[r->head[from]].before = e;
    }
    r->head[from] = e;
    r->degree[from]++;
    r->sum[from] += magnitude(weight);
}

static void unlink_half(struct reduction *r, int32_t e) {
    const struct half *half = &r->half[e];
    int32_t from = r->half[e ^ 1].to;
    if (half->before == NONE) {
        r->head[from] = half->next;
    } else {
        r->half[half->before].next = half->next;
    }
    if (half->next != NONE) {
        r->half[half->next].before = half->before;
    }
    r->degree[from]--;
    r->sum[from] -= magnitude(half->weight);
}

static void unlink_edge(struct reduction *r, int32_t e) {
    unlink_half(r, e);
    unlink_half(r, e ^ 1);
}

/* Adds a coupling between two sites. `spare` is the number of an edge that is out of use, for where there is none yet. */
static void couple(struct reduction *r, int32_t a, int32_t b, int32_t weight, int32_t spare) {
    int32_t from = r->degree[a] <= r->degree[b] ? a : b;
    int32_t to = from == a ? b : a;
    int32_t e = r->head[from];
    while (e != NONE && r->half[e].to != to) {
        e = r->half[e].next;
    }
    if (e != NONE) {
        spare = e & ~1;
        weight += r->half[e].weight;
        unlink_edge(r, spare);
    }
    if (weight != 0) {
        link_half(r, spare, a, b, weight);
        link_half(r, spare ^ 1, b, a, weight);
    }
    look_at(r, a);
    look_at(r, b);
}

static glb_removal *remove_site(struct reduction *r, int32_t site) {
    glb_removal *removal = &r->result->removal[r->result->n_removals++];
    *removal = (glb_removal){.site = site, .from = {NONE, NONE, NONE}};
    r->state[site] |= GONE;
    return removal;
}

static void follow(struct reduction *r, int32_t site, int32_t strongest) {
    int32_t leader = r->half[strongest].to;
    int32_t direction = sign(r->half[strongest].weight);
    glb_removal *removal = remove_site(r, site);
    removal->from[0] = leader;
    removal->weight[0] = direction;
    unlink_edge(r, strongest);
    while (r->head[site] != NONE) {
        int32_t e = r->head[site];
        int32_t other = r->half[e].to;
        int32_t weight = direction * r->half[e].weight;
        unlink_edge(r, e);
        couple(r, leader, other, weight, e & ~1);
    }
    look_at(r, leader);
}

static void make_triangle(struct reduction *r, int32_t site) {
    glb_removal *removal = remove_site(r, site);
    int32_t spare[3];
    int32_t size[3];
    for (int k = 0; k < 3; k++) {
        int32_t e = r->head[site];
        removal->from[k] = r->half[e].to;
        removal->weight[k] = r->half[e].weight;
        size[k] = magnitude(r->half[e].weight);
        spare[k] = e & ~1;
        unlink_edge(r, e);
    }
    for (int k = 0; k < 3; k++) {
        int i = (k + 1) % 3;
        int j = (k + 2) % 3;
        int32_t weight = (size[i] + size[j] - size[k]) / 2 * sign(removal->weight[i]) * sign(removal->weight[j]);
        couple(r, removal->from[i], removal->from[j], weight, spare[k]);
    }
}

/* Takes the site out if it is a simple case; else leaves it to the triangles if it may be one. */
static void try_simple(struct reduction *r, int32_t site) {
    r->state[site] = 0;
    if (r->degree[site] == 0) {
        remove_site(r, site);
        return;
    }
    int32_t strongest = r->head[site];
    for (int32_t e = strongest; e != NONE; e = r->half[e].next) {
        strongest = magnitude(r->half[e].weight) > magnitude(r->half[strongest].weight) ? e : strongest;
    }
    if (magnitude(r->half[strongest].weight) >= r->sum[site] - magnitude(r->half[strongest].weight)) {
        follow(r, site, strongest);
    } else if (r->degree[site] == 3 && r->sum[site] % 2 == 0) {
        r->state[site] = WAITING;
        put(&r->triangles, site);
    }
}

static void reduce(struct reduction *r) {
    while (r->simple.count > 0 || r->triangles.count > 0) {
        if (r->simple.count > 0) {
            int32_t site = take(&r->simple);
            if (!(r->state[site] & GONE)) {
                try_simple(r, site);
            }
            continue;
        }
        int32_t site = take(&r->triangles);
        if (r->state[site] & GONE) {
            continue;
        }
        r->state[site] = 0;
        int32_t largest = 0;
        for (int32_t e = r->head[site]; e != NONE; e = r->half[e].next) {
            largest = magnitude(r->half[e].weight) > largest ? magnitude(r->half[e].weight) : largest;
        }
        if (r->degree[site] == 3 && r->sum[site] % 2 == 0 && 2 * largest < r->sum[site]) {
            make_triangle(r, site);
        } else {
            look_at(r, site); /* changed while it waited */
        }
    }
}

/* The smallest colour that no neighbour has; sites in ascending order. `stamp` is n zeros. */
static void colour_sites(const struct reduction *r, int32_t n, int32_t *colour, int32_t *stamp) {
    for (int32_t i = 0; i < n; i++) {
        int32_t free = 0;
        if (r->state[i] & GONE || i == r->pinned) {
            continue;
        }
        for (int32_t e = r->head[i]; e != NONE; e = r->half[e].next) {
            int32_t to = r->half[e].to;
            if (to < i && to != r->pinned) {
                stamp[colour[to]] = i + 1;
            }
        }
        while (stamp[free] == i + 1) {
            free++;
        }
        colour[i] = free;
    }
}

/* The sites of the component of `root`, from kept[begin] on; returns their end. */
static int32_t collect(struct reduction *r, int32_t root, int32_t begin, int32_t *kept, uint8_t *seen) {
    int32_t end = begin;
    kept[end++] = root;
    seen[root] = 1;
    for (int32_t k = begin; k < end; k++) {
        for (int32_t e = r->head[kept[k]]; e != NONE; e = r->half[e].next) {
            int32_t to = r->half[e].to;
            if (!seen[to] && to != r->pinned) {
                seen[to] = 1;
                kept[end++] = to;
            }
        }
    }
    return end;
}

/* Sorts kept[begin .. end - 1] by colour, keeping the order within. */
static void sort_by_colour(int32_t *kept, int32_t begin, int32_t end, const int32_t *colour, int32_t *count,
                           int32_t *sorted) {
    int32_t n_colours = 0;
    for (int32_t k = begin; k < end; k++) {
        n_colours = colour[kept[k]] >= n_colours ? colour[kept[k]] + 1 : n_colours;
    }
    memset(count, 0, sizeof(int32_t) * ((size_t)n_colours + 1));
    for (int32_t k = begin; k < end; k++) {
        count[colour[kept[k]] + 1]++;
    }
    for (int32_t c = 0; c < n_colours; c++) {
        count[c + 1] += count[c];
    }
    for (int32_t k = begin; k < end; k++) {
        sorted[count[colour[kept[k]]]++] = kept[k];
    }
    memcpy(kept + begin, sorted, sizeof(int32_t) * (size_t)(end - begin));
}

/* What is left, in the result's arrays. `colour`, `count` and `place` are n + 1 numbers each. */
static void write_kernel(struct reduction *r, int32_t n, int32_t *colour, int32_t *count, int32_t *place, uint8_t *seen) {
    glb_presolved *result = r->result;
    int64_t entries = 0;
    memset(count, 0, sizeof(int32_t) * ((size_t)n + 1));
    memset(seen, 0, (size_t)n);
    colour_sites(r, n, colour, count);
    for (int32_t root = 0; root < n; root++) {
        int32_t begin = result->n_kept;
        if (r->state[root] & GONE || root == r->pinned || seen[root]) {
            continue;
        }
        result->component_start[result->n_components++] = begin;
        result->n_kept = collect(r, root, begin, result->kept, seen);
        sort_by_colour(result->kept, begin, result->n_kept, colour, count, place);
    }
    result->component_start[result->n_components] = result->n_kept;
    for (int32_t c = 0; c < result->n_components; c++) {
        int32_t begin = result->component_start[c];
        for (int32_t k = begin; k < result->component_start[c + 1]; k++) {
            place[result->kept[k]] = k - begin;
        }
    }
    result->row_start[0] = 0;
    for (int32_t k = 0; k < result->n_kept; k++) {
        result->field[k] = 0;
        for (int32_t e = r->head[result->kept[k]]; e != NONE; e = r->half[e].next) {
            if (r->half[e].to == r->pinned) {
                result->field[k] = r->half[e].weight;
                continue;
            }
            result->neighbour[entries] = place[r->half[e].to];
            result->weight[entries] = r->half[e].weight;
            entries++;
        }
        result->row_start[k + 1] = entries;
    }
}

int64_t glb_presolve_bytes(const glb_graph *graph) {
    int64_t n = graph->n_sites;
    return graph->row_start[n] * (int64_t)sizeof(struct half) + 9 * (n + 1) * (int64_t)sizeof(int32_t) + 2 * (n + 1);
}

int glb_presolve(const glb_graph *graph, int32_t pinned, uint8_t *scratch, glb_presolved *result) {
    int32_t n = graph->n_sites;
    int rc = glb_check_sums(graph, pinned);
    if (rc != GLB_OK) {
        return rc;
    }
    if (graph->field != NULL || pinned < NONE || pinned >= n) {
        return GLB_E_INDEX;
    }
    int64_t *sums = (int64_t *)(void *)(scratch + graph->row_start[n] * (int64_t)sizeof(struct half));
    int32_t *numbers = (int32_t *)(sums + n + 1);
    struct reduction r = {.half = (void *)scratch, .sum = sums, .head = numbers, .degree = numbers + n + 1,
                          .simple = {numbers + 2 * (n + 1), n, 0, 0}, .triangles = {numbers + 3 * (n + 1), n, 0, 0},
                          .state = (uint8_t *)(numbers + 7 * (n + 1)), .result = result, .pinned = pinned};
    result->n_removals = result->n_kept = result->n_components = 0;
    for (int32_t i = 0; i < n; i++) {
        r.head[i] = NONE;
        r.degree[i] = 0;
        r.sum[i] = 0;
        r.state[i] = 0;
    }
    int32_t edge = 0;
    for (int32_t i = 0; i < n; i++) {
        for (int64_t k = graph->row_start[i]; k < graph->row_start[i + 1]; k++) {
            if (graph->neighbour[k] > i && graph->weight[k] != 0) {
                link_half(&r, 2 * edge, i, graph->neighbour[k], graph->weight[k]);
                link_half(&r, 2 * edge + 1, graph->neighbour[k], i, graph->weight[k]);
                edge++;
            }
        }
    }
    for (int32_t i = 0; i < n; i++) {
        look_at(&r, i);
    }
    reduce(&r);
    write_kernel(&r, n, numbers + 4 * (n + 1), numbers + 5 * (n + 1), numbers + 6 * (n + 1), r.state + n + 1);
    return GLB_OK;
}

int glb_presolve_undo(const glb_presolved *result, int8_t *spins) {
    for (int32_t k = result->n_removals - 1; k >= 0; k--) {
        const glb_removal *removal = &result->removal[k];
        int64_t sum = 0;
        for (int i = 0; i < 3 && removal->from[i] != NONE; i++) {
            sum += (int64_t)removal->weight[i] * spins[removal->from[i]];
        }
        spins[removal->site] = sum < 0 ? -1 : 1;
    }
    return GLB_OK;
}
