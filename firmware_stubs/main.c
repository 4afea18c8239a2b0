/* The controller's firmware: bytes in, work in pieces, bytes out. The watchdog resets what does not come round. */
#include "device.h"
#include "hal.h"

int main(void) {
    static uint8_t bytes[2048];
    hal_init();
    device_init();
    for (;;) {
        hal_watchdog();
        size_t count = hal_read(bytes, sizeof bytes);
        device_bytes(bytes, count);
        if (!device_work() && count == 0) {
            hal_idle();
        }
    }
}
