"""Faults of links and machines: each does what it says, at its rate, reproducibly, and nothing else."""

from __future__ import annotations

import math
import time

import glauber as gl
import numpy as np
import pytest
from glauber.errors import DeviceIOError, InvalidModelError
from glauber.registry import open_driver, parse_address
from glauber.testing import DriverFaults, FaultyDriver, LinkFaults
from glauber.testing.link_faults import KINDS
from hypothesis import given, settings
from hypothesis import strategies as st


class Wire:
    """A transport whose far end is a list of pieces to read, and the bytes that were written."""

    def __init__(self, *pieces):
        self.pieces, self.written, self.closed = list(pieces), [], False

    def read(self, timeout):
        return self.pieces.pop(0) if self.pieces else b""

    def write(self, data, timeout):
        self.written.append(bytes(data))

    def close(self):
        self.closed = True


def read_all(link):
    pieces = []
    while piece := link.read(0.0):
        pieces.append(piece)
    return pieces


DATA = bytes(range(256)) * 4000  # 1 MB


def test_without_faults_nothing_changes():
    wire = Wire(DATA)
    link = LinkFaults(seed=1)(wire)
    link.write(DATA, 1.0)
    assert read_all(link) == [DATA] == wire.written
    assert read_all(link) == []


@pytest.mark.parametrize("kind", ["flips", "drops", "duplicates"])
@pytest.mark.parametrize("rate", [1e-5, 1e-3, 0.3])
def test_rates_are_what_was_asked_for(kind, rate):
    """The count of faults is binomial: alpha 1e-6, power above 0.99 against a rate of 1e-3 that is 30 % off."""
    faults = LinkFaults(**{kind: rate}, seed=3)
    wire = Wire()
    link = faults(wire)
    for start in range(0, len(DATA), 1000):
        link.write(DATA[start : start + 1000], 1.0)
    n, count = len(DATA), getattr(faults.counts, kind)
    assert abs(count - n * rate) < 4.9 * math.sqrt(n * rate * (1 - rate)) + 1
    got = b"".join(wire.written)
    if kind == "flips":
        flipped = np.unpackbits(np.frombuffer(got, np.uint8) ^ np.frombuffer(DATA, np.uint8))
        assert flipped.sum() == count
    else:
        assert len(got) == n + count * (1 if kind == "duplicates" else -1)
    assert faults.counts.bytes == n


@given(
    data=st.binary(max_size=2000),
    cuts=st.lists(st.integers(1, 200), min_size=1, max_size=20),
    rates=st.dictionaries(st.sampled_from(["flips", "drops", "duplicates", "splits"]), st.floats(0, 0.5)),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_lengths_add_up_and_seeds_repeat(data, cuts, rates, seed):
    def disturbed():
        faults = LinkFaults(**rates, seed=seed)
        wire = Wire()
        link, rest, k = faults(wire), data, 0
        while rest:
            size = cuts[k % len(cuts)]
            link.write(rest[:size], 1.0)
            rest, k = rest[size:], k + 1
        return wire.written, faults.counts

    (first, counts), (second, again) = disturbed(), disturbed()
    assert first == second
    assert counts == again
    assert len(b"".join(first)) == len(data) - counts.drops + counts.duplicates
    assert counts.bytes == len(data)
    if not rates.keys() - {"splits"}:
        assert b"".join(first) == data


def test_both_directions_suffer():
    faults = LinkFaults(drops=0.01, seed=5)
    wire = Wire(DATA[:100_000])
    link = faults(wire)
    assert 98_000 < len(b"".join(read_all(link))) < 99_900
    link.write(DATA[:100_000], 1.0)
    assert 98_000 < len(b"".join(wire.written)) < 99_900


def test_it_is_fast_enough_for_megabytes():
    faults = LinkFaults(flips=1e-3, drops=1e-3, duplicates=1e-3, seed=1)
    link = faults(Wire())
    began = time.process_time()
    for start in range(0, len(DATA), 4096):
        link.write(DATA[start : start + 4096], 1.0)
    assert time.process_time() - began < 1.0  # of a megabyte; about 0.02 s on one core


def test_a_split_delivery_comes_in_pieces():
    link = LinkFaults(splits=0.05, seed=2)(Wire(DATA[:1000]))
    pieces = read_all(link)
    assert len(pieces) > 20
    assert b"".join(pieces) == DATA[:1000]


def test_a_broken_link_stays_dead_and_the_next_one_works():
    """What passed before the break is delivered; counters and random numbers go on over the reconnect."""
    faults = LinkFaults(disconnect_after=10, seed=1)
    wire = Wire(b"0123456789abcdef")
    link = faults(wire)
    assert link.read(0.0) == b"0123456789"
    for act in (lambda: link.read(0.0), lambda: link.write(b"x", 1.0), lambda: link.read(0.0)):
        with pytest.raises(DeviceIOError, match="on purpose"):
            act()
    assert wire.closed
    later = faults(Wire(DATA))
    assert read_all(later) == [DATA]
    assert faults.counts.disconnects == 1
    assert faults.counts.transports == 2
    faults.break_after(3)
    broken = Wire()
    with pytest.raises(DeviceIOError):
        faults(broken).write(b"abcdef", 1.0)
    assert broken.written == [b"abc"]


def test_disconnects_at_random():
    faults, lives = LinkFaults(disconnects=1e-2, seed=4), []
    for _ in range(200):
        before, link = faults.counts.bytes, faults(Wire(*[b"x"] * 5000))
        with pytest.raises(DeviceIOError):
            while link.read(0.0):
                pass
        lives.append(faults.counts.bytes - before)
    assert 75 < np.mean(lives) < 130  # geometric with mean 100: five standard errors of 7


def test_a_delay_holds_back_and_loses_nothing():
    link = LinkFaults(delays=0.9, delay_seconds=0.05, seed=1)(Wire(b"hello"))
    began = time.monotonic()
    assert link.read(0.0) == b""
    assert link.read(1.0) == b"hello"
    assert 0.04 < time.monotonic() - began < 0.9


def test_a_freeze_stops_both_directions_and_loses_nothing():
    wire = Wire(b"a", b"b")
    faults = LinkFaults(freezes=0.9, freeze_seconds=0.5, seed=1)
    link = faults(wire)
    began = time.monotonic()  # before the read, with which it freezes
    first = link.read(0.0)
    faults.active = False
    with pytest.raises(DeviceIOError, match="took none"):
        link.write(b"x", 0.01)
    link.write(b"y", 1.0)
    assert time.monotonic() - began > 0.45
    assert [p for p in [first, *read_all(link)] if p] == [b"a", b"b"]
    assert wire.written == [b"y"]
    assert faults.counts.freezes == 1


@pytest.mark.parametrize("wrong", [{name: 1.0} for name in KINDS] + [{"flips": -0.1}, {"delay_seconds": math.nan}])
def test_wrong_rates_are_refused(wrong):
    with pytest.raises(InvalidModelError, match=next(iter(wrong))):
        LinkFaults(**wrong)
    with pytest.raises(InvalidModelError, match="disconnect_after"):
        LinkFaults(disconnect_after=-1)


# Machines

MODEL = gl.IsingModel(np.zeros(64), [(0, 1), (8, 9)], [0.5, -0.5])
SCHEDULE = gl.SamplingSchedule(n_samples=100, n_chains=4)


def chip(seed=1, **faults):
    driver = FaultyDriver(open_driver(parse_address("sim://pbit-king-64")), DriverFaults(**faults), seed)
    return driver, gl.Device(driver, seed=9)


def test_a_machine_without_faults_is_the_machine():
    with gl.open_device("sim://pbit-king-64") as right, chip()[1] as device:
        a, b = (each.submit(MODEL, SCHEDULE, seed=3).result(30) for each in (right, device))
    np.testing.assert_array_equal(a.spins, b.spins)
    assert a.provenance.contract_version == b.provenance.contract_version


def test_stuck_bits_never_move_in_anything_that_is_read():
    driver, device = chip(stuck=3)
    with device:
        result = device.submit(MODEL, SCHEDULE, observe={"samples", "last", "moments"}).result(30)
    assert len(driver.stuck) == 3
    for site, value in driver.stuck.items():
        assert (result.spins[..., site] == value).all()
        assert (result.last[:, site] == value).all()
    np.testing.assert_array_equal(result.moments.sites, result.spins.sum(axis=1))
    assert (np.abs(result.spins.sum(axis=(0, 1))) == 400).sum() == 3


def test_swapped_sites_exchange_their_clamps():
    driver, device = chip(swapped=1)
    with device:
        device.submit(MODEL, SCHEDULE).result(30)
        (a, b) = driver.swapped[0]
        result = device.submit(MODEL, SCHEDULE, clamp={a: 1, b: -1}, observe={"samples", "moments"}).result(30)
    assert (result.spins[..., a] == -1).all()
    assert (result.spins[..., b] == 1).all()
    np.testing.assert_array_equal(result.moments.sites, result.spins.sum(axis=1))
    np.testing.assert_array_equal(result.moments.edges[:, 0], (result.spins[..., 0] * result.spins[..., 1]).sum(axis=1))


def test_the_seed_decides_which():
    def stuck(seed):
        driver, device = chip(seed, stuck=2)
        with device:
            device.submit(MODEL, SCHEDULE).result(30)
        return driver.stuck

    assert stuck(1) == stuck(1)
    assert stuck(1) != stuck(2)


def test_a_brown_out_happens_once():
    _, device = chip(brown_outs=1)
    with device:
        with pytest.raises(DeviceIOError, match="on purpose"):
            device.submit(MODEL, SCHEDULE).result(30)
        assert device.submit(MODEL, SCHEDULE).result(30).n_samples == 100


def test_a_machine_that_is_gone_stays_gone():
    _, device = chip(gone_after=1)
    with device:
        device.submit(MODEL, SCHEDULE).result(30)
        for _ in range(2):
            with pytest.raises(DeviceIOError, match="plug it in"):
                device.submit(MODEL, SCHEDULE).result(30)


def test_a_freeze_delays_every_batch():
    _, device = chip(freeze_seconds=0.2)
    with device:
        assert device.submit(MODEL, SCHEDULE).result(30).timing["sample"] > 0.19


def test_more_faults_than_p_bits_are_refused():
    _, device = chip(stuck=60, swapped=3)
    with device, pytest.raises(InvalidModelError, match="66 p-bits are to be stuck or exchanged, and there are 64"):
        device.submit(MODEL, SCHEDULE).result(30)
