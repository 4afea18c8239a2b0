/* A stand-in for a GPU: runs the kernels of csrc/cuda on the host, a thread after another, and watches them.
 *
 * A block's threads are fibers that change places at barriers; between barriers they run in ascending, descending or seeded
 * random order, and so do the blocks. Every access to memory that threads share is checked against the buffers that were
 * announced, and noted, so that two threads that touch one place in one launch, at least one of them writing, with no barrier
 * between, are found in whatever order they ran.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <stdint.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

enum { SHIM_OK = 0, SHIM_RACE = 1, SHIM_RANGE = 2, SHIM_BARRIER = 3, SHIM_NAME = 4 };
enum { STACK_BYTES = 1 << 17, MOST_THREADS = 1024, MOST_BUFFERS = 256, WHOLE = -1 };

struct buffer {
    uintptr_t begin;
    uintptr_t end;
    int shared; /* every block has its own, one after another in the same place */
};

/* Who touched a place: two different readers are as good as all of them. */
struct access {
    int64_t block;
    int32_t thread;
    int32_t phase;
};
struct place {
    uint64_t key;
    uint64_t launch;
    int n_readers;
    int written;
    struct access reader[2];
    struct access writer;
};

static struct {
    struct buffer buffer[MOST_BUFFERS];
    int n_buffers;
    int last; /* where the last access was found */
    struct place *place;
    uint64_t n_places; /* a power of two */
    uint64_t used;
    uint64_t launch;
    int error;
    char report[256];
    int64_t block;
    int64_t n_blocks;
    int32_t block_size;
    int32_t thread;
    int32_t phase;
    int64_t shared_of[16]; /* the block that each shared array was filled for */
    ucontext_t scheduler;
    ucontext_t fiber[MOST_THREADS];
    char *stack[MOST_THREADS];
    int state[MOST_THREADS];
    void (*entry)(void);
} shim;

enum { READY, WAITING, DONE };

static void fail(int error, const char *text, const void *address) {
    if (shim.error == SHIM_OK) {
        shim.error = error;
        snprintf(shim.report, sizeof shim.report, "%s at %p by thread %d of block %lld", text, address, (int)shim.thread,
                 (long long)shim.block);
    }
}

static struct place *find(uint64_t key);

static void grow(void) {
    struct place *old = shim.place;
    uint64_t n = shim.n_places;
    shim.n_places = n == 0 ? 1 << 16 : 2 * n;
    shim.place = calloc(shim.n_places, sizeof *shim.place);
    shim.used = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (old[i].launch == shim.launch) {
            *find(old[i].key) = old[i];
        }
    }
    free(old);
}

static struct place *find(uint64_t key) {
    if (2 * shim.used >= shim.n_places) {
        grow();
    }
    uint64_t i = (key * UINT64_C(0x9E3779B97F4A7C15)) >> 20;
    for (;; i++) {
        struct place *place = &shim.place[i & (shim.n_places - 1)];
        if (place->launch != shim.launch) {
            memset(place, 0, sizeof *place);
            place->launch = shim.launch;
            place->key = key;
            shim.used++;
        }
        if (place->key == key) {
            return place;
        }
    }
}

/* Whether what was done before is not ordered before what the present thread does. */
static int unordered(const struct access *before, int shared) {
    if (shared && before->block != shim.block) {
        return 0;
    }
    int same = before->block == shim.block && before->thread == shim.thread;
    return !same && !(before->block == shim.block && before->phase < shim.phase);
}

static void note(const void *address, int bit, int writes, int shared) {
    struct place *place = find((uint64_t)(uintptr_t)address * 64 + (uint64_t)(bit + 1));
    struct access now = {shim.block, shim.thread, shim.phase};
    if (place->written && unordered(&place->writer, shared)) {
        fail(SHIM_RACE, writes ? "two threads write" : "a read meets a write of another thread", address);
    }
    for (int i = 0; writes && i < place->n_readers; i++) {
        if (unordered(&place->reader[i], shared)) {
            fail(SHIM_RACE, "a write meets a read of another thread", address);
        }
    }
    if (writes) {
        place->written = 1;
        place->writer = now;
        return;
    }
    int kept = 0; /* readers that this one does not replace */
    for (int i = 0; i < place->n_readers; i++) {
        if (unordered(&place->reader[i], shared)) {
            place->reader[kept++] = place->reader[i];
        }
    }
    place->n_readers = kept < 2 ? kept + 1 : 2;
    if (kept < 2) {
        place->reader[kept] = now;
    }
}

/* The address, checked and noted; somewhere harmless where it is out of range. */
static void *touch(const void *base, int64_t index, size_t size, int writes, uint32_t bits) {
    static uint64_t nowhere[8];
    uintptr_t at = (uintptr_t)base + (uintptr_t)(index * (int64_t)size);
    int known = 0;
    int shared = 0;
    for (int i = 0; i < shim.n_buffers && !known; i++) { /* also: it lies in the buffer that its base lies in */
        int at_i = (shim.last + i) % shim.n_buffers;
        const struct buffer *buffer = &shim.buffer[at_i];
        known = at >= buffer->begin && at + size <= buffer->end && (uintptr_t)base >= buffer->begin &&
                (uintptr_t)base < buffer->end;
        shared = buffer->shared;
        shim.last = known ? at_i : shim.last;
    }
    if (!known) {
        fail(SHIM_RANGE, "an access is out of range", (void *)at);
        return nowhere;
    }
    if (bits == 0) {
        note((void *)at, WHOLE, writes, shared);
    }
    for (int bit = 0; bit < 32; bit++) {
        if ((bits >> bit) & 1u) {
            note((void *)at, bit, writes, shared);
        }
    }
    return (void *)at;
}

static void barrier(void) __attribute__((unused));

/* The kernels' words. */
#define GLB_SHIM
#define GLB_KERNEL(name) static void name(const glb_gpu_job job, const uint64_t first, const uint64_t second)
#define GLB_UNROLL
#define GLB_BLOCK (shim.block)
#define GLB_N_BLOCKS (shim.n_blocks)
#define GLB_IN_BLOCK (shim.thread)
#define GLB_BLOCK_SIZE (shim.block_size)
#define GLB_GET(array, i) (*(const __typeof__(*(array)) *)touch((array), (i), sizeof *(array), 0, 0))
#define GLB_PUT(array, i, value)                                                                                       \
    do {                                                                                                               \
        __typeof__(*(array)) put_value = (value);                                                                      \
        *(__typeof__(*(array)) *)touch((array), (i), sizeof *(array), 1, 0) = put_value;                               \
    } while (0)
#define GLB_GET_BITS(array, i, bits) (*(const uint32_t *)touch((array), (i), 4, 0, (bits)) & (bits))
#define GLB_PUT_BITS(array, i, bits, value)                                                                            \
    do {                                                                                                               \
        uint32_t put_bits = (bits);                                                                                    \
        uint32_t *put_at = touch((array), (i), 4, 1, put_bits);                                                        \
        *put_at = (*put_at & ~put_bits) | ((value) & put_bits);                                                        \
    } while (0)
/* Memory of a block, full of rubbish when the block begins. */
#define GLB_SHARED(type, name, size)                                                                                   \
    static type name[size];                                                                                            \
    static int name##_slot = -1;                                                                                       \
    share(name, sizeof name, &name##_slot)
#if defined(SHIM_WITHOUT_BARRIERS) /* a planted fault */
#define GLB_BARRIER() ((void)0)
#else
#define GLB_BARRIER() barrier()
#endif

static void announce(const void *begin, size_t size, int shared) {
    if (shim.n_buffers == MOST_BUFFERS) {
        abort();
    }
    shim.buffer[shim.n_buffers++] = (struct buffer){(uintptr_t)begin, (uintptr_t)begin + size, shared};
}

static void share(void *array, size_t size, int *slot) {
    static int n_slots = 0;
    if (*slot < 0) {
        *slot = n_slots++;
        announce(array, size, 1);
        shim.shared_of[*slot] = -1;
    }
    if (shim.shared_of[*slot] != shim.block + ((int64_t)shim.launch << 32)) {
        shim.shared_of[*slot] = shim.block + ((int64_t)shim.launch << 32);
        memset(array, 0xA5, size);
    }
}

#include "../cuda/glauber.cu"

#if defined(SHIM_PLANT_DIVERGENCE) /* a planted fault */
GLB_KERNEL(planted_divergence) {
    (void)job;
    (void)first;
    (void)second;
    if (GLB_IN_BLOCK % 2 == 0) {
        GLB_BARRIER();
    }
}
#endif

typedef void (*kernel)(const glb_gpu_job job, const uint64_t first, const uint64_t second);

static const struct {
    const char *name;
    kernel run;
} kernels[] = {
#if defined(SHIM_PLANT_DIVERGENCE)
               {"planted_divergence", planted_divergence},
#endif
               {"glb_bits3_colour", glb_bits3_colour},     {"glb_bits3_sweeps", glb_bits3_sweeps},
               {"glb_bits4_colour", glb_bits4_colour},     {"glb_bits4_sweeps", glb_bits4_sweeps},
               {"glb_bits5_colour", glb_bits5_colour},     {"glb_bits5_sweeps", glb_bits5_sweeps},
               {"glb_fields1_colour", glb_fields1_colour}, {"glb_fields1_sweeps", glb_fields1_sweeps},
               {"glb_fields2_colour", glb_fields2_colour}, {"glb_fields2_sweeps", glb_fields2_sweeps},
               {"glb_fields4_colour", glb_fields4_colour}, {"glb_fields4_sweeps", glb_fields4_sweeps},
               {"glb_thresholds", glb_thresholds},         {"glb_sites_colour", glb_sites_colour},
               {"glb_sites_sweeps", glb_sites_sweeps},     {"glb_dense_sweeps", glb_dense_sweeps},
               {"glb_dense_bytes", glb_dense_bytes},       {"glb_potts_colour", glb_potts_colour},
               {"glb_potts_sweeps", glb_potts_sweeps},     {"glb_potts_start", glb_potts_start},
               {"glb_potts_sample", glb_potts_sample},     {"glb_potts_sums", glb_potts_sums},
               {"glb_start", glb_start},                   {"glb_sample", glb_sample},
               {"glb_sums", glb_sums},                     {"glb_tick", glb_tick}};

static struct {
    kernel run;
    const glb_gpu_job *job;
    uint64_t first;
    uint64_t second;
} call;

#if defined(__SANITIZE_ADDRESS__)
static const void *scheduler_stack;
static size_t scheduler_size;
#endif

static void to_fiber(int thread) {
#if defined(__SANITIZE_ADDRESS__)
    void *fake;
    __sanitizer_start_switch_fiber(&fake, shim.stack[thread], STACK_BYTES);
#endif
    swapcontext(&shim.scheduler, &shim.fiber[thread]);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, NULL, NULL);
#endif
}

static void barrier(void) {
    int32_t thread = shim.thread;
    shim.state[thread] = WAITING;
#if defined(__SANITIZE_ADDRESS__)
    void *fake;
    __sanitizer_start_switch_fiber(&fake, scheduler_stack, scheduler_size);
#endif
    swapcontext(&shim.fiber[thread], &shim.scheduler);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, NULL, NULL);
#endif
    shim.thread = thread;
}

static void fiber(void) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(NULL, &scheduler_stack, &scheduler_size);
#endif
    int32_t thread = shim.thread;
    call.run(*call.job, call.first, call.second);
    shim.state[thread] = DONE;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(NULL, scheduler_stack, scheduler_size);
#endif
    swapcontext(&shim.fiber[thread], &shim.scheduler); /* never comes back */
}

/* 0 ascending, 1 descending, 2 random. */
static void arrange(int64_t *order, int64_t n, int how, uint64_t *seed) {
    for (int64_t i = 0; i < n; i++) {
        order[i] = how == 1 ? n - 1 - i : i;
    }
    for (int64_t i = n - 1; how == 2 && i > 0; i--) {
        *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        int64_t j = (int64_t)((*seed >> 33) % (uint64_t)(i + 1));
        int64_t other = order[i];
        order[i] = order[j];
        order[j] = other;
    }
}

static void run_block(int how, uint64_t *seed) {
    int64_t order[MOST_THREADS];
    int waiting;
    for (int32_t t = 0; t < shim.block_size; t++) {
        if (shim.stack[t] == NULL) {
            shim.stack[t] = malloc(STACK_BYTES);
        }
        getcontext(&shim.fiber[t]);
        shim.fiber[t].uc_stack.ss_sp = shim.stack[t];
        shim.fiber[t].uc_stack.ss_size = STACK_BYTES;
        shim.fiber[t].uc_link = NULL;
        makecontext(&shim.fiber[t], fiber, 0);
        shim.state[t] = READY;
    }
    shim.phase = 0;
    do {
        int done = 0;
        waiting = 0;
        arrange(order, shim.block_size, how, seed);
        for (int32_t i = 0; i < shim.block_size; i++) {
            if (shim.state[order[i]] != DONE) {
                shim.thread = (int32_t)order[i];
                to_fiber(shim.thread);
            }
        }
        for (int32_t t = 0; t < shim.block_size; t++) {
            waiting += shim.state[t] == WAITING;
            done += shim.state[t] == DONE;
        }
        if (waiting > 0 && done > 0) {
            fail(SHIM_BARRIER, "a barrier that some threads never reach", NULL);
            return;
        }
        shim.phase++;
    } while (waiting > 0 && shim.error == SHIM_OK);
}

/* What tests call, by ctypes. */
int shim_launch(const char *name, int64_t n_blocks, int32_t block_size, const void *job, uint64_t first, uint64_t second,
                int how, uint64_t seed);
void shim_announce(const void *begin, uint64_t size);
void shim_forget(const void *begin);
const char *shim_report(void);
uint64_t shim_job_bytes(void);

int shim_launch(const char *name, int64_t n_blocks, int32_t block_size, const void *job, uint64_t first, uint64_t second,
                int how, uint64_t seed) {
    int64_t *order = malloc(sizeof *order * (size_t)n_blocks);
    call.run = NULL;
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
        call.run = strcmp(name, kernels[i].name) == 0 ? kernels[i].run : call.run;
    }
    if (call.run == NULL || block_size > MOST_THREADS) {
        free(order);
        return SHIM_NAME;
    }
    call.job = job;
    call.first = first;
    call.second = second;
    shim.error = SHIM_OK;
    shim.report[0] = 0;
    shim.launch++;
    shim.used = 0;
    shim.n_blocks = n_blocks;
    shim.block_size = block_size;
    arrange(order, n_blocks, how, &seed);
    for (int64_t i = 0; i < n_blocks && shim.error == SHIM_OK; i++) {
        shim.block = order[i];
        run_block(how, &seed);
    }
    free(order);
    return shim.error;
}

void shim_announce(const void *begin, uint64_t size) { announce(begin, size, 0); }

void shim_forget(const void *begin) {
    for (int i = 0; i < shim.n_buffers; i++) {
        if (shim.buffer[i].begin == (uintptr_t)begin) {
            shim.buffer[i] = shim.buffer[--shim.n_buffers];
            return;
        }
    }
}

const char *shim_report(void) { return shim.report; }

uint64_t shim_job_bytes(void) { return sizeof(glb_gpu_job); }
