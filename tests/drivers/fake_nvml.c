/* A libnvidia-ml.so.1 whose GPU has a known power P(t), t of CLOCK_MONOTONIC, so that joules can be compared with the
 * truth. nvmlInit reads the settings from environment variables FAKE_NVML_*, so one process can have many GPUs in turn:
 *
 *   PERIOD     s between updates of counter and power           0.1
 *   COUNTER    whether there is an energy counter               1
 *   POWER      whether there is a power reading                 1
 *   STUCK      the counter does not move                        0
 *   BASE       W that are always there                          50
 *   SWING      W of a sine of SWING_HZ                          0
 *   NOISE      W +- at random, new every SLOT s                 0
 *   GAIN       factor of both readings                          1
 *   SEEN       share of each period that the sensor looks at    1
 *   AVERAGING  s over which a power reading is the mean         0
 *   INIT_ERROR, READ_ERROR  what nvmlInit and the readings return              0
 *   GPUS       how many                                         1
 *   CAPABILITY compute capability times ten; 0: unsupported     70
 */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK, UNINITIALIZED, INVALID, UNSUPPORTED, NOT_FOUND = 6, LOST = 15, MAX_STEPS = 100000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int users, has_counter, has_power, stuck, gpus, capability, read_error, gpu[8];
static double period, base, swing, swing_hz, noise, slot, seen, averaging, lost_at, back_at;
static double gain, epoch, counted, counted_to; /* joules in the counter, and up to which time */
static struct { double t, watts; } steps[MAX_STEPS]; /* the load from each time on */
static int n_steps;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double setting(const char *name, double otherwise)
{
    char full[64];
    snprintf(full, sizeof full, "FAKE_NVML_%s", name);
    const char *text = getenv(full);
    return text ? atof(text) : otherwise;
}

static double uniform(int64_t k) /* -1 to 1, the same for the same k: splitmix64 */
{
    uint64_t z = (uint64_t)k * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)(z ^ z >> 31) / 9223372036854775808.0 - 1;
}

static double joules(double a, double b) /* the integral of P from a to b */
{
    const double w = 6.283185307179586 * swing_hz;
    double sum = base * (b - a);
    if (swing > 0)
        sum += swing * (cos(w * a) - cos(w * b)) / w;
    if (noise > 0)
        for (int64_t k = (int64_t)floor(a / slot); (double)k * slot < b; k++)
            sum += noise * uniform(k) * (fmin(b, (double)(k + 1) * slot) - fmax(a, (double)k * slot));
    for (int i = n_steps - 1; i >= 0; i--) {
        const double end = i + 1 < n_steps ? steps[i + 1].t : INFINITY;
        if (end <= a)
            break;
        sum += steps[i].watts * fmax(0, fmin(b, end) - fmax(a, steps[i].t));
    }
    return sum;
}

static void count(double t) /* bring the counter to its last update before t */
{
    while (counted_to + period <= t) {
        const double from = counted_to + (1 - seen) * period;
        counted += gain * joules(from, counted_to + period) / seen;
        counted_to += period;
    }
}

/* What the tests turn and ask */

void fake_load(double watts)
{
    pthread_mutex_lock(&lock);
    if (n_steps < MAX_STEPS) {
        steps[n_steps].t = now();
        steps[n_steps++].watts = watts;
    }
    pthread_mutex_unlock(&lock);
}

void fake_gain(double factor)
{
    pthread_mutex_lock(&lock);
    count(now());
    gain = factor;
    pthread_mutex_unlock(&lock);
}

double fake_joules(double a, double b)
{
    pthread_mutex_lock(&lock);
    const double sum = joules(a, b);
    pthread_mutex_unlock(&lock);
    return sum;
}

void fake_break(double lost, double back) /* s from now until the GPU is lost, the counter begins anew; 0: never */
{
    pthread_mutex_lock(&lock);
    lost_at = lost > 0 ? now() + lost : INFINITY;
    back_at = back > 0 ? now() + back : INFINITY;
    pthread_mutex_unlock(&lock);
}

int fake_users(void) /* calls of nvmlInit without their nvmlShutdown */
{
    return users;
}

/* What pynvml calls */

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    const int error = (int)setting("INIT_ERROR", 0);
    if (error)
        return error;
    pthread_mutex_lock(&lock);
    users++;
    period = setting("PERIOD", 0.1);
    has_counter = (int)setting("COUNTER", 1);
    has_power = (int)setting("POWER", 1);
    stuck = (int)setting("STUCK", 0);
    base = setting("BASE", 50);
    swing = setting("SWING", 0);
    swing_hz = setting("SWING_HZ", 1);
    noise = setting("NOISE", 0);
    slot = setting("SLOT", 0.001);
    gain = setting("GAIN", 1);
    seen = setting("SEEN", 1);
    averaging = setting("AVERAGING", 0);
    lost_at = back_at = INFINITY;
    read_error = (int)setting("READ_ERROR", 0);
    gpus = (int)setting("GPUS", 1);
    capability = (int)setting("CAPABILITY", 70);
    epoch = now();
    counted_to = epoch;
    counted = 1000;
    n_steps = 0;
    pthread_mutex_unlock(&lock);
    return OK;
}

int nvmlShutdown(void)
{
    if (users == 0)
        return UNINITIALIZED;
    users--;
    return OK;
}

const char *nvmlErrorString(int code)
{
    return code == LOST ? "GPU is lost" : "fake error";
}

int nvmlDeviceGetCount_v2(unsigned *count_of)
{
    *count_of = (unsigned)gpus;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
    if (index >= (unsigned)gpus)
        return INVALID;
    *device = &gpu[index];
    return OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device)
{
    if (strncmp(uuid, "GPU-fake-", 9) || atoi(uuid + 9) >= gpus)
        return NOT_FOUND;
    *device = &gpu[atoi(uuid + 9)];
    return OK;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device)
{
    if (strcmp(bus, "0000:01:00.0"))
        return NOT_FOUND;
    *device = &gpu[0];
    return OK;
}

int nvmlDeviceGetName(void *device, char *name, unsigned length)
{
    (void)device;
    snprintf(name, length, "Fake GPU");
    return OK;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length)
{
    snprintf(uuid, length, "GPU-fake-%d", (int)((int *)device - gpu));
    return OK;
}

int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor)
{
    (void)device;
    *major = capability / 10;
    *minor = capability % 10;
    return capability ? OK : UNSUPPORTED;
}

static int failing(double t)
{
    if (users == 0)
        return UNINITIALIZED;
    if (t > lost_at)
        return LOST;
    return read_error;
}

int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules)
{
    (void)device;
    if (!has_counter)
        return UNSUPPORTED;
    pthread_mutex_lock(&lock);
    const double t = now();
    const int error = failing(t);
    if (!stuck)
        count(t);
    if (t > back_at) {
        counted = 0;
        back_at = INFINITY;
    }
    *millijoules = (unsigned long long)(1000 * counted);
    pthread_mutex_unlock(&lock);
    return error;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts)
{
    (void)device;
    if (!has_power)
        return UNSUPPORTED;
    pthread_mutex_lock(&lock);
    const double t = now(), at = epoch + period * floor((t - epoch) / period);
    const double over = averaging > 0 ? averaging : 1e-6;
    const int error = failing(t);
    *milliwatts = (unsigned)(1000 * gain * joules(at - over, at) / over);
    pthread_mutex_unlock(&lock);
    return error;
}
