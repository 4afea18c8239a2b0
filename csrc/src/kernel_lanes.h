/* Sixty-four searches at once, site by site: the field of each lane, an uphill step for each, and who flips.
 *
 * A lane flips where s f <= t, t = (x pace) >> shift, and x an exponential variate in 16ths of an octave: the trailing
 * zeros of eight random bits are its whole part, four more bits its fraction. So P(t >= g) is exp(-2 beta g), Metropolis'
 * rule, for any weights and a temperature per lane. Eight sites share twelve rows of 64 random bytes, one a lane: row i
 * is word i % 4 of the counters (site / 8, sweep, 16 (i / 4) + 0 .. 15, 0). Site k of the eight has its whole part from
 * row k and its fraction from a half of row 8 + k / 2.
 */

enum { EIGHT = 8, RANDOM_ROWS = 12, MOST_STEP = INT16_MAX };

/* Rounded 16 (-log2(1 - (k + 1/2) / 32)): the middle of each sixteenth of what is exponential within an octave. */
#define GLB_FRACTIONS 0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15

#if defined(GLB_AVX512ICL)
#include "kernel_lanes_icl.h"
#elif defined(GLB_AVX2) || defined(GLB_AVX512)
#include "kernel_lanes_avx2.h"
#else
#include "kernel_lanes_plain.h"
#endif

#include "kernel_lanes_dense.h"

static void lanes_kernel(glb_lanes *lanes, int width) {
    int dense = glb_lanes_are_dense(lanes->graph, width);
    if (width == 1) {
        lanes_of_width(lanes, 1);
    } else if (width == 2) {
        dense ? dense_lanes_of_width(lanes, 2) : lanes_of_width(lanes, 2);
    } else {
        dense ? dense_lanes_of_width(lanes, 4) : lanes_of_width(lanes, 4);
    }
}

/* Lane l of every word becomes what lane source[l] was. */
static void permute_lanes(uint64_t *spins, int32_t n, const uint8_t source[64]) {
#if defined(GLB_AVX512ICL)
    __m512i index = _mm512_loadu_si512(source);
    for (int32_t i = 0; i < n; i++) {
        spins[i] = _mm512_bitshuffle_epi64_mask(_mm512_set1_epi64((long long)spins[i]), index);
    }
#else
    for (int32_t i = 0; i < n; i++) {
        uint64_t word = 0;
        for (int l = 0; l < 64; l++) {
            word |= ((spins[i] >> source[l]) & 1) << l;
        }
        spins[i] = word;
    }
#endif
}
