"""The wire protocol of docs/wire-protocol.md: frames, operations and records as bytes. No input or output here."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any

from glauber.errors import ProtocolError

try:
    from cobs import cobs
except ImportError as error:
    raise ImportError("the package cobs is missing; pip install 'glauber[serial]'") from error

VERSION = 1
HEADER = struct.Struct("<BBHHH")
CRC = struct.Struct("<I")
OVERHEAD = HEADER.size + CRC.size
LEAST_FRAME = 256
LEAST_WINDOW = 264
ANSWER = 256
REPLY = 0x80
DATA = 0xC0
LARGEST_FRAME = 65_535


class Operation(IntEnum):
    """What a request asks for."""

    HELLO = 0x01
    PING = 0x02
    HEALTH = 0x03
    ENERGY = 0x04
    TOPOLOGY = 0x05
    RESET = 0x06
    PROGRAM = 0x10
    WRITE = 0x11
    COMMIT = 0x12
    RUN = 0x13
    PULL = 0x14
    ABORT = 0x15
    CALIBRATE = 0x16
    HANG = 0x7F


class Status(IntEnum):
    """How a request went."""

    OK = 0
    UNKNOWN = 1
    LENGTH = 2
    ARGUMENT = 3
    TOO_LARGE = 4
    STATE = 5
    BUSY = 6
    SESSION = 7
    CHECKSUM = 8
    VERSIONS = 9
    EDGE = 10
    ROWS = 11
    SELFTEST = 12


class Segment(IntEnum):
    """Where WRITE writes."""

    ROW_START = 0
    NEIGHBOUR = 1
    WEIGHT = 2
    FIELD = 3
    COLOURS = 4
    SITE = 5
    BETA = 8
    OWN_FIELD = 9
    HELD = 10
    STATE_WORDS = 11
    SUMS = 12


class RunFlag(IntFlag):
    """What a run keeps, and what it is given."""

    KEEP_SAMPLES = 1
    KEEP_MOMENTS = 2
    OWN_FIELDS = 4
    CLAMPED = 8
    INITIAL = 16
    INITIAL_SUMS = 32


class Capability(IntFlag):
    """What a board can."""

    MOMENTS = 1
    CLAMP = 2
    ANNEAL = 4
    CALIBRATE = 8
    ENERGY = 16
    ENERGY_MEASURED = 32
    DETERMINISTIC = 64


class Kind(IntEnum):
    """Of a record in a run's stream."""

    SAMPLE = 1
    CHECKPOINT = 2
    MOMENTS = 3
    END = 4


class Activity(IntEnum):
    """Of a board."""

    IDLE = 0
    RUNNING = 1
    ENDED = 2


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Attributes:
        operation: with REPLY set in an answer; DATA for a piece of a stream.
        session: of the host that talks.
        sequence: an answer has its request's; DATA has that of the RUN.
        payload: the rest.
        version: of the protocol.
    """

    operation: int
    session: int
    sequence: int
    payload: bytes
    version: int = VERSION


def encode(frame: Frame) -> bytes:
    """A frame as it goes over the wire, its closing zero included."""
    head = HEADER.pack(frame.version, frame.operation, frame.session, frame.sequence, len(frame.payload))
    body = head + frame.payload
    return bytes(cobs.encode(body + CRC.pack(zlib.crc32(body)))) + b"\0"


def decode(encoded: bytes) -> Frame | None:
    """The frame of what stood between two zeros; None if it is damaged."""
    try:
        body: bytes = cobs.decode(encoded)
    except cobs.DecodeError:
        return None
    if len(body) < OVERHEAD:
        return None
    version, operation, session, sequence, length = HEADER.unpack_from(body)
    if length != len(body) - OVERHEAD or zlib.crc32(body[:-4]) != CRC.unpack_from(body, len(body) - 4)[0]:
        return None
    return Frame(operation, session, sequence, body[HEADER.size : -CRC.size], version)


class FrameReader:
    """Takes a stream of bytes apart.

    Attributes:
        damaged: pieces between zeros that were no frames.
    """

    def __init__(self) -> None:
        self.damaged = 0
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that these bytes complete."""
        self._rest += data
        if b"\0" not in data:
            if len(self._rest) > 2 * LARGEST_FRAME:  # no frame is so long: what comes is noise
                self._rest.clear()
                self.damaged += 1
            return
        *pieces, rest = bytes(self._rest).split(b"\0")
        self._rest = bytearray(rest)
        for piece in pieces:
            if not piece:
                continue
            frame = decode(piece)
            if frame is None:
                self.damaged += 1
            else:
                yield frame


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer's payload: status, detail, and what follows them."""

    status: Status
    detail: int
    rest: bytes


def read_answer(payload: bytes) -> Answer:
    """Take an answer's payload apart.

    Raises:
        ProtocolError: it is too short, or its status is none of version 1.
    """
    if len(payload) < 4:
        raise ProtocolError(f"the board answered with {len(payload)} bytes, and an answer has 4 at least")
    status, detail = struct.unpack_from("<HH", payload)
    try:
        return Answer(Status(status), detail, payload[4:])
    except ValueError:
        raise ProtocolError(f"the board answered with status {status}, which version 1 does not know") from None


@dataclass(frozen=True, slots=True)
class Hello:
    """What a board says of itself; docs/wire-protocol.md describes each number."""

    version: int
    weight_bits: int
    field_bits: int
    code_bits: int
    max_frame: int
    window: int
    capabilities: Capability
    firmware: int
    contract: int
    boots: int
    sites: int
    entries: int
    colours: int
    cells: int
    table: int
    sums: int
    stream: int
    edges: int
    ticks_per_second: int
    program_crc: int
    name: str

    @property
    def firmware_version(self) -> str:
        """As people write it."""
        return f"{self.firmware >> 16}.{self.firmware >> 8 & 0xFF}.{self.firmware & 0xFF}"


_HELLO = struct.Struct("<4BHH14I24s")


def hello_request(session: int, max_frame: int) -> bytes:
    """Payload of HELLO."""
    return struct.pack("<HH", session, max_frame)


def read_hello(rest: bytes) -> Hello:
    """What follows the status in HELLO's answer.

    Raises:
        ProtocolError: wrong length, or numbers that no board has.
    """
    if len(rest) != _HELLO.size:
        raise ProtocolError(f"HELLO was answered with {len(rest)} bytes, not {_HELLO.size}")
    version, weight, field, code, frame, window, can, *numbers, name = _HELLO.unpack(rest)
    text = name.split(b"\0")[0].decode("ascii", "replace")
    values: list[Any] = [version, weight, field, code, frame, window, Capability(can), *numbers, text]
    hello = Hello(*values)
    narrow = 1 <= weight <= 16 and 1 <= field <= 31
    if not (narrow and frame >= LEAST_FRAME and window >= LEAST_WINDOW and hello.sites and hello.stream >= 256):
        raise ProtocolError(f"HELLO was answered with impossible numbers: {hello}")
    return hello


@dataclass(frozen=True, slots=True)
class Health:
    """How a board is; ticks and boots as in HELLO."""

    ticks: int
    updates: int
    overruns: int
    bad_frames: int
    boots: int
    watchdogs: int
    activity: Activity


_HEALTH = struct.Struct("<QQ5I")


def read_health(rest: bytes) -> Health:
    """What follows the status in HEALTH's answer.

    Raises:
        ProtocolError: wrong length.
    """
    if len(rest) != _HEALTH.size:
        raise ProtocolError(f"HEALTH was answered with {len(rest)} bytes, not {_HEALTH.size}")
    *numbers, activity = _HEALTH.unpack(rest)
    values: list[Any] = [*numbers, Activity(activity) if activity in set(Activity) else Activity.IDLE]
    return Health(*values)


@dataclass(frozen=True, slots=True)
class RunOrder:
    """What RUN says; sweeps count from 1, `crc` is over the segments that belong to the run."""

    seed: int
    first_sweep: int
    n_warmup: int
    n_samples: int
    sweeps_per_sample: int
    last_sweep: int
    beta_first: int
    n_chains: int
    first_chain: int
    n_beta: int
    n_counted: int
    crc: int
    stream: int
    layout: int
    flags: RunFlag


_RUN = struct.Struct("<7Q5IBBBx")


def run_request(order: RunOrder) -> bytes:
    """Payload of RUN."""
    o = order
    return _RUN.pack(
        o.seed,
        o.first_sweep,
        o.n_warmup,
        o.n_samples,
        o.sweeps_per_sample,
        o.last_sweep,
        o.beta_first,
        o.n_chains,
        o.first_chain,
        o.n_beta,
        o.n_counted,
        o.crc,
        o.stream,
        o.layout,
        o.flags,
    )


def program_request(sites: int, entries: int, colours: int) -> bytes:
    """Payload of PROGRAM."""
    return struct.pack("<3I", sites, entries, colours)


def write_request(segment: Segment, offset: int, data: bytes) -> bytes:
    """Payload of WRITE."""
    return struct.pack("<II", segment, offset) + data


def pull_request(run: int, piece: int, start: int, until: int, *, again: bool, checkpoint: bool) -> bytes:
    """Payload of PULL; offsets modulo 2^32."""
    return struct.pack("<HHIII", run, piece, start & 0xFFFFFFFF, until & 0xFFFFFFFF, again | checkpoint << 1)


@dataclass(frozen=True, slots=True)
class Pulled:
    """PULL's answer: the last sweep that was done, bytes produced (modulo 2^32), and whether more will come."""

    sweep: int
    head: int
    activity: Activity


def read_pulled(rest: bytes) -> Pulled:
    """What follows the status in PULL's answer.

    Raises:
        ProtocolError: wrong length.
    """
    if len(rest) != 16:
        raise ProtocolError(f"PULL was answered with {len(rest)} bytes, not 16")
    sweep, head, activity = struct.unpack("<QII", rest)
    return Pulled(sweep, head, Activity(activity) if activity in set(Activity) else Activity.IDLE)


def calibrate_request(p_bit: int, code: int, count: int) -> bytes:
    """Payload of CALIBRATE."""
    return struct.pack("<HHI", p_bit, code, count)


MOST_READINGS = 8 * (ANSWER - OVERHEAD - 4)
"""In one CALIBRATE."""
MOST_EDGES = (ANSWER - OVERHEAD - 4) // 4
"""In one TOPOLOGY."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a stream: what it is, the sweep that was done, and its bytes."""

    kind: Kind
    sweep: int
    data: bytes


RECORD = struct.Struct("<IIQ")


class RecordReader:
    """Takes a run's stream apart, and checks it against its END.

    Attributes:
        n_bytes: of the stream so far.
    """

    def __init__(self, largest: int) -> None:
        self.n_bytes = 0
        self._largest = largest
        self._crc = 0
        self._parts: list[bytes] = []
        self._held = 0
        self._needed = RECORD.size

    def feed(self, data: bytes) -> Iterator[Record]:
        """The records that these bytes complete.

        Raises:
            ProtocolError: an impossible record, or the stream is not the one that its END speaks of.
        """
        self.n_bytes += len(data)
        self._parts.append(data)
        self._held += len(data)
        if self._held < self._needed:
            return
        joined, at = b"".join(self._parts), 0
        while True:
            if len(joined) - at < RECORD.size:
                self._needed = RECORD.size
                break
            kind, length, sweep = RECORD.unpack_from(joined, at)
            if kind not in set(Kind) or length > self._largest:
                raise ProtocolError(f"a record of kind {kind} with {length} bytes at {self.n_bytes} of a run's stream")
            end = at + RECORD.size + length
            if end > len(joined):
                self._needed = end - at
                break
            payload = joined[at + RECORD.size : end]
            if kind == Kind.END and payload != CRC.pack(self._crc):
                raise ProtocolError("the run's stream is not the one that the board sent: its checksum differs")
            self._crc = zlib.crc32(joined[at:end], self._crc)
            yield Record(Kind(kind), sweep, payload)
            at = end
        rest = joined[at:]
        self._parts, self._held = [rest], len(rest)
