/* Requests to the whole device. The input is a row of requests: operation, length, payload; the frame around each is made
 * here, for a fuzzer that has to guess a CRC learns nothing. After HELLO every request has the right session. */
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "frame.h"
#include "memory.h"
#include "wire.h"

extern jmp_buf after_reset;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t body[WIRE_HEADER + 256 + WIRE_CRC];
static uint8_t encoded[COBS_ROOM(sizeof body)];
static uint16_t sequence;

static void request(uint8_t operation, const uint8_t *payload, size_t length, int repeats) {
    body[0] = WIRE_VERSION;
    body[1] = operation;
    put16(body + 2, 7);
    put16(body + 4, repeats ? sequence : ++sequence);
    put16(body + 6, (uint32_t)length);
    memcpy(body + WIRE_HEADER, payload, length);
    put32(body + WIRE_HEADER + length, crc32_of(0, body, WIRE_HEADER + length));
    device_bytes(encoded, cobs_encode(body, WIRE_HEADER + length + WIRE_CRC, encoded));
    for (int k = 0; k < 4 && device_work(); k++) {
    }
}

/* COMMIT and RUN name a checksum: the right one, mostly, or nothing behind it would ever be reached. */
static void fill_checksum(uint8_t operation, uint8_t *payload, size_t length) {
    size_t sizes[WIRE_SEGMENTS] = {0};
    if (operation == WIRE_COMMIT && length == 4) {
        for (uint32_t k = 0; k < WIRE_PROGRAM_SEGMENTS; k++) {
            sizes[k] = memory_size(k);
        }
        put32(payload, memory_crc(0, WIRE_PROGRAM_SEGMENTS, sizes));
    }
    if (operation == WIRE_RUN && length == 80) {
        uint32_t chains = get32(payload + 56) % 200;
        uint32_t words = payload[77] == 0 ? (get32(payload + 60) % 32 + chains + 31) / 32 : (mem.n_sites + 31) / 32;
        size_t cells = (size_t)words * (payload[77] == 0 ? mem.n_sites : chains);
        put32(payload + 56, chains);
        if (cells > CHIP_CELLS || get32(payload + 64) > CHIP_TABLE) {
            return;
        }
        sizes[WIRE_BETA] = 8 * (size_t)get32(payload + 64);
        sizes[WIRE_OWN_FIELD] = payload[78] & WIRE_OWN_FIELDS ? 4 * (size_t)mem.n_sites : 0;
        sizes[WIRE_HELD] = payload[78] & WIRE_CLAMPED ? 4 * cells : 0;
        sizes[WIRE_STATE_WORDS] = payload[78] & (WIRE_CLAMPED | WIRE_INITIAL) ? 4 * cells : 0;
        sizes[WIRE_SUMS] = payload[78] & WIRE_INITIAL_SUMS ? 4 * (size_t)chains * (mem.n_sites + mem.n_entries / 2) : 0;
        if (sizes[WIRE_SUMS] <= 4 * CHIP_SUMS) {
            put32(payload + 72, memory_crc(WIRE_BETA, WIRE_SEGMENTS, sizes));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t hello[4] = {7, 0, 0, 16};
    volatile size_t at = 0; /* keeps its value over a reset */
    device_init();
    sequence = 0;
    setjmp(after_reset);
    request(WIRE_HELLO, hello, sizeof hello, 0);
    while (at + 2 <= size) {
        uint8_t operation = data[at] & 0x7F;
        int repeats = data[at] >> 7;
        size_t length = data[at + 1];
        uint8_t payload[256];
        at += 2;
        if (length > size - at) {
            length = size - at;
        }
        memcpy(payload, data + at, length);
        at += length;
        fill_checksum(operation, payload, length);
        request(operation, payload, length, repeats);
    }
    return 0;
}
