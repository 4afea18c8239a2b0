"""The wire protocol: both codecs against the text, and against each other."""

from __future__ import annotations

import re
import subprocess
import zlib
from enum import IntEnum, IntFlag
from pathlib import Path

import cffi
import pytest
from glauber.errors import ProtocolError
from glauber_drivers import wire
from glauber_drivers.wire import CRC, DATA, RECORD, REPLY, Frame, FrameReader, Kind, Operation, RecordReader, Segment
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "wire-protocol.md").read_text()
HEADER = (ROOT / "firmware_stubs" / "wire.h").read_text()

SESSION = 0x1234
EXAMPLES = [
    Frame(Operation.HELLO, SESSION, 1, wire.hello_request(SESSION, 4096)),
    Frame(Operation.PING, SESSION, 2, b"\0\1\2"),
    Frame(Operation.PING | REPLY, SESSION, 2, b"\0\0\0\0" + b"\0\1\2"),
    Frame(Operation.PROGRAM, SESSION, 3, wire.program_request(2, 2, 2)),
    Frame(Operation.WRITE, SESSION, 4, wire.write_request(Segment.FIELD, 0, b"\5\0\0\0\xfb\xff\xff\xff")),
    Frame(Operation.RUN | REPLY, SESSION, 8, b"\6\0\0\0"),
    Frame(Operation.PULL, SESSION, 9, wire.pull_request(8, 244, 0, 2048, again=False, checkpoint=True)),
    Frame(DATA, SESSION, 8, b"\0\0\0\0" + RECORD.pack(Kind.END, 4, 20) + CRC.pack(0)),
]
DUMPS = [bytes.fromhex(line) for line in re.findall(r"^ {8}((?:[0-9a-f]{2} ?)+)$", TEXT, re.MULTILINE)]


@pytest.fixture(scope="session")
def codec(tmp_path_factory):
    """firmware_stubs/frame.c, as a library."""
    library = tmp_path_factory.mktemp("codec") / "frame.so"
    source = ROOT / "firmware_stubs" / "frame.c"
    subprocess.run(["cc", "-std=c11", "-O1", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    ffi = cffi.FFI()
    ffi.cdef(
        """
        typedef struct {
            uint8_t *body; size_t room; size_t count; uint8_t code; uint8_t left; uint8_t broken;
        } decoder;
        size_t cobs_encode(const uint8_t *from, size_t count, uint8_t *to);
        void decoder_init(decoder *d, uint8_t *body, size_t room);
        int32_t decoder_take(decoder *d, const uint8_t **bytes, size_t *count);
        int body_is_whole(const uint8_t *body, size_t count);
        uint32_t crc32_of(uint32_t crc, const uint8_t *bytes, size_t count);
        """
    )
    return ffi, ffi.dlopen(str(library))


def c_frames(codec, data: bytes, room: int = 4096) -> tuple[list[bytes], int]:
    """(bodies that are whole, pieces that are no frames) of a stream, by the C codec."""
    ffi, lib = codec
    body, state = ffi.new("uint8_t[]", room), ffi.new("decoder *")
    lib.decoder_init(state, body, room)
    found, damaged = [], 0
    held = ffi.from_buffer("uint8_t[]", data)
    at, left = ffi.new("const uint8_t **", held), ffi.new("size_t *", len(data))
    while left[0]:
        length = lib.decoder_take(state, at, left)
        if length > 0 and lib.body_is_whole(body, length):
            found.append(bytes(ffi.buffer(body, length)))
        elif length:
            damaged += 1
    return found, damaged


def c_encode(codec, frame: Frame) -> bytes:
    ffi, lib = codec
    head = wire.HEADER.pack(frame.version, frame.operation, frame.session, frame.sequence, len(frame.payload))
    body = head + frame.payload
    body += CRC.pack(lib.crc32_of(0, body, len(body)))
    out = ffi.new("uint8_t[]", len(body) + len(body) // 254 + 2)
    return bytes(ffi.buffer(out, lib.cobs_encode(body, len(body), out)))


def test_the_documents_dumps(codec):
    assert len(DUMPS) == len(EXAMPLES)
    for dump, frame in zip(DUMPS, EXAMPLES, strict=True):
        assert wire.encode(frame) == dump
        assert c_encode(codec, frame) == dump
        assert list(FrameReader().feed(dump)) == [frame]
        assert len(c_frames(codec, dump)[0]) == 1


@pytest.mark.parametrize(
    ("numbers", "prefix"),
    [
        (Operation, ""),
        (wire.Status, ""),
        (Segment, ""),
        (wire.RunFlag, ""),
        (Kind, ""),
        (wire.Activity, ""),
    ],
)
def test_numbers_are_those_of_the_header(numbers: type[IntEnum] | type[IntFlag], prefix: str):
    there = {name: int(value, 0) for name, value in re.findall(r"WIRE_(\w+) = (\w+)", HEADER)}
    for one in numbers:
        assert there[one.name] == one.value, one


def test_capabilities_are_those_of_the_header():
    there = {name: int(value, 0) for name, value in re.findall(r"WIRE_(?:CAN_)?(\w+) = (\w+)", HEADER)}
    for one in wire.Capability:
        assert there[one.name] == one.value, one


def test_every_operation_and_status_stands_in_the_text():
    for operation in Operation:
        assert operation is Operation.HANG or f"| {operation.value:02X} | {operation.name}" in TEXT, operation
    for status in list(wire.Status)[1:]:
        assert f"\n| {status.value} | " in TEXT, status


frames = st.builds(
    Frame,
    operation=st.integers(0, 255),
    session=st.integers(0, 0xFFFF),
    sequence=st.integers(0, 0xFFFF),
    payload=st.binary(max_size=40) | st.integers(240, 1500).map(lambda n: b"\1" * n) | st.binary(max_size=800),
    version=st.integers(0, 255),
)


@given(frames, st.integers(1, 300))
def test_frames_come_back_in_any_pieces(codec, frame, step):
    encoded = wire.encode(frame)
    assert encoded == c_encode(codec, frame)
    assert encoded.count(0) == 1
    reader = FrameReader()
    found = [one for at in range(0, len(encoded), step) for one in reader.feed(encoded[at : at + step])]
    assert found == [frame]
    bodies, damaged = c_frames(codec, encoded)
    assert (len(bodies), damaged) == (1, 0)
    assert bodies[0][8:-4] == frame.payload


@given(st.lists(frames, max_size=4), st.binary(max_size=60))
def test_noise_costs_no_frame_behind_a_zero(codec, some, noise):
    data = noise + b"\0" + b"".join(map(wire.encode, some))
    reader = FrameReader()
    found = list(reader.feed(data))
    assert found[len(found) - len(some) :] == some
    bodies, damaged = c_frames(codec, data)
    assert len(bodies) == len(found)
    assert damaged == reader.damaged


@given(frames, st.data())
def test_a_changed_byte_is_noticed(codec, frame, data):
    encoded = bytearray(wire.encode(frame))
    at = data.draw(st.integers(0, len(encoded) - 2))
    encoded[at] ^= data.draw(st.integers(1, 255))
    for found in (list(FrameReader().feed(bytes(encoded))), c_frames(codec, bytes(encoded))[0]):
        assert not found, "one changed byte changes at most 16 bits, within what CRC-32 always sees"


@given(st.binary(max_size=400))
def test_any_bytes_are_survived_alike(codec, data):
    reader = FrameReader()
    found = list(reader.feed(data))
    bodies, damaged = c_frames(codec, data)
    assert [body[8:-4] for body in bodies] == [frame.payload for frame in found]
    assert damaged == reader.damaged


@given(st.binary(max_size=3000), st.integers(0, 0xFFFFFFFF))
def test_checksum_is_zlibs(codec, data, before):
    assert codec[1].crc32_of(before, data, len(data)) == zlib.crc32(data, before)


def test_frames_that_are_too_long_are_dropped(codec):
    encoded = wire.encode(Frame(1, 2, 3, bytes(range(1, 200))))
    assert c_frames(codec, encoded + encoded, room=64) == ([], 2)
    reader = FrameReader()
    assert list(reader.feed(b"\1" * 200_000)) == []
    assert list(reader.feed(b"\0" + encoded)) == [Frame(1, 2, 3, bytes(range(1, 200)))]


# Payloads


def stream(*records: tuple[Kind, int, bytes]) -> bytes:
    data = b"".join(RECORD.pack(kind, len(payload), sweep) + payload for kind, sweep, payload in records)
    return data + RECORD.pack(Kind.END, 4, 9) + CRC.pack(zlib.crc32(data))


@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(1, 40))
def test_records_in_any_pieces(payloads, step):
    data = stream(*((Kind.SAMPLE, k, payload) for k, payload in enumerate(payloads)))
    reader = RecordReader(100)
    found = [record for at in range(0, len(data), step) for record in reader.feed(data[at : at + step])]
    assert [record.data for record in found[:-1]] == payloads
    assert found[-1].kind is Kind.END
    assert reader.n_bytes == len(data)


@settings(max_examples=50)
@given(st.data())
def test_a_changed_stream_is_noticed(data):
    right = stream((Kind.SAMPLE, 1, b"abcd"), (Kind.CHECKPOINT, 1, b"efgh"))
    at = data.draw(st.integers(0, len(right) - 1))
    wrong = bytearray(right)
    wrong[at] ^= data.draw(st.integers(1, 255))
    reader = RecordReader(100)
    try:
        found = list(reader.feed(bytes(wrong)))
    except ProtocolError:
        return
    # a longer length waits for bytes; the sweep of END is covered by its frame's checksum alone
    assert all(record.kind is not Kind.END for record in found) or at in range(len(right) - 12, len(right) - 4)


@pytest.mark.parametrize(
    ("read", "payload"),
    [
        (wire.read_answer, b"\0\0"),
        (wire.read_answer, b"\x63\0\0\0"),
        (wire.read_hello, b"\1" * 87),
        (wire.read_hello, bytes(88)),
        (wire.read_health, b""),
        (wire.read_pulled, b"\0" * 15),
    ],
)
def test_malformed_answers(read, payload):
    with pytest.raises(ProtocolError):
        read(payload)


def test_records_that_cannot_be():
    with pytest.raises(ProtocolError, match="kind 77"):
        list(RecordReader(100).feed(RECORD.pack(77, 0, 0)))
    with pytest.raises(ProtocolError, match="101 bytes"):
        list(RecordReader(100).feed(RECORD.pack(Kind.SAMPLE, 101, 0)))
    with pytest.raises(ProtocolError, match="checksum"):
        list(RecordReader(100).feed(RECORD.pack(Kind.END, 3, 0) + b"abc"))
