/* Frames: COBS over header, payload and CRC-32, closed by a zero byte. No allocation, no state but the caller's. */
#ifndef GLAUBER_FRAME_H
#define GLAUBER_FRAME_H

#include <stddef.h>
#include <stdint.h>

/* Continues zlib's CRC-32; begins with 0. */
uint32_t crc32_of(uint32_t crc, const uint8_t *bytes, size_t count);

/* Bytes that COBS and the closing zero make of so many. */
#define COBS_ROOM(count) ((count) + (count) / 254 + 2)

/* Encodes and closes with a zero; `to` has COBS_ROOM(count) bytes. Returns how many were written. */
size_t cobs_encode(const uint8_t *from, size_t count, uint8_t *to);

/* Takes the stream apart: COBS is undone as bytes come, so a frame needs no more room than its body. */
typedef struct {
    uint8_t *body;    /* room bytes of the caller's */
    size_t room;
    size_t count;     /* bytes of the body so far */
    uint8_t code;     /* of the present group; 0 before a frame's first byte */
    uint8_t left;     /* bytes until the group ends */
    uint8_t broken;   /* the frame is too long; wait for its end */
} decoder;

void decoder_init(decoder *d, uint8_t *body, size_t room);

/* Takes bytes up to the end of a frame, and moves on behind them. Returns the length of the body that was completed, -1 if
 * what ended is no frame, and 0 if the bytes are used up before. */
int32_t decoder_take(decoder *d, const uint8_t **bytes, size_t *count);

/* Whether header and CRC of a body agree. */
int body_is_whole(const uint8_t *body, size_t count);

uint16_t get16(const uint8_t *at);
uint32_t get32(const uint8_t *at);
uint64_t get64(const uint8_t *at);
uint8_t *put16(uint8_t *at, uint32_t value); /* returns what follows */
uint8_t *put32(uint8_t *at, uint32_t value);
uint8_t *put64(uint8_t *at, uint64_t value);

#endif
