/* The controller: takes frames, answers each, and sends what runs leave in the stream. */
#ifndef GLAUBER_DEVICE_H
#define GLAUBER_DEVICE_H

#include <stddef.h>
#include <stdint.h>

void device_init(void);
void device_bytes(const uint8_t *bytes, size_t count); /* bytes from the host */
int device_work(void);                                 /* a bounded piece of work; 0 if there was none */

#endif
