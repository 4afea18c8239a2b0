#include "frame.h"

#include <string.h>

#include "wire.h"

/* Four bytes at a step: table[k][x] is what byte x does k bytes further on. Made at the first call: 4 KB of memory. */
static uint32_t table[4][256];

static void make_table(void) {
    for (uint32_t x = 0; x < 256; x++) {
        uint32_t crc = x;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (crc & 1u ? 0xEDB88320u : 0);
        }
        table[0][x] = crc;
    }
    for (uint32_t x = 0; x < 256; x++) {
        for (int k = 1; k < 4; k++) {
            table[k][x] = (table[k - 1][x] >> 8) ^ table[0][table[k - 1][x] & 255u];
        }
    }
}

uint32_t crc32_of(uint32_t crc, const uint8_t *bytes, size_t count) {
    if (table[0][1] == 0) {
        make_table();
    }
    crc = ~crc;
    for (; count >= 4; count -= 4, bytes += 4) {
        crc ^= get32(bytes);
        crc = table[3][crc & 255u] ^ table[2][(crc >> 8) & 255u] ^ table[1][(crc >> 16) & 255u] ^ table[0][crc >> 24];
    }
    for (; count > 0; count--) {
        crc = (crc >> 8) ^ table[0][(crc ^ *bytes++) & 255u];
    }
    return ~crc;
}

size_t cobs_encode(const uint8_t *from, size_t count, uint8_t *to) {
    uint8_t *at = to;
    for (;;) { /* a group: its length, and what stands before the next zero */
        size_t most = count < 254 ? count : 254;
        const uint8_t *zero = memchr(from, 0, most);
        size_t length = zero == NULL ? most : (size_t)(zero - from);
        *at++ = (uint8_t)(length + 1);
        memcpy(at, from, length);
        at += length;
        from += length;
        count -= length;
        if (zero != NULL) {
            from++; /* the group stands for the zero too, so another one follows, if only an empty one */
            count--;
        } else if (count == 0) {
            break;
        }
    }
    *at++ = 0;
    return (size_t)(at - to);
}

void decoder_init(decoder *d, uint8_t *body, size_t room) {
    d->body = body;
    d->room = room;
    d->count = 0;
    d->code = d->left = d->broken = 0;
}

static void append(decoder *d, const uint8_t *bytes, size_t count) {
    if (count > d->room - d->count) {
        count = d->room - d->count;
        d->broken = 1;
    }
    memcpy(d->body + d->count, bytes, count);
    d->count += count;
}

/* At a zero. */
static int32_t ended(decoder *d) {
    int begun = d->code != 0;
    int whole = begun && d->left == 0 && !d->broken && d->count > 0;
    int32_t length = whole ? (int32_t)d->count : begun ? -1 : 0;
    decoder_init(d, d->body, d->room);
    return length;
}

int32_t decoder_take(decoder *d, const uint8_t **bytes, size_t *count) {
    static const uint8_t nothing = 0;
    while (*count > 0) {
        if (**bytes == 0) {
            ++*bytes;
            --*count;
            int32_t length = ended(d);
            if (length != 0) {
                return length;
            }
        } else if (d->left == 0) { /* a group's length; the group before it stood for a zero, unless it was a full one */
            if (d->code != 0 && d->code != 255) {
                append(d, &nothing, 1);
            }
            d->code = **bytes;
            d->left = (uint8_t)(d->code - 1);
            ++*bytes;
            --*count;
        } else {
            size_t most = *count < d->left ? *count : d->left;
            const uint8_t *zero = memchr(*bytes, 0, most);
            size_t length = zero == NULL ? most : (size_t)(zero - *bytes);
            append(d, *bytes, length);
            d->left = (uint8_t)(d->left - length);
            *bytes += length;
            *count -= length;
        }
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
