/* The link without a protocol, to compare with: S and a count swallow so many bytes and answer with one; G and a count
 * give so many. Counts have four bytes. */
#include "hal.h"

static uint8_t bytes[4096];

static void take(uint8_t *to, size_t count) {
    while (count > 0) {
        size_t some = hal_read(to, count < sizeof bytes ? count : sizeof bytes);
        count -= some;
        to += some;
        hal_watchdog();
        if (some == 0) {
            hal_idle();
        }
    }
}

int main(void) {
    hal_init();
    for (;;) {
        uint8_t order[5];
        take(order, sizeof order);
        uint32_t count = order[1] | (uint32_t)order[2] << 8 | (uint32_t)order[3] << 16 | (uint32_t)order[4] << 24;
        while (count > 0) {
            uint32_t some = count < sizeof bytes ? count : sizeof bytes;
            if (order[0] == 'S') {
                take(bytes, some);
            } else {
                hal_write(bytes, some);
            }
            count -= some;
            hal_watchdog();
        }
        if (order[0] == 'S') {
            hal_write(bytes, 1);
        }
    }
}
