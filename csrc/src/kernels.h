/* All kernels of one instruction set: included by isa_*.c with GLB_KERNELS and GLB_VECTOR_BYTES defined. */
#include "dits.h"
#include "ising.h"
#include "simd.h"
#include "state.h"

#include "decide.h"
#include "kernel_bits.h"
#include "kernel_exp2.h"

#include "kernel_dits.h"
#include "kernel_energies.h"
#include "kernel_events.h"
#include "kernel_exact.h"

#include "kernel_chip.h"
#include "kernel_incremental.h"
#include "kernel_independent.h"
#include "kernel_lanes.h"
#include "kernel_lattice.h"
#include "kernel_moments.h"
#include "kernel_sites.h"
#include "kernel_thresholds.h"
#if GLB_VECTOR_BYTES > 4
#include "kernel_potts.h"
#endif
#if defined(GLB_AVX512) || defined(GLB_AVX2)
#include "kernel_potts_bytes.h"
#endif
#include "units.h"
#if defined(GLB_AVX512ICL)
#include "wide.h"
#include "wide_fields.h"

#include "kernel_dense.h"
#include "kernel_diagonals.h"
#include "kernel_fresh.h"
#include "kernel_wide.h"
#elif defined(GLB_AVX512) || defined(GLB_AVX2)
#include "wide_avx2.h"
#include "wide_fields_avx2.h"

#include "kernel_wide.h"
#endif
#if !defined(GLB_AVX512) && !defined(GLB_AVX2)
#include "wide_plain.h"
#endif
#if !defined(GLB_AVX512ICL)
#include "kernel_dense_plain.h"
#endif

const glb_kernels GLB_KERNELS = {.vector_words = V,
                                 .first_plane = first_plane,
                                 .exact = exact_kernel,
                                 .bits = bits_kernel,
                                 .chip = chip_kernel,
                                 .dit_sums = dit_sums,
                                 .dit_find = dit_find,
                                 .dit_words = dit_words,
                                 .independent = independent_kernel,
                                 .energies = energies_of_word,
                                 .lattice = lattice_kernel,
                                 .incremental = incremental_kernel,
                                 .incremental_start = incremental_start,
                                 .thresholds = thresholds,
                                 .planes_of = planes_of,
                                 .largest_magnitude = largest_magnitude,
                                 .turn = turn,
                                 .add_products = add_products,
                                 .event_words = event_words,
                                 .lanes = lanes_kernel,
                                 .permute_lanes = permute_lanes,
#if GLB_VECTOR_BYTES > 4
                                 .potts = potts_kernel,
#endif
#if defined(GLB_AVX512) || defined(GLB_AVX2)
                                 .potts_bytes = potts_bytes_kernel,
#endif
#if defined(GLB_AVX512) || defined(GLB_AVX2)
                                 .bytes = bytes_kernel,
                                 .filter = filter_kernel,
#endif
#if defined(GLB_AVX512ICL)
                                 .dense = dense_kernel,
                                 .diagonals = diagonals_kernel,
                                 .fresh = fresh_kernel,
#elif defined(GLB_DENSE_PLAIN)
                                 .dense = plain_dense_kernel,
#endif
                                 .sites = sites_kernel};
