/* What a board gives the firmware: bytes, time, a watchdog. Each port implements these in a page. */
#ifndef GLAUBER_HAL_H
#define GLAUBER_HAL_H

#include <stddef.h>
#include <stdint.h>

void hal_init(void);
size_t hal_read(uint8_t *bytes, size_t room);       /* what has arrived; never waits */
void hal_write(const uint8_t *bytes, size_t count); /* returns when all is accepted */
uint64_t hal_ticks(void);                           /* since power-on; never goes back */
uint32_t hal_ticks_per_second(void);                /* 0: ticks count instructions */
void hal_idle(void);                                /* sleeps until a byte may have come */
uint32_t hal_room(void);                            /* bytes that may come before anybody reads; 65,535 at most */
uint32_t hal_overruns(void);                        /* bytes lost because nobody read them in time */
void hal_watchdog(void);                            /* still alive; a second without this resets the board */
_Noreturn void hal_reset(void);
uint32_t hal_boots(void);       /* differs after every reset */
uint32_t hal_watchdogs(void);   /* resets by the watchdog */

#endif
