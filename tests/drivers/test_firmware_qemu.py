"""The firmware on an emulated Cortex-M3: the same ELF that a board would get, but for its port."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bodies import assert_same, compiled, ising_program, run_whole
from firmware_lab import boardable, boot_again, build, needs_qemu, on_board, talking
from glauber.compile import make_run
from glauber.model import IsingModel
from glauber.registry import open_driver, parse_address
from glauber.schedule import SamplingSchedule
from glauber_drivers import wire
from glauber_drivers.wire import Operation
from test_identity import ising_cases, ising_reference, ising_run

pytestmark = [pytest.mark.qemu, needs_qemu]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("qemu")


@pytest.fixture(scope="module")
def machine():
    driver = open_driver(parse_address("firmware://qemu"))
    yield driver
    driver.close()


@pytest.mark.parametrize("model", ["frustrated", "bipartite", "32-bit", "n=1", "no edges"])
def test_identity(machine, model):
    for case in [case for case in ising_cases() if case["model"] == model][:4]:
        run = ising_run(case)
        if boardable(run):
            wanted = ising_reference(tuple(sorted(case.items())))
            assert_same(on_board(machine, ising_program(model), run), wanted, case)


def test_two_hundred_frames(machine):
    for k in range(200):
        data = bytes([k]) * (k % 100)
        assert machine.link.request(Operation.PING, data) == data


def test_bytes_are_lost_where_a_chip_loses_them(folder):
    """More than the receiver's ring holds while nobody reads it: counted, also over the reset that ends this."""
    with talking(build(folder, "mps2-an385-test.elf")) as talk:
        assert wire.read_health(talk.ask(Operation.HEALTH).rest).overruns == 0
        talk.send(Operation.HANG)
        talk.transport.write(b"\1" * 20_000 + b"\0", 60)
        boot_again(talk, 60)
        assert wire.read_health(talk.ask(Operation.HEALTH).rest).overruns > 0


def test_watchdog(folder):
    with talking(build(folder, "mps2-an385-test.elf")) as talk:
        talk.send(Operation.HANG)
        boot_again(talk, 60)
        health = wire.read_health(talk.ask(Operation.HEALTH).rest)
        assert (health.boots, health.watchdogs) == (1, 1)


@pytest.mark.slow
def test_long_work_does_not_wake_the_watchdog(machine):
    """The largest dense model in three chains with its moments: tens of millions of instructions between two sweeps."""
    n = 181
    model = IsingModel(np.zeros(n), np.stack(np.triu_indices(n, 1), axis=1), np.ones(n * (n - 1) // 2))
    run = make_run(compiled(model), SamplingSchedule(n_samples=30, n_chains=3, beta=0.001), seed=1, observe={"moments"})
    wanted = run_whole("core", compiled(model), replace(run, observe=frozenset({"samples", "moments"})))
    machine.program(compiled(model))
    batches = list(machine.run(run))
    np.testing.assert_array_equal(batches[-1].moments.edges, wanted.moments.edges)
    assert machine.health().watchdogs == 0
