"""Traffic: what was recorded is what is replayed, and whatever differs is told where."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from glauber.driver import StandIn, link
from glauber.errors import DeviceIOError, FileFormatError, ProtocolError
from glauber.testing import LinkFaults, Recorder, Replay
from glauber.testing.traffic import read_traffic
from hypothesis import given, settings
from hypothesis import strategies as st


class Echo:
    """A board that answers each write by its bytes, reversed."""

    def __init__(self):
        self.answers, self.closed = [], False

    def read(self, timeout):
        return self.answers.pop(0) if self.answers else b""

    def write(self, data, timeout):
        self.answers.append(data[::-1])

    def close(self):
        self.closed = True


def record(path, *writes):
    recorder = Recorder(path, "echo://board")
    transport = recorder(Echo())
    answers = []
    for data in writes:
        transport.write(data, 1.0)
        answers.append(transport.read(1.0))
    transport.close()
    recorder.close()
    return answers


def test_a_recording_is_readable(tmp_path):
    path = tmp_path / "t.jsonl"
    record(path, b"\x01\x02", b"xyz")
    header, opened, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert (header["format"], header["version"], header["address"]) == ("glauber.traffic", 1, "echo://board")
    assert header["created"].startswith("20")
    assert opened["event"] == "open"
    assert [(line["direction"], line["hex"]) for line in lines] == [
        ("to device", "0102"),
        ("from device", "0201"),
        ("to device", "78797a"),
        ("from device", "7a7978"),
    ]
    times = [line["t"] for line in lines]
    assert times == sorted(times)
    assert times[0] >= 0


@given(
    writes=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=12),
    cuts=st.lists(st.integers(1, 15), min_size=1, max_size=8),
)
@settings(max_examples=100, deadline=None)
def test_a_replay_gives_the_same_answers_however_writes_are_cut(tmp_path_factory, writes, cuts):
    path = tmp_path_factory.mktemp("traffic") / "t.jsonl"
    answers = record(path, *writes)
    replay, k = Replay(path), 0
    for data, answer in zip(writes, answers, strict=True):
        while data:
            assert replay.read(0.0) == b""  # not due yet
            size = cuts[k % len(cuts)]
            replay.write(data[:size], 1.0)
            data, k = data[size:], k + 1
        assert replay.read(0.0) == answer
    assert replay.finished


@given(
    writes=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8),
    at=st.integers(0, 10**6),
    bit=st.integers(0, 7),
)
@settings(max_examples=100, deadline=None)
def test_a_difference_is_told_by_its_offset(tmp_path_factory, writes, at, bit):
    path = tmp_path_factory.mktemp("traffic") / "t.jsonl"
    record(path, *writes)
    sent = bytearray(b"".join(writes))
    at %= len(sent)
    expected = sent[at]
    sent[at] ^= 1 << bit
    replay = Replay(path)
    with pytest.raises(ProtocolError, match=f"at byte {at} to the device") as caught:
        replay.write(bytes(sent), 1.0)
    assert f"{expected:02x}" in str(caught.value)
    assert f"{sent[at]:02x} " in str(caught.value) + " "
    with pytest.raises(ProtocolError, match=f"at byte {at}"):  # and it stays so
        replay.read(0.0)
    assert not replay.finished


def test_more_than_was_recorded_differs_at_the_end(tmp_path):
    record(tmp_path / "t.jsonl", b"ab")
    replay = Replay(tmp_path / "t.jsonl")
    replay.write(b"ab", 1.0)
    with pytest.raises(ProtocolError, match=r"at byte 2 .*nothing more was recorded"):
        replay.write(b"c", 1.0)


def test_reconnects_are_sessions_of_one_file(tmp_path):
    path = tmp_path / "t.jsonl"
    recorder = Recorder(path)
    for data in (b"one", b"two"):
        transport = recorder(Echo())
        transport.write(data, 1.0)
        transport.read(1.0)
        transport.close()
    recorder.close()
    assert len(read_traffic(path).sessions) == 2
    replay = Replay(path)
    assert isinstance(replay, StandIn)

    def never():
        raise AssertionError("a replay needs no board")

    for data in (b"one", b"two"):
        transport = link(never, replay)
        transport.write(data, 1.0)
        assert transport.read(0.0) == data[::-1]
        transport.close()
        with pytest.raises(DeviceIOError, match="closed"):
            transport.read(0.0)
    with pytest.raises(ProtocolError, match=r"opened 2 times .* once more"):
        link(never, replay)


def test_a_replay_closes_what_it_replaces(tmp_path):
    record(tmp_path / "t.jsonl", b"ab")
    board = Echo()
    transport = Replay(tmp_path / "t.jsonl")(board)
    assert board.closed
    transport.write(b"ab", 1.0)
    assert transport.read(0.0) == b"ba"


def test_a_recorder_and_faults_can_be_stacked(tmp_path):
    """What is recorded outside the faults is what the driver saw."""
    recorder, faults = Recorder(tmp_path / "t.jsonl"), LinkFaults(drops=0.2, seed=1)
    transport = recorder(faults(Echo()))
    seen = []
    for k in range(50):
        transport.write(bytes([k] * 5), 1.0)
        seen.append(transport.read(0.0))
    recorder.close()
    recorded = b"".join(data for _, data, _ in read_traffic(tmp_path / "t.jsonl").sessions[0].answers)
    assert recorded == b"".join(seen)
    assert len(recorded) < 250


HEADER = '{"format": "glauber.traffic", "version": 1, "address": "", "created": ""}\n'
OPEN = '{"t": 0, "event": "open"}\n'
BROKEN = {
    "empty": ("", 1, "truncated"),
    "no JSON": ("hello\n", 1, "not JSON"),
    "another format": ('{"format": "x"}\n', 1, "a recording begins with"),
    "another version": ('{"format": "glauber.traffic", "version": 2}\n', 1, "version 2"),
    "truncated": (HEADER + OPEN + '{"t": 1, "direction": "to de', 3, "truncated"),
    "a list": (HEADER + "[1]\n", 2, "JSON object"),
    "no time": (HEADER + '{"event": "open"}\n', 2, "t must be seconds"),
    "a time before the beginning": (HEADER + '{"t": -1, "event": "open"}\n', 2, "not -1"),
    "no direction": (HEADER + OPEN + '{"t": 1, "hex": ""}\n', 3, "direction"),
    "bytes before a link": (HEADER + '{"t": 1, "direction": "to device", "hex": "00"}\n', 2, "before any link"),
    "no hex": (HEADER + OPEN + '{"t": 1, "direction": "to device"}\n', 3, "hex"),
    "half a byte": (HEADER + OPEN + '{"t": 1, "direction": "to device", "hex": "012"}\n', 3, "hexadecimal"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_by_its_line(tmp_path, name):
    text, line, what = BROKEN[name]
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(FileFormatError, match=f"line {line}: .*{what}|line {line}.*{what}"):
        Replay(tmp_path / "t.jsonl")


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_recording_or_a_file_format_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("traffic") / "t.jsonl"
    path.write_bytes(HEADER.encode() + OPEN.encode() + data)
    with suppress(FileFormatError):  # and no other
        read_traffic(path)
