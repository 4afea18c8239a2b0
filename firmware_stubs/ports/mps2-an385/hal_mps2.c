/* mps2-an385, a Cortex-M3 with a CMSDK UART: what QEMU emulates. Bytes come by interrupt into a ring; SysTick keeps time
 * and is the watchdog. */
#include <stdint.h>

#include "hal.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define UART_DATA REGISTER(0x40004000u)
#define UART_STATE REGISTER(0x40004004u) /* bit 0: transmitter full, bit 1: receiver full, bit 3: receiver overrun */
#define UART_CONTROL REGISTER(0x40004008u)
#define UART_CLEAR REGISTER(0x4000400Cu)
#define UART_DIVIDER REGISTER(0x40004010u)
#define SYSTICK_CONTROL REGISTER(0xE000E010u)
#define SYSTICK_RELOAD REGISTER(0xE000E014u)
#define SYSTICK_VALUE REGISTER(0xE000E018u)
#define ENABLE_INTERRUPTS REGISTER(0xE000E100u)
#define RESET_CONTROL REGISTER(0xE000ED0Cu)

enum { RING = 16384, CLOCK_HZ = 25000000, TICKS_HZ = 1000, WATCHDOG_TICKS = 1000 };

static uint8_t ring[RING];
static volatile uint32_t ring_in;
static volatile uint32_t ring_out;
static volatile uint64_t ticks;
static volatile uint32_t fed; /* ticks until the watchdog bites */

/* Start-up code leaves these alone, so that they survive a reset. */
static struct {
    uint32_t magic;
    uint32_t boots;
    uint32_t watchdogs;
    uint32_t overruns;
} kept __attribute__((section(".noinit")));

void uart_receive(void);
void systick(void);

void uart_receive(void) {
    UART_CLEAR = 2; /* before draining: a byte that comes in between must raise the interrupt again */
    while (UART_STATE & 2u) {
        uint8_t byte = (uint8_t)UART_DATA;
        if (ring_in - ring_out < RING) {
            ring[ring_in % RING] = byte;
            ring_in++;
        } else {
            kept.overruns++;
        }
    }
    if (UART_STATE & 8u) {
        UART_STATE = 8;
        kept.overruns++;
    }
}

void systick(void) {
    ticks++;
    if (--fed == 0) {
        kept.watchdogs++;
        hal_reset();
    }
}

void hal_init(void) {
    if (kept.magic != 0x676C6175u) {
        kept.magic = 0x676C6175u;
        kept.boots = UINT32_MAX;
        kept.watchdogs = kept.overruns = 0;
    }
    kept.boots++;
    fed = WATCHDOG_TICKS;
    UART_DIVIDER = 16;
    UART_CONTROL = 1u | 2u | 8u; /* transmitter, receiver, receiver's interrupt */
    ENABLE_INTERRUPTS = 1u;      /* interrupt 0: UART 0 has received */
    SYSTICK_RELOAD = CLOCK_HZ / TICKS_HZ - 1;
    SYSTICK_VALUE = 0;
    SYSTICK_CONTROL = 7;
}

size_t hal_read(uint8_t *bytes, size_t room) {
    size_t count = 0;
    while (count < room && ring_out != ring_in) {
        bytes[count++] = ring[ring_out % RING];
        ring_out++;
    }
    return count;
}

void hal_write(const uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        while (UART_STATE & 1u) {
            fed = WATCHDOG_TICKS; /* a host that does not read is no reason to start anew */
        }
        UART_DATA = bytes[i];
    }
}

uint64_t hal_ticks(void) {
    uint64_t first;
    uint64_t again;
    do { /* 64 bits are read in two halves */
        first = ticks;
        again = ticks;
    } while (first != again);
    return first;
}

uint32_t hal_ticks_per_second(void) { return 0; /* in QEMU they count instructions */ }

void hal_idle(void) { __asm volatile("wfi"); /* the next tick comes within a millisecond */ }

uint32_t hal_room(void) { return RING; }

uint32_t hal_overruns(void) { return kept.overruns; }

void hal_watchdog(void) { fed = WATCHDOG_TICKS; }

_Noreturn void hal_reset(void) {
    RESET_CONTROL = 0x05FA0004u;
    for (;;) {
    }
}

uint32_t hal_boots(void) { return kept.boots; }

uint32_t hal_watchdogs(void) { return kept.watchdogs; }
