/* A board in memory for fuzzers: what is written is thrown away, time passes by one tick a look. */
#include <setjmp.h>

#include "hal.h"

static uint64_t ticks;
static uint32_t resets;

jmp_buf after_reset; /* a fuzzer goes on after a reset */

void hal_init(void) {}

size_t hal_read(uint8_t *bytes, size_t room) {
    (void)bytes;
    (void)room;
    return 0;
}

void hal_write(const uint8_t *bytes, size_t count) {
    volatile uint8_t sum = 0; /* reads every byte, so that a sanitizer sees one that is not there */
    for (size_t i = 0; i < count; i++) {
        sum = (uint8_t)(sum + bytes[i]);
    }
}

uint64_t hal_ticks(void) { return ticks++; }

uint32_t hal_ticks_per_second(void) { return 0; }

void hal_idle(void) {}

uint32_t hal_room(void) { return 32768; }

uint32_t hal_overruns(void) { return 0; }

void hal_watchdog(void) {}

_Noreturn void hal_reset(void) {
    resets++;
    longjmp(after_reset, 1);
}

uint32_t hal_boots(void) { return resets; }

uint32_t hal_watchdogs(void) { return 0; }
