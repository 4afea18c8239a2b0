#include "frame.h"

#include "wire.h"

uint32_t crc32_of(uint32_t crc, const uint8_t *bytes, size_t count) {
    static const uint32_t of_nibble[16] = {
        0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
        0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu, 0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu};
    crc = ~crc;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        crc = (crc >> 4) ^ of_nibble[crc & 15u];
        crc = (crc >> 4) ^ of_nibble[crc & 15u];
    }
    return ~crc;
}

size_t cobs_encode(const uint8_t *from, size_t count, uint8_t *to) {
    size_t group = 0; /* where the present group's length goes */
    size_t at = 1;
    for (size_t i = 0; i < count; i++) {
        if (from[i] != 0) {
            to[at++] = from[i];
        }
        if (from[i] == 0 || (at - group == 255 && i + 1 < count)) {
            to[group] = (uint8_t)(at - group);
            group = at++;
        }
    }
    to[group] = (uint8_t)(at - group);
    to[at++] = 0;
    return at;
}

void decoder_init(decoder *d, uint8_t *body, size_t room) {
    d->body = body;
    d->room = room;
    d->count = 0;
    d->code = d->left = d->broken = 0;
}

int32_t decoder_take(decoder *d, uint8_t byte) {
    if (byte == 0) {
        int begun = d->code != 0;
        int whole = begun && d->left == 0 && !d->broken;
        int32_t length = whole ? (int32_t)d->count : begun ? -1 : 0;
        decoder_init(d, d->body, d->room);
        return length == 0 && whole ? -1 : length;
    }
    if (d->left == 0) { /* a group's length; the group before it stood for a zero, unless it was a full one */
        if (d->code != 0 && d->code != 255) {
            if (d->count < d->room) {
                d->body[d->count++] = 0;
            } else {
                d->broken = 1;
            }
        }
        d->code = byte;
        d->left = (uint8_t)(byte - 1);
        return 0;
    }
    d->left--;
    if (d->count < d->room) {
        d->body[d->count++] = byte;
    } else {
        d->broken = 1;
    }
    return 0;
}

int body_is_whole(const uint8_t *body, size_t count) {
    return count >= WIRE_HEADER + WIRE_CRC && get16(body + 6) == count - WIRE_HEADER - WIRE_CRC &&
           crc32_of(0, body, count - WIRE_CRC) == get32(body + count - WIRE_CRC);
}

uint16_t get16(const uint8_t *at) { return (uint16_t)(at[0] | at[1] << 8); }

uint32_t get32(const uint8_t *at) { return get16(at) | (uint32_t)get16(at + 2) << 16; }

uint64_t get64(const uint8_t *at) { return get32(at) | (uint64_t)get32(at + 4) << 32; }

uint8_t *put16(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
    return at + 2;
}

uint8_t *put32(uint8_t *at, uint32_t value) { return put16(put16(at, value), value >> 16); }

uint8_t *put64(uint8_t *at, uint64_t value) { return put32(put32(at, (uint32_t)value), (uint32_t)(value >> 32)); }
