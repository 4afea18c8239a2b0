/* A model of an analog front end: P(1) = 1 / (1 + 2^-x) with x = gain (code - middle) + offset, gain and offset of each
 * p-bit its own, spread by about 10 %; dead and stuck p-bits are not modelled. Noise is the contract's generator. */
#include "afe.h"

#include "chip.h"
#include "glauber/contract.h"

enum { NOISE = 8, CURVE = 9 }; /* purposes: docs/machine.md keeps them for device noise and readout */

static uint32_t now;    /* p-bit */
static uint32_t code;   /* its bias */
static uint64_t drawn;  /* readings so far: the noise never repeats */

void afe_bias(uint32_t p_bit, uint32_t to) {
    now = p_bit;
    code = to;
}

int afe_read(uint32_t p_bit) {
    glb_key curve = glb_make_key(0, CURVE, 0, 0, 0);
    glb_key noise = glb_make_key(1, NOISE, 0, 0, drawn);
    uint32_t own[4];
    uint32_t random[4];
    glb_threefry(&curve, p_bit, 0, 0, 0, own);
    glb_threefry(&noise, p_bit, (uint32_t)drawn, 0, 0, random);
    drawn++;
    /* b = 2^32 makes a field of one unit one power of two; units of 2^-16 keep the slope: 2^13 +- 10 % a thousand codes */
    int32_t offset = (int32_t)(own[0] >> 17) - (1 << 14);               /* +- 1/4 */
    int32_t gain = 512 + (int32_t)(own[1] % 105u) - 52;                 /* units a code */
    int32_t code_of = p_bit == now ? (int32_t)code - (1 << (CHIP_CODE_BITS - 1)) : 0;
    return random[0] < glb_threshold(gain * code_of + offset, UINT64_C(1) << 16);
}
