/* The wire protocol, version 1: docs/wire-protocol.md in C. Numbers only; frame.h makes and reads frames of them. */
#ifndef GLAUBER_WIRE_H
#define GLAUBER_WIRE_H

enum {
    WIRE_VERSION = 1,
    WIRE_HEADER = 8, /* version, operation, session (2), sequence (2), length (2) */
    WIRE_CRC = 4,
    WIRE_ANSWER = 256,      /* body bytes of an answer, at most; DATA has what was asked for */
    WIRE_LEAST_FRAME = 256, /* body bytes that every party accepts: header, payload and CRC before COBS */
    WIRE_REPLY = 0x80,      /* set in the operation of an answer */
    WIRE_DATA = 0xC0        /* a piece of a run's stream */
};

enum wire_operation {
    WIRE_HELLO = 0x01,
    WIRE_PING = 0x02,
    WIRE_HEALTH = 0x03,
    WIRE_ENERGY = 0x04,
    WIRE_TOPOLOGY = 0x05,
    WIRE_RESET = 0x06,
    WIRE_PROGRAM = 0x10,
    WIRE_WRITE = 0x11,
    WIRE_COMMIT = 0x12,
    WIRE_RUN = 0x13,
    WIRE_PULL = 0x14,
    WIRE_ABORT = 0x15,
    WIRE_CALIBRATE = 0x16,
    WIRE_HANG = 0x7F /* test builds only: stops serving until the watchdog bites */
};

enum wire_status {
    WIRE_OK = 0,
    WIRE_UNKNOWN = 1,   /* no such operation */
    WIRE_LENGTH = 2,    /* the payload has the wrong length */
    WIRE_ARGUMENT = 3,  /* a value is out of range; detail: which one, counted from 1 */
    WIRE_TOO_LARGE = 4, /* more than HELLO's limits; detail as above */
    WIRE_STATE = 5,     /* not now: nothing programmed, no such run, bytes that are gone */
    WIRE_BUSY = 6,      /* a run is going on; the queue holds one */
    WIRE_SESSION = 7,   /* another session, or none since the last reset */
    WIRE_CHECKSUM = 8,  /* what was written is not what was meant */
    WIRE_VERSIONS = 9,  /* another version of the protocol */
    WIRE_EDGE = 10,     /* a coupling that the chip does not have; detail: position, modulo 65,536 */
    WIRE_ROWS = 11,     /* rows, neighbours or colours are malformed; detail as above */
    WIRE_SELFTEST = 12  /* the power-on self-test failed: this controller does not compute what it should */
};

enum wire_segment {
    WIRE_ROW_START = 0, /* u32 (n + 1) */
    WIRE_NEIGHBOUR = 1, /* u16 (entries): positions */
    WIRE_WEIGHT = 2,    /* i16 (entries), steps */
    WIRE_FIELD = 3,     /* i32 (n), steps */
    WIRE_COLOURS = 4,   /* u32 (colours + 1): first position of each, and n */
    WIRE_SITE = 5,      /* u16 (n): p-bit of each position */
    WIRE_PROGRAM_SEGMENTS = 6,
    WIRE_BETA = 8,       /* u64 (n_b) */
    WIRE_OWN_FIELD = 9,  /* i32 (n) */
    WIRE_HELD = 10,      /* u32 (cells): bits that are clamped */
    WIRE_STATE_WORDS = 11, /* u32 (cells): start, and what is clamped */
    WIRE_SUMS = 12,      /* i32 (chains (n + entries / 2)): moments so far */
    WIRE_SEGMENTS = 13
};

enum wire_run_flag {
    WIRE_KEEP_SAMPLES = 1,
    WIRE_KEEP_MOMENTS = 2,
    WIRE_OWN_FIELDS = 4,
    WIRE_CLAMPED = 8,
    WIRE_INITIAL = 16,
    WIRE_INITIAL_SUMS = 32
};

enum wire_record { WIRE_SAMPLE = 1, WIRE_CHECKPOINT = 2, WIRE_MOMENTS = 3, WIRE_END = 4, WIRE_RECORD_HEADER = 16 };

enum wire_capability {
    WIRE_CAN_MOMENTS = 1,
    WIRE_CAN_CLAMP = 2,
    WIRE_CAN_ANNEAL = 4,
    WIRE_CAN_CALIBRATE = 8,
    WIRE_CAN_ENERGY = 16,
    WIRE_ENERGY_MEASURED = 32, /* the counter is an instrument, not arithmetic */
    WIRE_DETERMINISTIC = 64    /* it computes docs/machine.md */
};

enum wire_activity { WIRE_IDLE = 0, WIRE_RUNNING = 1, WIRE_ENDED = 2 };

#endif
