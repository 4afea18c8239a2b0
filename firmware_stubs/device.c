#include "device.h"

#include <string.h>

#include "afe.h"
#include "chip.h"
#include "frame.h"
#include "hal.h"
#include "memory.h"
#include "sampler.h"
#include "selftest.h"

_Static_assert(CHIP_FRAME >= WIRE_ANSWER, "every answer must fit a frame");
_Static_assert((CHIP_STREAM & (CHIP_STREAM - 1)) == 0, "offsets count modulo 2^32, so the buffer must divide that");

enum { FIRMWARE = 0x000100, PATIENCE = 8, HELLO_LENGTH = 4, RUN_LENGTH = 80 };

static uint8_t body[CHIP_FRAME];          /* of the frame that comes */
static uint8_t encoded[COBS_ROOM(CHIP_FRAME)];
static uint8_t outgoing[CHIP_FRAME];      /* header, payload and CRC of the frame that goes */
static decoder input;
static uint32_t bad_frames;
static uint32_t selftest;

/* The session, and what was last changed in it: a repeated request gets the same answer, and nothing happens twice. */
static uint32_t session; /* 0: none since the reset */
static int remembers;
static uint16_t first_sequence; /* of its HELLO */
static uint16_t last_sequence;
static uint16_t newest; /* of all requests of the session: what is not ahead of it is a copy that came late */
static uint8_t last_answer[WIRE_ANSWER];
static size_t last_length;

static enum { EMPTY, LOADING, LOADED } program;
static uint32_t program_crc;

/* Of the run: its number is the sequence of its RUN. */
static uint16_t run_number;
static uint32_t limit; /* offset up to which the host has granted room */
static uint32_t sent;  /* offset up to which it was sent */
static uint32_t piece; /* bytes in a DATA frame, at most */
static int waited;     /* times that a small piece was held back */

static uint8_t *answer; /* grows behind the status */

void device_init(void) {
    decoder_init(&input, body, sizeof body);
    selftest = (uint32_t)glb_selftest();
    session = 0;
    remembers = 0;
    program = EMPTY;
    program_crc = 0;
    bad_frames = 0;
    sampler_stop();
}

static void send(size_t length) { /* of header and payload */
    put16(outgoing + 6, (uint32_t)length - WIRE_HEADER);
    put32(outgoing + length, crc32_of(0, outgoing, length));
    hal_write(encoded, cobs_encode(outgoing, length + WIRE_CRC, encoded));
}

static void header(uint32_t operation, uint32_t of_session, uint32_t sequence) {
    outgoing[0] = WIRE_VERSION;
    outgoing[1] = (uint8_t)operation;
    put16(outgoing + 2, of_session);
    put16(outgoing + 4, sequence);
}

static uint32_t fault(uint32_t status, uint32_t detail) { return status | detail << 16; }

static uint32_t hello(const uint8_t *in, size_t length, uint16_t sequence) {
    if (length != HELLO_LENGTH) {
        return WIRE_LENGTH;
    }
    uint32_t asked = get16(in);
    uint32_t frame = get16(in + 2);
    if (asked == 0) {
        return fault(WIRE_ARGUMENT, 1);
    }
    if (frame < WIRE_LEAST_FRAME) {
        return fault(WIRE_ARGUMENT, 2);
    }
    if (asked != session || sequence != first_sequence) { /* a new host, or the old one after a break */
        session = asked;
        first_sequence = sequence;
        remembers = 0;
        newest = sequence;
        sampler_stop(); /* the program stays, the run does not */
    }
    uint32_t can = WIRE_CAN_MOMENTS | WIRE_CAN_CLAMP | WIRE_CAN_ANNEAL | WIRE_CAN_CALIBRATE | WIRE_CAN_ENERGY |
                   WIRE_DETERMINISTIC;
    const uint32_t words[] = {can,
                              FIRMWARE,
                              1, /* version of docs/machine.md */
                              hal_boots(),
                              CHIP_SITES,
                              CHIP_ENTRIES,
                              CHIP_COLOURS,
                              CHIP_CELLS,
                              CHIP_TABLE,
                              CHIP_SUMS,
                              CHIP_STREAM,
                              chip_edges(),
                              hal_ticks_per_second(),
                              program == LOADED ? program_crc : 0};
    *answer++ = WIRE_VERSION;
    *answer++ = CHIP_WEIGHT_BITS;
    *answer++ = CHIP_FIELD_BITS;
    *answer++ = CHIP_CODE_BITS;
    answer = put16(answer, frame < CHIP_FRAME ? frame : CHIP_FRAME);
    answer = put16(answer, hal_room());
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        answer = put32(answer, words[i]);
    }
    memcpy(answer, chip_name, sizeof chip_name);
    answer += sizeof chip_name;
    return selftest == GLB_SELFTEST_OK ? WIRE_OK : fault(WIRE_SELFTEST, selftest);
}

static uint32_t health(void) {
    answer = put64(answer, hal_ticks());
    answer = put64(answer, sampler_updates());
    answer = put32(answer, hal_overruns());
    answer = put32(answer, bad_frames);
    answer = put32(answer, hal_boots());
    answer = put32(answer, hal_watchdogs());
    answer = put32(answer, sampler_activity());
    return WIRE_OK;
}

static uint32_t topology(const uint8_t *in, size_t length) {
    if (length != 8) {
        return WIRE_LENGTH;
    }
    uint32_t first = get32(in);
    uint32_t count = get32(in + 4);
    if (count == 0 || count > (WIRE_ANSWER - WIRE_HEADER - WIRE_CRC - 4) / 4) {
        return fault(WIRE_ARGUMENT, 2);
    }
    if (first >= chip_edges() || count > chip_edges() - first) {
        return fault(WIRE_ARGUMENT, 1);
    }
    for (uint32_t k = first; k < first + count; k++) {
        uint16_t pair[2];
        chip_edge(k, pair);
        answer = put16(put16(answer, pair[0]), pair[1]);
    }
    return WIRE_OK;
}

static uint32_t begin_program(const uint8_t *in, size_t length) {
    if (length != 12) {
        return WIRE_LENGTH;
    }
    uint32_t n = get32(in);
    uint32_t entries = get32(in + 4);
    uint32_t colours = get32(in + 8);
    if (n == 0 || n > CHIP_SITES) {
        return fault(WIRE_TOO_LARGE, 1);
    }
    if (entries > CHIP_ENTRIES) {
        return fault(WIRE_TOO_LARGE, 2);
    }
    if (colours == 0 || colours > CHIP_COLOURS || colours > n) {
        return fault(WIRE_TOO_LARGE, 3);
    }
    if (sampler_activity() == WIRE_RUNNING) {
        return WIRE_BUSY;
    }
    sampler_stop();
    mem.n_sites = n;
    mem.n_entries = entries;
    mem.n_colours = colours;
    program = LOADING;
    return WIRE_OK;
}

static uint32_t write_segment(const uint8_t *in, size_t length) {
    size_t room;
    if (length < 8) {
        return WIRE_LENGTH;
    }
    uint32_t number = get32(in);
    uint32_t offset = get32(in + 4);
    uint8_t *to = memory_segment(number, &room);
    if (to == NULL) {
        return fault(WIRE_ARGUMENT, 1);
    }
    if (program == EMPTY || (number < WIRE_PROGRAM_SEGMENTS && program != LOADING)) {
        return WIRE_STATE;
    }
    if (number > WIRE_PROGRAM_SEGMENTS && sampler_activity() == WIRE_RUNNING) {
        return WIRE_BUSY;
    }
    size_t size = memory_size(number);
    if (offset > size || length - 8 > size - offset) {
        return fault(WIRE_TOO_LARGE, 2);
    }
    memcpy(to + offset, in + 8, length - 8);
    return WIRE_OK;
}

static uint32_t commit(const uint8_t *in, size_t length) {
    size_t sizes[WIRE_SEGMENTS] = {0};
    uint32_t where;
    if (length != 4) {
        return WIRE_LENGTH;
    }
    if (program != LOADING) {
        return WIRE_STATE;
    }
    for (uint32_t k = 0; k < WIRE_PROGRAM_SEGMENTS; k++) {
        sizes[k] = memory_size(k);
    }
    program_crc = memory_crc(0, WIRE_PROGRAM_SEGMENTS, sizes);
    if (program_crc != get32(in)) {
        return WIRE_CHECKSUM;
    }
    uint32_t status = memory_check(mem.field, &where);
    if (status == WIRE_OK) {
        program = LOADED;
    }
    return fault(status, where & 0xFFFFu);
}

static uint32_t begin_run(const uint8_t *in, size_t length, uint16_t sequence) {
    size_t sizes[WIRE_SEGMENTS] = {0};
    run_order r;
    if (length != RUN_LENGTH) {
        return WIRE_LENGTH;
    }
    if (program != LOADED) {
        return WIRE_STATE;
    }
    if (sampler_activity() == WIRE_RUNNING) {
        return WIRE_BUSY;
    }
    r.seed = get64(in);
    r.first_sweep = get64(in + 8);
    r.n_warmup = get64(in + 16);
    r.n_samples = get64(in + 24);
    r.sweeps_per_sample = get64(in + 32);
    r.last_sweep = get64(in + 40);
    r.beta_first = get64(in + 48);
    r.n_chains = get32(in + 56);
    r.first_chain = get32(in + 60);
    r.n_beta = get32(in + 64);
    r.n_counted = get32(in + 68);
    r.stream = in[76];
    r.layout = in[77];
    r.flags = in[78];
    if (r.first_sweep == 0 || r.last_sweep < r.first_sweep || r.last_sweep >= UINT64_MAX - 1) {
        return fault(WIRE_ARGUMENT, 2);
    }
    if (r.sweeps_per_sample == 0) {
        return fault(WIRE_ARGUMENT, 5);
    }
    if (r.layout > 1) {
        return fault(WIRE_ARGUMENT, 14);
    }
    if (r.n_beta == 0 || r.n_beta > CHIP_TABLE ||
        (r.n_beta > 1 && (r.beta_first == 0 || r.first_sweep < r.beta_first ||
                          r.last_sweep - r.beta_first >= r.n_beta))) {
        return fault(WIRE_TOO_LARGE, 10);
    }
    if (r.n_chains == 0 || r.n_chains > 32u * CHIP_CELLS || r.first_chain > UINT32_MAX - r.n_chains ||
        sampler_cells(&r) > CHIP_CELLS) {
        return fault(WIRE_TOO_LARGE, 8);
    }
    if (r.flags & (WIRE_KEEP_MOMENTS | WIRE_INITIAL_SUMS) && sampler_sums(&r) > CHIP_SUMS) {
        return fault(WIRE_TOO_LARGE, 8);
    }
    if (r.flags & (WIRE_KEEP_MOMENTS | WIRE_INITIAL_SUMS) && r.n_samples >= UINT64_C(1) << 31) {
        return fault(WIRE_TOO_LARGE, 4); /* sums have 32 bits */
    }
    sizes[WIRE_BETA] = 8 * (size_t)r.n_beta;
    sizes[WIRE_OWN_FIELD] = r.flags & WIRE_OWN_FIELDS ? 4 * (size_t)mem.n_sites : 0;
    sizes[WIRE_HELD] = r.flags & WIRE_CLAMPED ? 4 * (size_t)sampler_cells(&r) : 0;
    sizes[WIRE_STATE_WORDS] = r.flags & (WIRE_CLAMPED | WIRE_INITIAL) ? 4 * (size_t)sampler_cells(&r) : 0;
    sizes[WIRE_SUMS] = r.flags & WIRE_INITIAL_SUMS ? 4 * (size_t)sampler_sums(&r) : 0;
    if (memory_crc(WIRE_BETA, WIRE_SEGMENTS, sizes) != get32(in + 72)) {
        return WIRE_CHECKSUM;
    }
    if (r.flags & WIRE_OWN_FIELDS) {
        uint32_t where;
        uint32_t status = memory_check(mem.own_field, &where);
        if (status != WIRE_OK) {
            return fault(status, where & 0xFFFFu);
        }
    }
    for (size_t k = 0; k < sizes[WIRE_SUMS] / 4; k++) {
        int32_t sum = mem.sums[k];
        if (r.n_counted > r.n_samples || sum > (int32_t)r.n_counted || sum < -(int32_t)r.n_counted) {
            return fault(WIRE_ARGUMENT, 11); /* of so many samples no sum is larger */
        }
    }
    run_number = sequence;
    limit = sent = 0;
    piece = 1;
    waited = 0;
    sampler_start(&r);
    return WIRE_OK;
}

static uint32_t pull(const uint8_t *in, size_t length) {
    if (length != 16) {
        return WIRE_LENGTH;
    }
    uint32_t number = get16(in);
    uint32_t size = get16(in + 2);
    uint32_t from = get32(in + 4);
    uint32_t until = get32(in + 8);
    uint32_t flags = get32(in + 12);
    if (number != run_number || sampler_activity() == WIRE_IDLE) {
        return WIRE_STATE;
    }
    if (size == 0 || size > CHIP_FRAME - WIRE_HEADER - WIRE_CRC - 4) {
        return fault(WIRE_ARGUMENT, 2);
    }
    if (from - stream.tail > stream.head - stream.tail || until - from > CHIP_STREAM) {
        return fault(WIRE_STATE, 3); /* offsets count modulo 2^32 */
    }
    stream.tail = from;
    limit = until;
    piece = size;
    if (flags & 1u || sent - from > stream.head - from) { /* again from there; or all before it has come meanwhile */
        sent = from;
    }
    if (flags & 2u) {
        sampler_checkpoint();
    }
    waited = PATIENCE; /* who asks is waiting */
    answer = put64(answer, sampler_sweeps());
    answer = put32(answer, stream.head);
    answer = put32(answer, sampler_activity());
    return WIRE_OK;
}

static uint32_t calibrate(const uint8_t *in, size_t length) {
    if (length != 8) {
        return WIRE_LENGTH;
    }
    uint32_t p_bit = get16(in);
    uint32_t code = get16(in + 2);
    uint32_t count = get32(in + 4);
    if (p_bit >= CHIP_SITES) {
        return fault(WIRE_ARGUMENT, 1);
    }
    if (code >= 1u << CHIP_CODE_BITS) {
        return fault(WIRE_ARGUMENT, 2);
    }
    if (count == 0 || count > 8 * (WIRE_ANSWER - WIRE_HEADER - WIRE_CRC - 4)) {
        return fault(WIRE_ARGUMENT, 3);
    }
    if (sampler_activity() == WIRE_RUNNING) {
        return WIRE_BUSY;
    }
    afe_bias(p_bit, code);
    memset(answer, 0, (count + 7) / 8);
    for (uint32_t k = 0; k < count; k++) {
        answer[k / 8] |= (uint8_t)((uint32_t)afe_read(p_bit) << (k % 8));
    }
    answer += (count + 7) / 8;
    return WIRE_OK;
}

/* What changes something, and so must not happen twice. */
static int changes(uint32_t operation) {
    return operation == WIRE_RESET || operation == WIRE_PROGRAM || operation == WIRE_COMMIT || operation == WIRE_RUN ||
           operation == WIRE_ABORT || operation == WIRE_CALIBRATE;
}

static uint32_t perform(uint32_t operation, uint16_t sequence, const uint8_t *in, size_t length) {
    switch (operation) {
    case WIRE_HELLO:
        return hello(in, length, sequence);
    case WIRE_PING:
        if (length > WIRE_ANSWER - WIRE_HEADER - WIRE_CRC - 4) {
            return WIRE_LENGTH;
        }
        memcpy(answer, in, length);
        answer += length;
        return WIRE_OK;
    case WIRE_HEALTH:
        return length == 0 ? health() : WIRE_LENGTH;
    case WIRE_ENERGY:
        answer = put64(answer, chip_picojoules(sampler_updates(), hal_ticks()));
        return length == 0 ? WIRE_OK : WIRE_LENGTH;
    case WIRE_TOPOLOGY:
        return topology(in, length);
    case WIRE_RESET:
        return length == 0 ? WIRE_OK : WIRE_LENGTH;
    case WIRE_PROGRAM:
        return begin_program(in, length);
    case WIRE_WRITE:
        return write_segment(in, length);
    case WIRE_COMMIT:
        return commit(in, length);
    case WIRE_RUN:
        return begin_run(in, length, sequence);
    case WIRE_PULL:
        return pull(in, length);
    case WIRE_ABORT:
        sampler_stop();
        return length == 0 ? WIRE_OK : WIRE_LENGTH;
    case WIRE_CALIBRATE:
        return calibrate(in, length);
#ifdef FIRMWARE_TEST
    case WIRE_HANG:
        for (;;) {
        }
#endif
    default:
        return WIRE_UNKNOWN;
    }
}

static void take_frame(size_t count) {
    if (!body_is_whole(body, count) || body[1] & WIRE_REPLY) { /* nobody knows who asked, so nobody is answered */
        bad_frames++;
        return;
    }
    uint32_t operation = body[1];
    uint16_t sequence = get16(body + 4);
    uint32_t status;
    int keeps = changes(operation);
    if (body[0] == WIRE_VERSION && session != 0 && get16(body + 2) == session) {
        uint16_t ahead = (uint16_t)(sequence - newest);
        int is_new = ahead != 0 && ahead < 0x8000u;
        if (keeps && !is_new) {
            if (remembers && sequence == last_sequence) {
                memcpy(outgoing, last_answer, last_length);
                send(last_length);
            }
            return;
        }
        if (is_new) {
            newest = sequence;
        }
    }
    header(operation | WIRE_REPLY, get16(body + 2), sequence);
    answer = outgoing + WIRE_HEADER + 4;
    if (body[0] != WIRE_VERSION) {
        status = WIRE_VERSIONS;
        keeps = 0;
    } else if (operation != WIRE_HELLO && (session == 0 || get16(body + 2) != session)) {
        status = WIRE_SESSION;
        keeps = 0;
    } else {
        status = perform(operation, sequence, body + WIRE_HEADER, count - WIRE_HEADER - WIRE_CRC);
    }
    if (status != WIRE_OK && (status & 0xFFFFu) != WIRE_SELFTEST) {
        answer = outgoing + WIRE_HEADER + 4; /* an error has no more to say */
    }
    put32(outgoing + WIRE_HEADER, status);
    size_t length = (size_t)(answer - outgoing);
    if (keeps) {
        remembers = 1;
        last_sequence = sequence;
        memcpy(last_answer, outgoing, length);
        last_length = length;
    }
    send(length);
    if (operation == WIRE_RESET && status == WIRE_OK) {
        hal_reset();
    }
}

void device_bytes(const uint8_t *bytes, size_t count) {
    while (count > 0) {
        int32_t length = decoder_take(&input, &bytes, &count);
        if (length > 0) {
            take_frame((size_t)length);
        } else if (length < 0) {
            bad_frames++;
        }
    }
}

/* Sends a DATA frame, if there is enough to say. */
static int pump(void) {
    if (sampler_activity() == WIRE_IDLE) {
        return 0;
    }
    uint32_t there = stream.head - sent;
    uint32_t granted = limit - sent;
    if (there == 0 || granted == 0 || granted > CHIP_STREAM) {
        return 0;
    }
    uint32_t count = there < granted ? there : granted;
    int stalled = sampler_activity() == WIRE_ENDED || count == granted || stream.head - stream.tail == CHIP_STREAM;
    if (count < piece && !stalled && ++waited < PATIENCE) {
        return 0; /* more will come soon; small frames waste the link */
    }
    waited = 0;
    count = count < piece ? count : piece;
    header(WIRE_DATA, session, run_number);
    put32(outgoing + WIRE_HEADER, sent);
    for (uint32_t done = 0; done < count;) {
        uint32_t at = (sent + done) % CHIP_STREAM;
        uint32_t part = count - done < CHIP_STREAM - at ? count - done : CHIP_STREAM - at;
        memcpy(outgoing + WIRE_HEADER + 4 + done, stream.bytes + at, part);
        done += part;
    }
    sent += count;
    send(WIRE_HEADER + 4 + count);
    return 1;
}

int device_work(void) {
    int worked = sampler_step();
    return pump() || worked;
}
