/* Any bytes into the decoder: frames that come out must be whole, and encode to what came in. */
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "wire.h"

#ifndef PLANTED
#define PLANTED 0 /* 1 plants an overflow of one byte, which a fuzzer must find */
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    enum { ROOM = 600 };
    uint8_t *body = malloc(ROOM); /* of its own, so that a byte too many is seen */
    uint8_t *encoded = malloc(COBS_ROOM(ROOM));
    decoder d;
    decoder_init(&d, body, ROOM + PLANTED);
    size_t step = size > 0 ? 1 + data[0] % 97 : 1; /* bytes come in pieces */
    const uint8_t *bytes = data;
    size_t left = 0;
    for (size_t at = 0; at < size || left > 0;) {
        if (left == 0) {
            left = step < size - at ? step : size - at;
            bytes = data + at;
            at += left;
        }
        int32_t length = decoder_take(&d, &bytes, &left);
        if (length > (int32_t)ROOM + PLANTED) {
            abort();
        }
        if (length > 0) {
            size_t count = cobs_encode(body, (size_t)length, encoded);
            decoder again;
            uint8_t *twice = malloc((size_t)length);
            const uint8_t *from = encoded;
            size_t rest = count;
            decoder_init(&again, twice, (size_t)length);
            int32_t back = decoder_take(&again, &from, &rest);
            if (back != length || rest != 0 || memcmp(body, twice, (size_t)length) != 0 || memchr(encoded, 0, count - 1) != NULL) {
                abort();
            }
            free(twice);
            (void)body_is_whole(body, (size_t)length);
        }
    }
    free(encoded);
    free(body);
    return 0;
}
