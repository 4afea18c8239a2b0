/* Vectors and start-up of a Cortex-M3. */
#include <stdint.h>

extern uint32_t image_data[], data_begin[], data_end[], bss_begin[], bss_end[];

void stack_top(void); /* an address, no function */
void reset(void);
void uart_receive(void);
void systick(void);
static void fault(void);
int main(void);

typedef void (*vector)(void);

__attribute__((section(".vectors"), used)) static const vector vectors[17] = {
    stack_top, reset, fault, fault, fault, fault, fault, 0, 0, 0, 0, fault, fault, 0, fault, systick, uart_receive};

static void fault(void) {
    *(volatile uint32_t *)0xE000ED0Cu = 0x05FA0004u; /* start anew */
    for (;;) {
    }
}

void reset(void) {
    const uint32_t *from = image_data;
    for (uint32_t *to = data_begin; to < data_end;) {
        *to++ = *from++;
    }
    for (uint32_t *to = bss_begin; to < bss_end;) {
        *to++ = 0;
    }
    main();
    fault();
}
