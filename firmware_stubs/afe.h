/* The analog front end: a converter that biases a p-bit, and the comparator that reads it. On a board this file's
 * other half is the converter's driver. */
#ifndef GLAUBER_AFE_H
#define GLAUBER_AFE_H

#include <stdint.h>

void afe_bias(uint32_t p_bit, uint32_t code);
int afe_read(uint32_t p_bit); /* 0 or 1, after the comparator has settled */

#endif
