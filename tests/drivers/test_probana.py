"""The Probana driver against an emulator of the board's protocol; no board was ever there."""

from __future__ import annotations

import os
import pty
import threading
import time
import tty
from contextlib import closing

import glauber as gl
import numpy as np
import pytest
from glauber.compile import compile_program, make_run, step_of
from glauber.compile.order import make_order
from glauber.driver import Address
from glauber.errors import (
    BudgetExceededError,
    DeviceClosedError,
    DeviceIOError,
    DeviceNotFoundError,
    GlauberError,
    JobCancelledError,
    ModelNotSupportedError,
    ProtocolError,
)
from glauber.testing import ExactLaw, chi_square
from glauber_drivers import probana, probana_link
from glauber_drivers.probana import ProbanaDriver, ProbanaFactory
from glauber_drivers.probana_link import HINTS, ProbanaLink, number, parse_greeting, parse_sample
from glauber_drivers.probana_plan import anneal_lines, bank_list
from hypothesis import given
from hypothesis import strategies as st
from probana_emulator import MemoryTransport, ProbanaOnPty

ALPHA = 1e-4
"""Of each test of a law; the seeds are fixed, so a right driver passes always."""

KITE = gl.IsingModel.from_edges([(0, 1, 0.7), (1, 2, -0.5), (2, 0, 0.31), (2, 3, 0.4)], biases={0: 0.3, 3: -0.2})
MODELS = {
    "an odd cycle": KITE,
    "a pair": gl.IsingModel.from_edges([(0, 1, -0.9)]),
    "fields only": gl.IsingModel([0.5, -1.0, 0.1], np.empty((0, 2), dtype=int), []),
    "fields beyond the clip": gl.IsingModel.from_edges([(0, 1, 0.5)], biases={0: 15.0}),
    "two colours": gl.IsingModel.from_edges([(k, (k + 1) % 6, 0.4) for k in range(6)], biases={1: 0.2}),
}


class Boards:
    """Opens a new emulator whenever the driver opens the link."""

    def __init__(self, *options: dict) -> None:
        self._options = list(options)
        self.opened: list[MemoryTransport] = []

    def connect(self) -> MemoryTransport:
        options = self._options.pop(0) if self._options else {}
        self.opened.append(MemoryTransport(**options))
        return self.opened[-1]

    @property
    def commands(self) -> list[str]:
        return self.opened[-1].board.commands


def device_on(boards: Boards) -> gl.Device:
    return gl.Device(ProbanaDriver(boards.connect, "memory"), seed=5)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(probana_link, "START_SECONDS", 5.0)
    monkeypatch.setattr(probana_link, "POLL_SECONDS", 0.02)


# The law


@pytest.mark.parametrize("name", MODELS)
def test_samples_follow_the_law_of_the_programmed_model(name):
    schedule = gl.SamplingSchedule(n_samples=300, n_chains=12, n_warmup=30, sweeps_per_sample=7, beta=0.8)
    with device_on(Boards({"seed": 11})) as device:
        result = device.submit(MODELS[name], schedule).result()
    law = ExactLaw(result.program.as_model(), 0.8)
    assert chi_square(law.counts(result.spins), law.probabilities).p_value > ALPHA


def test_a_law_that_is_off_would_be_seen():
    schedule = gl.SamplingSchedule(n_samples=900, n_chains=12, n_warmup=30, sweeps_per_sample=7, beta=0.8)
    with device_on(Boards({"seed": 11})) as device:
        result = device.submit(KITE, schedule).result()
    law = ExactLaw(KITE, 0.9)
    assert chi_square(law.counts(result.spins), law.probabilities).p_value < ALPHA


def test_p_bits_with_curves_of_their_own_are_calibrated_away():
    """Within what 2,000 calibration samples a point and straight lines between 51 points leave: 0.01 of a mean."""
    curves = [(1.2 + 0.1 * lane, 0.1 + 0.02 * lane) for lane in range(8)]
    schedule = gl.SamplingSchedule(n_samples=150, n_chains=16, n_warmup=10, sweeps_per_sample=2, beta=1.0)
    with device_on(Boards({"seed": 3, "curves": curves})) as device:
        result = device.submit(MODELS["fields only"], schedule).result()
    wanted = np.tanh([0.5, -1.0, 0.1])
    assert np.abs(result.spins.mean(axis=(0, 1)) - wanted).max() < 0.08  # 4 standard errors and the calibration's


def test_chains_in_turn_follow_the_law_too(monkeypatch):
    monkeypatch.setattr("glauber_drivers.probana_plan.MAX_P_BITS", 12)  # three chains of four at a time
    schedule = gl.SamplingSchedule(n_samples=400, n_chains=8, n_warmup=30, sweeps_per_sample=7, beta=0.8)
    boards = Boards({"seed": 4})
    with device_on(boards) as device:
        result = device.submit(KITE, schedule).result()
    law = ExactLaw(result.program.as_model(), 0.8)
    for chains in (result.spins, result.spins[:3], result.spins[3:6], result.spins[6:]):
        assert chi_square(law.counts(chains), law.probabilities).p_value > ALPHA
    assert boards.commands.count("VCOMMIT") == 3, "each turn must have a start of its own"
    np.testing.assert_array_equal(result.last, result.spins[:, -1])
    assert result.provenance.kernel["chains at a time"] == "3"


@pytest.mark.parametrize("shape", ["geometric", "linear"])
def test_anneals_end_in_ground_states(shape):
    model = gl.IsingModel.from_edges([(k, k + 1, 1.0) for k in range(9)], biases={0: 0.5})
    schedule = gl.AnnealingSchedule(n_sweeps=300, n_chains=10, beta_start=0.1, beta_end=6.0, shape=shape)
    boards = Boards({"seed": 2})
    with device_on(boards) as device:
        result = device.submit(model, schedule).result()
    assert (result.energies == -9.5).mean() > 0.5
    kinds = {command.split()[1] for command in boards.commands if command.startswith("ANNEAL ")}
    assert ("TABLE" in kinds) == (shape == "geometric")
    assert ("LINEAR" in kinds) == (shape == "linear")


def test_temperatures_reach_the_board_sweep_by_sweep():
    betas = tuple(np.linspace(0.2, 1.0, 40) ** 2)
    boards = Boards({})
    with device_on(boards) as device:
        result = device.submit(MODELS["a pair"], gl.AnnealingSchedule(table=betas)).result()
    sent: list[float] = []
    for command in boards.commands:
        words = command.split()
        if words[:2] == ["ANNEAL", "VALUES"]:
            sent += map(float, words[4:])
        elif words[:2] == ["ANNEAL", "CONSTANT"]:
            sent.append(float(words[2]))
    np.testing.assert_allclose(sent, np.array(betas) * result.provenance.quantisation.step, rtol=3e-7)


def test_a_table_longer_than_the_boards_goes_in_parts():
    b = (np.linspace(0.1, 1.0, 20_000) ** 2 * 2**33).astype(np.uint64)
    lines, by_table = anneal_lines(b[:8192])
    assert by_table
    assert lines[0] == "ANNEAL TABLE 8192"
    assert max(map(len, lines)) <= 191
    assert sum(int(line.split()[3]) for line in lines if "VALUES" in line) == 8192


# What is sent


def test_what_is_loaded_is_not_sent_again():
    boards = Boards({})
    with device_on(boards) as device:
        device.submit(KITE, gl.SamplingSchedule(n_samples=5)).result()
        before = len(boards.commands)
        device.submit(KITE, gl.SamplingSchedule(n_samples=5, beta=0.3)).result()
        again = boards.commands[before:]
        assert [command.split()[0] for command in again] == ["VCOMMIT", "ANNEAL", "RUN"]
        before = len(boards.commands)
        device.submit(KITE, gl.SamplingSchedule(n_samples=5), fields=np.ones(4)).result()
        assert {command.split()[0] for command in boards.commands[before:]} >= {"H", "VCOMMIT", "RUN"}


def test_fields_of_a_job_replace_the_models():
    with device_on(Boards({"seed": 8})) as device:
        schedule = gl.SamplingSchedule(n_samples=300, n_chains=10, sweeps_per_sample=3)
        result = device.submit(MODELS["fields only"], schedule, fields=[-0.5, 1.0, 0.0]).result()
    law = ExactLaw(gl.IsingModel([-0.5, 1.0, 0.0], np.empty((0, 2), dtype=int), []), 1.0)
    assert chi_square(law.counts(result.spins), law.probabilities).p_value > ALPHA


@given(st.data())
def test_banks_hold_each_p_bit_once_and_no_coupled_ones(data):
    n = data.draw(st.integers(1, 40))
    pairs = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda pair: pair[0] < pair[1])
    edges = data.draw(st.lists(pairs, unique=True, max_size=120)) if n > 1 else []
    copies, physical = data.draw(st.integers(1, 128 // n)), data.draw(st.sampled_from([1, 4, 8, 16]))
    order = make_order(n, np.array(edges, dtype=np.int32).reshape(-1, 2))
    banks = bank_list(order.colour_start, order.site, copies, physical)
    assert sorted(node for bank in banks for node in bank) == list(range(copies * n))
    assert max(map(len, banks)) <= physical
    assert len(banks) <= 128
    bank_of = {node: k for k, bank in enumerate(banks) for node in bank}
    for a, b in edges:
        for copy in range(copies):
            assert bank_of[a + copy * n] != bank_of[b + copy * n]


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_numbers_survive_as_text(value):
    text = number(value)
    assert np.float32(text) == np.float32(value)
    assert len(text) < 16


def test_integers_up_to_2_24_survive_as_text():
    for value in (0, 1, -1, 2**24 - 1, 2**24, -(2**24) + 1):
        assert float(number(value)) == value


# What comes back


@given(st.lists(st.booleans(), min_size=1, max_size=128))
def test_a_sample_line_is_read_back(bits):
    line = "S " + "".join("01"[bit] for bit in bits)
    assert parse_sample(line, len(bits)).tolist() == bits
    for wrong in (line + "0", line[:-1], line[1:], line.replace("S", "T"), line[:-1] + "2"):
        with pytest.raises(ProtocolError):
            parse_sample(wrong, len(bits))


@given(st.text(max_size=200))
def test_a_line_of_anything_is_a_sample_or_a_typed_error(line):
    try:
        parse_sample(line, 4)
    except DeviceIOError:
        return
    assert line[:2] == "S "
    assert set(line[2:]) <= {"0", "1"}


@given(st.text(max_size=60))
def test_a_greeting_of_anything_is_none_or_a_typed_error(line):
    assert parse_greeting(line) is None


@given(st.binary(max_size=300), st.integers(1, 7))
def test_lines_are_put_together_from_any_pieces(noise, size):
    class Pieces:
        def __init__(self) -> None:
            data = noise.replace(b"\n", b"") + b"\r\nOK\n"
            self.pieces = [data[k : k + size] for k in range(0, len(data), size)]

        def read(self, timeout: float) -> bytes:
            return self.pieces.pop(0) if self.pieces else b""

        def write(self, data: bytes, timeout: float) -> None: ...

        def close(self) -> None: ...

    link = ProbanaLink(Pieces(), "pieces")
    link.answer("x", 1.0)
    assert link.answer("x", 1.0) == "OK"


def test_a_stream_without_lines_is_refused():
    class Endless:
        def read(self, timeout: float) -> bytes:
            return b"\xff" * 1000

        def write(self, data: bytes, timeout: float) -> None: ...

        def close(self) -> None: ...

    with pytest.raises(DeviceNotFoundError, match="another baud rate"):
        ProbanaDriver(Endless, "noise")


# Opening


def test_greeting_waits_through_a_slow_start_and_its_banner():
    with closing(ProbanaOnPty(boot_seconds=0.2)) as board, closing(open_board(board)) as driver:
        assert driver.spec.n_sites == 128
        assert "8 physical" in driver.spec.units.source


def test_greeting_skips_a_run_that_somebody_left():
    transport = MemoryTransport()
    transport.said += b"S 01011\r\nS 1101\r\nDONE\r\n"
    transport.board.feed(b"VCLEAR 4 ")  # half a command of theirs
    driver = ProbanaDriver(lambda: transport, "memory")
    assert transport.board.commands[-1] == "ANNEAL"
    driver.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": 3}, "speaks version 2"),
        ({"refuse": {"PING": "UNKNOWN_COMMAND"}}, "did not answer PING"),
    ],
)
def test_other_boards_are_not_opened(options, message, monkeypatch):
    monkeypatch.setattr(probana_link, "START_SECONDS", 0.1)
    transport = MemoryTransport(**options)
    with pytest.raises(DeviceNotFoundError, match=message):
        ProbanaDriver(lambda: transport, "memory")
    assert transport.closed


@pytest.mark.parametrize("text", ["probana://", "probana:///dev/x?baud=fast", "probana:///dev/x?speed=1"])
def test_addresses_that_cannot_be_meant(text):
    with pytest.raises(DeviceNotFoundError, match="probana:///dev/ttyACM0"):
        gl.open_device(text)


def test_a_port_that_is_not_there():
    with pytest.raises(DeviceNotFoundError, match="plugged in"):
        gl.open_device("probana:///dev/there-is-no-such-port")


def test_by_address_over_a_tty_with_middleware():
    seen = []

    def wrap(transport):
        seen.append(transport)
        return transport

    with closing(ProbanaOnPty(seed=6)) as board, gl.open_device(f"probana://{board.path}?seed=3", wrap=wrap) as device:
        result = device.submit(KITE, gl.SamplingSchedule(n_samples=20, n_chains=2)).result()
        assert result.spins.shape == (2, 20, 4)
        assert result.provenance.kernel["samples"].startswith("not reproducible")
        assert len(seen) == 1
    assert list(ProbanaFactory().devices()) == []


# What it refuses


def ring(n: int) -> gl.IsingModel:
    return gl.IsingModel.from_edges([(k, (k + 1) % n, 1.0) for k in range(n)])


def complete(n: int) -> gl.IsingModel:
    return gl.IsingModel.from_edges([(a, b, 1.0) for a in range(n) for b in range(a)])


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (ring(129), {}, "129 sites, the device 128"),
        (complete(66), {}, "4290 directed ones .* the board 4096"),
        (KITE, {"initial": [1, 1, 1, 1]}, "draws its start itself"),
        (KITE, {"clamp": {0: 1}}, "cannot hold spins"),
        (KITE, {"fields": np.ones((2, 4)), "schedule": gl.SamplingSchedule(n_chains=2)}, "one set of fields"),
        (KITE, {"fields": [1e6, 0, 0, 0]}, "exact up to 16777216"),
        (KITE, {"schedule": gl.TemperingSchedule(betas=(0.1, 0.2), n_samples=2)}, "cannot do tempering"),
        (gl.PottsModel(np.zeros((2, 3)), [(0, 1)], [1.0]), {}, "the device has p-bits"),
    ],
)
def test_refusals(model, arguments, message):
    with device_on(Boards({})) as device:
        schedule = arguments.pop("schedule", gl.SamplingSchedule(n_samples=3))
        with pytest.raises(ModelNotSupportedError, match=message):
            device.submit(model, schedule, **arguments)
        with pytest.raises(ModelNotSupportedError, match=message):
            device.estimate(model, schedule, **arguments)


def test_a_driver_by_itself_refuses_too():
    with closing(ProbanaDriver(MemoryTransport, "memory")) as driver:
        spec = gl.load_spec("ideal")
        potts = gl.PottsModel(np.zeros((2, 3)), [(0, 1)], [1.0])
        p_dits = compile_program(potts, step_of(potts, spec))
        for refusing in (lambda: driver.program(p_dits), lambda: driver.admit(None, p_dits)):
            with pytest.raises(ModelNotSupportedError, match="no p-dits"):
                refusing()
        program = compile_program(KITE, step_of(KITE, spec))
        run = make_run(program, gl.TemperingSchedule(betas=(0.1, 0.2), n_samples=2), seed=1)
        with pytest.raises(ModelNotSupportedError, match="heat bath"):
            driver.admit(run, program)
        run = make_run(program, gl.SamplingSchedule(), seed=1, clamp=np.ones((1, 4), np.int8))
        with pytest.raises(ModelNotSupportedError, match="cannot hold spins"):
            driver.admit(run, program)
        with pytest.raises(ModelNotSupportedError, match="nothing is programmed"):
            next(driver.run(run))


def test_a_line_that_is_too_long_is_never_sent():
    transport = MemoryTransport()
    link = ProbanaLink(transport, "memory")
    with pytest.raises(ProtocolError, match="longer than the 191 characters"):
        link.send(["J 0 1 " + "1" * 186])
    assert transport.board.commands == []


def test_an_answer_to_nothing_is_seen():
    boards = Boards({}, {})
    with device_on(boards) as device:
        boards.opened[0].said += b"READY PROBANA 2 8 WORKING\r\n"
        assert "where OK or ERR was expected; was it reset" in str(failure(device))


def test_the_largest_models_fit():
    with device_on(Boards({})) as device:
        for model in (ring(128), complete(64)):
            assert device.submit(model, gl.SamplingSchedule(n_samples=2)).result().spins.shape[2] == model.n_sites


# What goes wrong


def failure(device: gl.Device, n_samples: int = 50) -> BaseException:
    job = device.submit(KITE, gl.SamplingSchedule(n_samples=n_samples))
    with pytest.raises(GlauberError) as caught:
        job.result(timeout=20)
    assert job.status is gl.JobStatus.FAILED
    return caught.value


@pytest.mark.parametrize("reason", HINTS)
def test_every_refusal_is_typed_says_what_to_do_and_ends_with_the_job(reason):
    command = {"CAPACITY": "VCLEAR", "UPDATE_MODE": "VCLEAR", "BANK_CONFLICT": "VCOMMIT", "LINE_TOO_LONG": "J"}
    name = command.get(reason, reason.split("_")[0])
    name = "J" if reason == "UNKNOWN_COMMAND" else name
    if name == "ANNEAL":
        boards = Boards({}, {})
        device = device_on(boards)
        boards.opened[0].board.refuse["ANNEAL"] = reason
    else:
        device = device_on(Boards({"refuse": {name: reason}}, {}))
    with device:
        error = failure(device)
        assert isinstance(error, ModelNotSupportedError if reason == "CAPACITY" else ProtocolError)
        assert f"ERR {reason}" in str(error)
        assert HINTS[reason] in str(error)
        assert device.submit(KITE, gl.SamplingSchedule(n_samples=5)).result().n_samples == 5  # on a new link


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("S 01", ProtocolError, "expected a sample of 4 p-bits"),
        ("S 01x1", ProtocolError, "expected a sample of 4 p-bits"),
        ("\xff\xfe garbage", ProtocolError, "expected a sample of 4 p-bits"),
        ("DONE", ProtocolError, "ended with 'DONE' after 7 samples"),
        ("CALIBRATION", DeviceIOError, "started anew in the middle of a run"),
        (None, DeviceIOError, "did not answer 'RUN .*the next job opens memory anew"),
    ],
)
def test_a_bad_line_ends_the_job_and_not_the_device(line, kind, message, monkeypatch):
    monkeypatch.setattr(probana, "SILENCE_SECONDS", 0.2)
    with device_on(Boards({"corrupt": {7: line}}, {})) as device:
        error = failure(device)
        assert type(error) is kind
        assert_matches(error, message)
        assert device.submit(KITE, gl.SamplingSchedule(n_samples=5)).result().n_samples == 5


def assert_matches(error: BaseException, message: str) -> None:
    with pytest.raises(type(error), match=message):
        raise error


def test_a_sample_too_many_is_seen():
    with device_on(Boards({"corrupt": {49: "S 0101\r\nS 0101"}}, {})) as device:
        assert "expected DONE" in str(failure(device))


def open_board(board: ProbanaOnPty) -> ProbanaDriver:
    driver = ProbanaFactory().open(Address("probana", board.path, {}, f"probana://{board.path}"))
    assert isinstance(driver, ProbanaDriver)
    return driver


def test_unplugged_in_the_middle_of_a_job_and_plugged_in_again(tmp_path):
    """The port's name stays, as with a udev link; what is behind it changes."""
    port = tmp_path / "probana"
    with closing(ProbanaOnPty(unplug_at=20)) as first, closing(ProbanaOnPty()) as second:
        port.symlink_to(first.path)
        with gl.open_device(f"probana://{port}") as device:
            error = failure(device)
            assert type(error) is DeviceIOError
            assert_matches(error, "broke.*samples are lost; check the cable, and submit it again")
            missing = failure(device)
            assert_matches(missing, "the board is gone|broke")
            port.unlink()
            port.symlink_to(second.path)
            result = device.submit(KITE, gl.SamplingSchedule(n_samples=5)).result(timeout=20)
            assert result.n_samples == 5


def test_a_cancelled_job_stops_after_a_short_run_and_the_next_one_is_clean(monkeypatch):
    monkeypatch.setattr(probana, "BATCH_SECONDS", 0.02)
    boards = Boards({"seed": 9})
    with device_on(boards) as device:
        job = device.submit(KITE, gl.SamplingSchedule(n_samples=10**8))
        for progress in job.watch():
            if progress.samples_done > 5:
                break
        began = time.perf_counter()
        job.cancel()
        with pytest.raises(JobCancelledError):
            job.result(timeout=10)
        assert time.perf_counter() - began < 5
        assert boards.opened[0].said == b"", "something was left on the way"
        device.submit(KITE, gl.SamplingSchedule(n_samples=5)).result()
        assert len(boards.opened) == 1, "a cancelled job needs no new link"


def test_a_cancelled_job_in_turns_has_no_samples(monkeypatch):
    monkeypatch.setattr(probana, "BATCH_SECONDS", 0.02)
    monkeypatch.setattr("glauber_drivers.probana_plan.MAX_P_BITS", 4)
    with device_on(Boards({})) as device:
        job = device.submit(KITE, gl.SamplingSchedule(n_samples=10**7, n_chains=2), partial=True, observe="last")
        while not device._driver._circuit:  # until it runs
            time.sleep(0.001)
        job.cancel()
        with pytest.raises((JobCancelledError, BudgetExceededError)):
            job.result(timeout=10)


def test_closing_from_another_thread_breaks_off_a_run():
    master, slave = pty.openpty()
    tty.setraw(slave)
    answers = threading.Thread(target=lambda: greet_and_fall_silent(master))
    answers.start()
    driver = ProbanaFactory().open(Address("probana", os.ttyname(slave), {}, ""))
    answers.join()
    driver.close()
    driver.close()
    with pytest.raises(DeviceClosedError), driver._board():
        pass
    os.close(slave)
    os.close(master)


def greet_and_fall_silent(master: int) -> None:
    heard = b""
    while b"PING\n" not in heard:
        heard += os.read(master, 100)
    os.write(master, b"OK PROBANA 2 8 WORKING\r\n")
    while b"ANNEAL\n" not in heard:
        heard += os.read(master, 100)
    os.write(master, b"ERR ANNEAL\r\n")


def test_sweeps_of_a_run_are_cut_into_runs_that_add_up(monkeypatch):
    monkeypatch.setattr(probana, "BATCH_SECONDS", 0.002)
    boards = Boards({})
    with device_on(boards) as device:
        device.submit(KITE, gl.SamplingSchedule(n_samples=13, n_warmup=77, sweeps_per_sample=11)).result()
    runs = [list(map(int, command.split()[1:])) for command in boards.commands if command.startswith("RUN")]
    assert sum(burn + samples * thin for samples, burn, thin in runs) == 77 + 13 * 11
    assert len(runs) > 3
