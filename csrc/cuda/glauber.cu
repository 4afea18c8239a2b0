/* All kernels as one module. NVRTC and nvcc compile this file; so does, as C, the tests' stand-in for a GPU. */
#include "bits.h"
#include "dense.h"
#include "fields.h"
#include "observe.h"
#include "potts.h"
#include "sites.h"
