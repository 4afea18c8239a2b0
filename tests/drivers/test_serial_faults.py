"""Boards that are unplugged, frozen, reset or badly wired: the right samples, or an error that says what happened."""

from __future__ import annotations

import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace

import glauber as gl
import numpy as np
import pytest
from bodies import ISING_MODELS, compiled, joined
from firmware_lab import PtyBoard
from glauber.cli import app
from glauber.compile import make_run
from glauber.errors import DeviceIOError, JobFailedError
from glauber_drivers import serial_link, serial_pbit, wire
from glauber_drivers.firmware import ProcessTransport, host_program
from glauber_drivers.serial_pbit import SerialPbitDriver
from glauber_drivers.transport import SerialTransport
from glauber_drivers.wire import Operation
from serial.tools import list_ports

MODEL = ISING_MODELS["torus"]()


@pytest.fixture
def impatient(monkeypatch):
    """A second where a bench waits five or ten."""
    monkeypatch.setattr(serial_link, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(serial_pbit, "RECONNECT_SECONDS", 1.0)


@pytest.fixture
def board() -> Iterator[PtyBoard]:
    made = PtyBoard()
    yield made
    made.close()


def schedule(n_samples: int = 30) -> gl.SamplingSchedule:
    return gl.SamplingSchedule(n_samples=n_samples, n_chains=40, n_warmup=9, beta=0.6)


@lru_cache(maxsize=4)
def wanted(n_samples: int = 30) -> gl.SampleSet:
    with gl.open_device("sim://ideal") as simulator:
        return simulator.submit(MODEL, schedule(n_samples), seed=3, observe={"samples", "moments"}).result(60)


def assert_right(result: gl.SampleSet, n_samples: int = 30) -> None:
    right = wanted(n_samples)
    np.testing.assert_array_equal(result.packed, right.packed)
    np.testing.assert_array_equal(result.last, right.last)
    if result.moments is not None:
        np.testing.assert_array_equal(result.moments.edges, right.moments.edges)


def running(device: gl.Device, n_samples: int = 200_000) -> gl.Job:
    """A job that has begun to give samples, and has not ended."""
    job = device.submit(MODEL, schedule(n_samples), seed=3)
    for progress in job.watch():
        if progress.samples_done > 0:
            assert progress.samples_done < n_samples, "this machine is too fast for the test"
            return job
    raise AssertionError(f"the job ended: {job.status}")


def test_a_real_terminal(board):
    with gl.open_device(f"serial://{board.path}?baud=115200") as device:
        assert_right(device.submit(MODEL, schedule(), seed=3, observe={"samples", "moments"}).result(60))


def test_a_port_that_is_in_use_is_refused(board):
    with gl.open_device(f"serial://{board.path}"), pytest.raises(gl.errors.DeviceNotFoundError, match="cannot open"):
        gl.open_device(f"serial://{board.path}")


def test_a_port_that_is_not_there():
    with pytest.raises(gl.errors.DeviceNotFoundError, match="plugged in"):
        gl.open_device("serial:///dev/ttyDoesNotExist7")


def test_unplugged_in_the_middle(board, impatient):
    with gl.open_device(f"serial://{board.path}") as device:
        job = running(device)
        board.unplug()
        with pytest.raises(DeviceIOError) as caught:
            job.result(30)
        message = str(caught.value)
        assert "broke and did not come back within 1 s" in message
        assert "What happened" in message
        assert "Plug the board in; the next job connects anew" in message


def test_replugged_in_time_the_job_goes_on(impatient):
    """Another port number, as USB gives; here the connection is asked for again, whatever lies behind."""
    first, second = PtyBoard(), PtyBoard()
    boards = [first, second]
    driver = SerialPbitDriver(lambda: SerialTransport(boards[0].path), "board")
    try:
        with gl.Device(driver) as device:
            job = running(device, 20_000)
            boards.pop(0)
            first.unplug()
            result = job.result(60)
            assert_right(result, 20_000)
            assert result.provenance.kernel["resumed after a break"] == "1"
            assert device.submit(MODEL, schedule(), seed=3).result(30).n_samples == 30
    finally:
        first.close()
        second.close()


def test_the_controller_dies_and_the_next_job_works(board, impatient):
    with gl.open_device(f"serial://{board.path}") as device:
        job = running(device)
        board.kill()
        with pytest.raises(DeviceIOError, match=r"frozen, unplugged or without power|did not answer"):
            job.result(60)
        board.revive()
        assert_right(device.submit(MODEL, schedule(), seed=3, observe={"samples", "moments"}).result(60))


def test_a_frozen_controller_that_recovers_loses_nothing(board):
    with gl.open_device(f"serial://{board.path}") as device:
        job = running(device, 20_000)
        board.freeze()
        time.sleep(0.5)
        assert not job.done(), "this machine is too fast for the test"
        board.thaw()
        assert_right(job.result(60), 20_000)


def test_a_controller_that_stays_frozen(board, impatient):
    with gl.open_device(f"serial://{board.path}") as device:
        job = running(device)
        board.freeze()
        began = time.monotonic()
        with pytest.raises(DeviceIOError, match="did not come back"):
            job.result(30)
        assert time.monotonic() - began < 10
        board.thaw()
        assert_right(device.submit(MODEL, schedule(), seed=3, observe={"samples", "moments"}).result(60))


def test_brown_out_in_the_middle_of_a_job():
    """The controller resets itself: it has lost program, run and session, and the samples are right all the same."""
    with gl.open_device("firmware://host") as device:
        driver = device._driver
        assert isinstance(driver, SerialPbitDriver)
        job = running(device, 20_000)
        driver.link.request(Operation.RESET)
        result = job.result(60)
        assert_right(result, 20_000)
        assert result.provenance.kernel["resumed after a break"] == "1"
        assert driver.health().boots == 1


def test_a_process_that_is_killed_is_started_again():
    made: list[ProcessTransport] = []

    def connect() -> ProcessTransport:
        made.append(ProcessTransport(lambda descriptor: [str(host_program("any"))], "host"))
        return made[-1]

    with gl.Device(SerialPbitDriver(connect, "host")) as device:
        job = running(device, 20_000)
        os.kill(made[0].process.pid, signal.SIGKILL)
        assert_right(job.result(60), 20_000)
        assert len(made) == 2


def test_a_board_that_breaks_again_and_again_is_given_up(monkeypatch):
    monkeypatch.setattr(serial_pbit, "STUCK_SECONDS", 1.0)

    class Short(ProcessTransport):
        """Gives up after HELLO and a little more."""

        count = 0

        def read(self, timeout: float) -> bytes:
            self.count += 1
            if self.count > 30:
                raise DeviceIOError("the cable is loose")
            return super().read(timeout)

    driver = SerialPbitDriver(lambda: Short(lambda descriptor: [str(host_program("any"))], "host"), "host")
    with gl.Device(driver) as device:
        job = device.submit(MODEL, schedule(200_000), seed=3)
        with pytest.raises(DeviceIOError, match=r"again and again.*the cable is loose|cable is loose"):
            job.result(60)


def test_another_board_at_the_same_port_is_noticed():
    kinds = ["any", "king", "king"]
    driver = SerialPbitDriver(lambda: ProcessTransport(lambda d: [str(host_program(kinds.pop(0)))], "port"), "port")
    with gl.Device(driver) as device:
        job = running(device)
        driver.link._transport.process.kill()
        with pytest.raises(DeviceIOError, match="another board answers"):
            job.result(30)


def test_closing_while_a_job_runs():
    device = gl.open_device("firmware://host")
    job = running(device)
    began = time.monotonic()
    device.close()
    assert time.monotonic() - began < 5
    with pytest.raises((gl.errors.JobCancelledError, JobFailedError, DeviceIOError)):
        job.result(5)


def test_health_and_energy_while_a_job_runs():
    with gl.open_device("firmware://host") as device:
        driver = device._driver
        assert isinstance(driver, SerialPbitDriver)
        job = running(device, 20_000)
        joules: list[float] = []
        thread = threading.Thread(target=lambda: joules.extend(driver.energy_counter_joules() for _ in range(50)))
        thread.start()
        assert_right(job.result(60), 20_000)
        thread.join()
        assert joules == sorted(joules)


def test_a_scan_finds_the_boards_that_answer(board, monkeypatch, capsys):
    ports = [SimpleNamespace(device=board.path), SimpleNamespace(device="/dev/ttyDoesNotExist7")]
    monkeypatch.setattr(list_ports, "comports", lambda: ports)
    app(["devices", "--scan"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert f"serial://{board.path}" in shown
    assert "1 devices" in shown
    monkeypatch.setattr(list_ports, "comports", list)
    app(["devices", "--scan"], standalone_mode=False)
    assert "no board answers" in capsys.readouterr().out


class Standing(ProcessTransport):
    """A board whose run never gets on: PULL is answered with no sweep and no byte."""

    def __init__(self) -> None:
        super().__init__(lambda descriptor: [str(host_program("any"))], "standing")
        self._reader = wire.FrameReader()

    def read(self, timeout: float) -> bytes:
        told = b""
        for frame in self._reader.feed(super().read(timeout)):
            if frame.operation == Operation.PULL | wire.REPLY:
                frame = replace(frame, payload=bytes(4) + struct.pack("<QII", 3, 0, wire.Activity.RUNNING))
            if frame.operation != wire.DATA:
                told += wire.encode(frame)
        return told


def test_a_run_that_stands_still_is_given_up(monkeypatch):
    monkeypatch.setattr(serial_link, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(serial_pbit, "STUCK_SECONDS", 0.5)
    with (
        gl.Device(SerialPbitDriver(Standing, "standing")) as device,
        pytest.raises(DeviceIOError, match="stood still at sweep 3"),
    ):
        device.submit(MODEL, schedule(), seed=3).result(30)


@pytest.mark.slow
def test_a_caller_that_was_away_gets_the_rest():
    """The board waits with a full buffer, for longer than the link's patience, while nobody takes batches."""
    driver = SerialPbitDriver(lambda: ProcessTransport(lambda d: [str(host_program("any"))], "host"), "host")
    try:
        program = compiled(MODEL)
        run = make_run(program, schedule(3000), seed=3, observe={"samples"})
        driver.program(program)
        batches = []
        for batch in driver.run(run):
            if not batches:
                time.sleep(serial_link.PATIENCE_SECONDS + 1)
            batches.append(batch)
        np.testing.assert_array_equal(joined(batches).samples, wanted(3000).packed)
    finally:
        driver.close()


def test_samples_and_moments_resume_together():
    """The state that a run goes on from is the one its moments belong to, not a later sample's."""
    made: list[ProcessTransport] = []

    def connect() -> ProcessTransport:
        made.append(ProcessTransport(lambda descriptor: [str(host_program("any"))], "host"))
        return made[-1]

    with gl.Device(SerialPbitDriver(connect, "host")) as device:
        job = device.submit(MODEL, schedule(30_000), seed=3, observe={"samples", "moments"})
        done = 0
        for progress in job.watch():
            if progress.samples_done > done and len(made) < 4:
                done = progress.samples_done
                os.kill(made[-1].process.pid, signal.SIGKILL)
        assert len(made) > 1, "this machine is too fast for the test"
        assert_right(job.result(60), 30_000)


def test_batches_of_moments_end_where_their_state_is():
    driver = SerialPbitDriver(lambda: ProcessTransport(lambda d: [str(host_program("any"))], "host"), "host")
    try:
        program = compiled(MODEL)
        driver.program(program)
        run = make_run(program, schedule(20_000), seed=3, observe={"samples", "moments"})
        batches = list(driver.run(run))
        assert len(batches) > 1, "this machine is too fast for the test"
        for batch in batches:
            np.testing.assert_array_equal(batch.samples[:, -1], batch.state)
    finally:
        driver.close()


class Deaf(ProcessTransport):
    """For a while nothing that is written arrives."""

    deaf = False

    def write(self, data: bytes, timeout: float) -> None:
        if not self.deaf:
            super().write(data, timeout)


def test_a_cancel_that_does_not_get_through_spoils_no_later_job():
    made: list[Deaf] = []

    def connect() -> Deaf:
        made.append(Deaf(lambda descriptor: [str(host_program("any"))], "deaf"))
        return made[-1]

    with gl.Device(SerialPbitDriver(connect, "deaf")) as device:
        job = running(device, 200_000)
        made[-1].deaf = True
        job.cancel()
        assert job.wait(10)
        made[-1].deaf = False
        assert_right(device.submit(MODEL, schedule(), seed=3, observe={"samples", "moments"}).result(30))


def test_a_run_that_nobody_waits_for_is_ended_by_a_new_session():
    driver = SerialPbitDriver(lambda: ProcessTransport(lambda d: [str(host_program("any"))], "host"), "host")
    with gl.Device(driver) as device:
        program = compiled(MODEL)
        driver.program(program)
        endless = make_run(program, schedule(10**6), seed=1)
        driver._start(program, endless, endless.n_sweeps)  # and its stream is forgotten
        other = ISING_MODELS["glass"]()
        assert device.submit(other, schedule(), seed=3).result(30).n_samples == 30


def test_the_energy_counter_does_not_fall_at_a_reset():
    with gl.open_device("firmware://host") as device:
        driver = device._driver
        assert isinstance(driver, SerialPbitDriver)
        device.submit(MODEL, schedule(3000), seed=3).result(60)
        before = driver.energy_counter_joules()
        driver.link.request(Operation.RESET)
        device.submit(MODEL, schedule(), seed=3).result(60)
        assert driver.energy_counter_joules() > before


def test_a_closed_link_stays_closed():
    driver = SerialPbitDriver(lambda: ProcessTransport(lambda d: [str(host_program("any"))], "host"), "host")
    driver.close()
    with pytest.raises(DeviceIOError, match="was closed"):
        driver.link.open()
    with pytest.raises(DeviceIOError, match="was closed"):
        driver.program(compiled(MODEL))


def test_answers_of_65536_requests_ago_are_none():
    driver = SerialPbitDriver(lambda: ProcessTransport(lambda d: [str(host_program("any"))], "host"), "host")
    try:
        stale = wire.Answer(wire.Status.OK, 0, bytes(88))
        driver.link._answers = {(operation, number): stale for operation in Operation for number in range(0x10000)}
        assert driver.link.request(Operation.PING, b"fresh") == b"fresh"
        assert driver.health().boots == 0
    finally:
        driver.close()


def test_a_slow_link_spends_its_time_on_the_run():
    """At 11.5 kB/s a checkpoint of 4 KB takes a third of a second: most sweeps must still be done between them."""

    class Slow(ProcessTransport):
        def read(self, timeout: float) -> bytes:
            data = super().read(timeout)
            time.sleep(len(data) / 11_500)
            return data

    driver = SerialPbitDriver(lambda: Slow(lambda d: [str(host_program("any"))], "slow"), "slow")
    try:
        program = compiled(gl.IsingModel(np.zeros(1000), np.array([(k, k + 1) for k in range(999)]), np.ones(999)))
        driver.program(program)
        batches, began = [], time.monotonic()
        for batch in driver.run(
            make_run(program, gl.SamplingSchedule(n_samples=1, n_chains=32, n_warmup=10**9), seed=1)
        ):
            batches.append(batch)
            if time.monotonic() - began > 4 and len(batches) > 1:
                break
        assert len(batches) < 6
        assert batches[-1].next_sweep > 200  # 30,000 on two free cores; with a checkpoint a sweep, a dozen
    finally:
        driver.close()
