"""The SCPI annealer over TCP and a tty, with the simulator for its engine; and docs/scpi-annealer.md by its word."""

from __future__ import annotations

import importlib
import re
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import glauber as gl
import numpy as np
import pytest
from bodies import ising_program, joined
from glauber.catalogue import load_spec
from glauber.compile import compile_program, make_run, step_of
from glauber.errors import (
    DeviceIOError,
    DeviceNotFoundError,
    GlauberError,
    JobCancelledError,
    ModelNotSupportedError,
    ProtocolError,
)
from glauber.registry import parse_address
from glauber_drivers import scpi_upload, visa_annealer, visa_link
from glauber_drivers.scpi import Message, ScpiError, Splitter, block, forms
from glauber_drivers.scpi_machine import Limits, ScpiMachine
from glauber_drivers.scpi_server import HangUpError, ScpiServer, ScpiTty
from glauber_drivers.visa_annealer import VisaDriver, VisaFactory
from glauber_simulator.driver import SimulatorDriver
from glauber_simulator.factory import SimulatorFactory
from hypothesis import given, settings
from hypothesis import strategies as st
from test_identity import ISING_MODELS, ising_cases, ising_reference, ising_run

KITE = gl.IsingModel.from_edges([(0, 1, 0.7), (1, 2, -0.5), (2, 0, 0.31), (2, 3, 0.4)], biases={0: 0.3, 3: -0.2})
SOME = gl.SamplingSchedule(n_samples=20, n_chains=2, n_warmup=3, sweeps_per_sample=2, beta=0.7)
LONG = gl.SamplingSchedule(n_samples=10**9)


def ideal() -> SimulatorDriver:
    return SimulatorFactory().open(parse_address("sim://ideal"))


def machine(**arguments: Any) -> ScpiMachine:
    return ScpiMachine(ideal(), **arguments)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(visa_link, "TIMEOUT_SECONDS", 5.0)


# The same bits as sim://ideal


@pytest.fixture(scope="module", params=[ScpiServer, ScpiTty])
def driver(request):
    """Blocks and memory so small that everything goes in parts, and runs pause for want of room."""
    limits = Limits(block=256, memory=64)
    with request.param(machine(limits=limits)) as server:
        opened = VisaFactory().open(parse_address(server.address))
        yield opened
        opened.close()


def fits(case: dict[str, Any]) -> bool:
    return case["chains"][0] * ((ising_program(case["model"]).n_sites + 7) // 8) + 8 <= 256


@pytest.mark.parametrize("model", ISING_MODELS)
def test_the_same_bits_as_the_reference(driver, model):
    """Every pair of models, chains, layouts, schedules, clamps, fields and starts; a tty is slow, and takes a third."""
    cases = [case for case in ising_cases() if case["model"] == model and fits(case)]
    tty = "ASRL" in driver._resource
    for case in cases[:: 3 if tty else 1]:
        program, run = ising_program(model), ising_run(case)
        run = replace(run, observe=frozenset({"samples"}))
        driver.admit(run, program)
        driver.program(program)
        got, wanted = joined(list(driver.run(run))), ising_reference(tuple(sorted(case.items())))
        np.testing.assert_array_equal(got.samples, wanted.samples, err_msg=f"{case}")
        np.testing.assert_array_equal(got.last, wanted.last, err_msg=f"{case}")


def test_a_run_goes_on_from_any_batch(driver):
    program = ising_program(next(iter(ISING_MODELS)))
    schedule = gl.SamplingSchedule(n_samples=9, n_chains=2, n_warmup=2, sweeps_per_sample=3, beta=0.5)
    run = make_run(program, schedule, seed=2**64 - 1)
    driver.program(program)
    whole = joined(list(driver.run(run)))
    for sweep in (2, 3, 7, 8, 10, 27):
        local = SimulatorDriver(load_spec("ideal"))
        local.program(program)
        state = list(local.run(replace(run, n_warmup=sweep - 1, n_samples=1, sweeps_per_sample=1)))[-1].state
        rest = [batch for batch in driver.run(replace(run, first_sweep=sweep + 1, initial=state)) if batch.n_samples]
        skipped = max(0, sweep - 2) // 3
        assert rest[0].first_sample == skipped
        samples = np.concatenate([batch.samples for batch in rest], axis=1)
        np.testing.assert_array_equal(samples, whole.samples[:, skipped:])


ARGUMENTS: dict[str, dict[str, Any]] = {
    "site planes": {},
    "replica planes": {"schedule": SOME.model_copy(update={"n_chains": 9})},
    "an anneal": {"schedule": gl.AnnealingSchedule(n_sweeps=60, n_chains=5)},
    "moments": {"observe": {"moments", "samples"}},
    "the last state": {"observe": "last"},
    "clamps": {"clamp": {1: -1, 3: 1}},
    "fields": {"fields": np.array([[0.5, 0, 0, -1], [1, 2, 3, 4.0]])},
    "a start": {"initial": [1, -1, 1, 1]},
}


@pytest.mark.parametrize("what", ARGUMENTS)
@pytest.mark.parametrize("served", [ScpiServer, ScpiTty])
def test_a_job_by_address_is_that_of_the_simulator(served, what):
    arguments = {"schedule": SOME, "seed": 2**63 + 5, **ARGUMENTS[what]}
    with served(ideal()) as server, gl.open_device(server.address) as device, gl.open_device("sim://ideal") as sim:
        got, wanted = (each.submit(KITE, **arguments).result(timeout=30) for each in (device, sim))
        np.testing.assert_array_equal(got.last, wanted.last)
        if what != "the last state":
            np.testing.assert_array_equal(got.spins, wanted.spins)
        if what == "moments":
            np.testing.assert_array_equal(got.moments.sites, wanted.moments.sites)
            np.testing.assert_array_equal(got.moments.edges, wanted.moments.edges)
        assert got.provenance.contract_version == 1
        assert got.provenance.kernel["body"] == "glauber,SCPI Ising machine,ideal,1"


def test_a_program_is_sent_once():
    seen: list[str] = []

    def listen(message: Message, answer: bytes | None) -> bytes | None:
        seen.append(message.header)
        return answer

    with ScpiServer(ideal(), disturb=listen) as server, gl.open_device(server.address) as device:
        for beta in (0.3, 0.9):
            device.submit(KITE, SOME.model_copy(update={"beta": beta})).result(timeout=30)
    assert seen.count("PROG:LOAD") == 1
    assert seen.count("INIT") == 2
    assert "ABOR" not in seen


def test_batches_come_while_a_long_warm_up_runs(monkeypatch):
    monkeypatch.setattr(visa_annealer, "REPORT_SECONDS", 0.0)
    with ScpiServer(ideal()) as server, closing(VisaDriver(server.address.removeprefix("visa://"))) as driver:
        program = ising_program(next(iter(ISING_MODELS)))
        run = make_run(program, gl.SamplingSchedule(n_samples=2, n_warmup=10**9), seed=1)
        driver.program(program)
        batches = driver.run(run)
        first, second = next(batches), next(batches)
        assert first.n_samples == second.n_samples == 0
        assert 1 < first.next_sweep < second.next_sweep
        batches.close()


def test_slow_samples_are_not_fetched_twice(monkeypatch):
    """States are reported between samples, and never past one."""
    monkeypatch.setattr(visa_annealer, "REPORT_SECONDS", 0.0)
    program = ising_program(next(iter(ISING_MODELS)))
    run = make_run(program, gl.SamplingSchedule(n_samples=4, n_warmup=3, sweeps_per_sample=300_000), seed=1)
    local = SimulatorDriver(load_spec("ideal"))
    local.program(program)
    with ScpiServer(ideal()) as server, closing(VisaDriver(server.address.removeprefix("visa://"))) as driver:
        driver.program(program)
        batches = list(driver.run(run))
    assert any(batch.n_samples == 0 for batch in batches)
    sweeps = [batch.next_sweep for batch in batches]
    assert sweeps == sorted(set(sweeps))
    np.testing.assert_array_equal(joined(batches).samples, joined(list(local.run(run))).samples)


def test_a_run_that_pauses_for_want_of_room():
    program = ising_program(next(iter(ISING_MODELS)))
    run = make_run(program, gl.SamplingSchedule(n_samples=50_000), seed=7)
    local = SimulatorDriver(load_spec("ideal"))
    local.program(program)
    limits = Limits(memory=1, block=20_000)
    with ScpiServer(machine(limits=limits)) as server, closing(VisaDriver(server.address[7:])) as driver:
        driver.program(program)
        got = joined(list(driver.run(run)))
    assert got.n_batches > 3
    np.testing.assert_array_equal(got.samples, joined(list(local.run(run))).samples)


@pytest.mark.parametrize("served", [ScpiServer, ScpiTty])
def test_a_large_program_goes_in_many_blocks(served):
    rng = np.random.default_rng(5)
    edges = np.unique(np.sort(rng.integers(0, 3000, (9000, 2)), axis=1), axis=0)
    edges = edges[edges[:, 0] != edges[:, 1]]
    model = gl.IsingModel(rng.normal(size=3000), edges, rng.normal(size=len(edges)))
    with served(machine(limits=Limits(block=5000))) as server, gl.open_device(server.address) as device:
        got = device.submit(model, SOME, seed=1).result(timeout=30)
    with gl.open_device("sim://ideal") as sim:
        np.testing.assert_array_equal(got.spins, sim.submit(model, SOME, seed=1).result().spins)


def test_a_chips_graph_is_told():
    chip = SimulatorFactory().open(parse_address("sim://pbit-king-64"))
    with ScpiServer(ScpiMachine(chip, limits=Limits(block=64))) as server, gl.open_device(server.address) as device:
        edges = {tuple(edge) for edge in np.sort(device.spec.topology.edges(), axis=1).tolist()}
        assert edges == {tuple(edge) for edge in np.sort(chip.spec.topology.edges(), axis=1).tolist()}
        with pytest.raises(ModelNotSupportedError, match="missing edges"):
            device.submit(gl.IsingModel.from_edges([(0, 63, 1.0)]))


# Refused before it is sent


@pytest.mark.parametrize(
    ("limits", "arguments", "message"),
    [
        (Limits(p_bits=3), {}, "4 sites, the device 3"),
        (Limits(couplings=3), {}, "couplings: the job has 4, the machine 3"),
        (Limits(chains=1), {}, "chains: the job has 2, the machine 1; run the chains in several jobs"),
        (Limits(table=9), {"schedule": gl.AnnealingSchedule(n_sweeps=10)}, "temperatures: the job has 10"),
        (Limits(array=20), {"fields": np.ones((2, 4))}, "bytes of fields, clamps or starts: the job has 32, the m"),
        (Limits(block=9), {}, "bytes a state of all chains: the job has 10"),
        (Limits(), {"schedule": gl.TemperingSchedule(betas=(0.1, 0.2), n_samples=2)}, "cannot do tempering"),
        (Limits(), {"schedule": gl.AnnealingSchedule(dynamics="metropolis")}, "cannot do metropolis"),
    ],
)
def test_what_does_not_fit_is_refused_with_figures(limits, arguments, message):
    with ScpiServer(machine(limits=limits)) as server, gl.open_device(server.address) as device:
        with pytest.raises(ModelNotSupportedError, match=message):
            device.submit(KITE, **{"schedule": SOME, **arguments})
        with pytest.raises(ModelNotSupportedError, match=message):
            device.estimate(KITE, **{"schedule": SOME, **arguments})


@pytest.mark.parametrize(
    "text",
    ["visa://", "visa://GPIB0::7::INSTR", "visa://TCPIP0::h::5::SOCKET?backend=ni", "visa://USB0::1::2::3::INSTR"],
)
def test_other_resources_are_refused(text):
    with pytest.raises(DeviceNotFoundError, match="visa://ASRL/dev/ttyUSB0::INSTR"):
        gl.open_device(text)


def test_nobody_there():
    with ScpiServer(ideal()) as server:
        address = server.address
    for resource in (address, "visa://ASRL/dev/there-is-no-such-port::INSTR"):
        with pytest.raises(DeviceNotFoundError, match=r"Ising machine at|cannot be opened"):
            gl.open_device(resource)


def test_without_pyvisa_the_install_line_is_shown(monkeypatch):
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(DeviceNotFoundError, match=r"pip install 'glauber\[visa\]'"):
        visa_link.VisaLink("TCPIP0::127.0.0.1::1::SOCKET")


@pytest.mark.parametrize(
    ("query", "answer", "message"),
    [
        ("*IDN?", b"ACME,9000,7,2\n", "speaks dialect 1"),
        ("*IDN?", b"ACME\n", "speaks dialect 1"),
        ("*IDN?", b"\xff\xfe\n", "no text"),
        ("CAP:CONT?", b"2\n", "machine contract 2"),
        ("CAP:BLOC?", b"many\n", "expected 1 whole numbers"),
        ("CAP:CHA?", b"0\n", "says that it holds"),
        ("CAP:WEIG:BITS?", b"99\n", "describes itself wrongly"),
        ("MEAS:ENER?", b"none\n", "no number"),
    ],
)
def test_other_instruments_are_not_opened(query, answer, message):
    server = ScpiServer(ideal(), disturb=lambda sent, said: answer if sent.header == query else said)
    with server, pytest.raises(DeviceNotFoundError, match=message):
        gl.open_device(server.address)


# What goes wrong


class Once:
    """Does something to one answer."""

    def __init__(self, header: str, action: Any) -> None:
        self.header, self.action, self.armed = header, action, False

    def __call__(self, message: Message, answer: bytes | None) -> bytes | None:
        if self.armed and message.header == self.header:
            self.armed = False
            return self.action(answer)
        return answer


def hang_up(answer: bytes | None) -> bytes:
    raise HangUpError((answer or b"")[: len(answer or b"") // 2])


def failure(device: gl.Device, schedule: Any = SOME) -> BaseException:
    job = device.submit(KITE, schedule)
    with pytest.raises(GlauberError) as caught:
        job.result(timeout=30)
    assert job.status is gl.JobStatus.FAILED
    return caught.value


@pytest.mark.parametrize(
    ("header", "action", "kind", "message"),
    [
        ("FETC:SAMP?", hang_up, DeviceIOError, "was asked FETC:SAMP.*the next job opens it anew"),
        ("*STB?", hang_up, DeviceIOError, "was asked .*the next job opens it anew"),
        ("SYST:ERR?", hang_up, DeviceIOError, "was asked .*the next job opens it anew"),
        ("PROG:LOAD", hang_up, DeviceIOError, "was asked .*the next job opens it anew"),
        ("*STB?", lambda answer: None, DeviceIOError, "did not answer within 0.3 s"),
        ("FETC:SAMP?", lambda answer: answer[:20], DeviceIOError, "did not answer within 0.3 s"),
        ("*STB?", lambda answer: b"what?\n", ProtocolError, "expected 1 whole numbers"),
        ("RUN:PROG?", lambda answer: b"9" * 30 + b",1\n", ProtocolError, "expected 2 whole numbers"),
        ("RUN:PROG?", lambda answer: b"999,1\n", ProtocolError, "says it has done 999 sweeps of 43"),
        ("FETC:SAMP?", lambda answer: b"#0abc\n", ProtocolError, "expected a block of"),
        ("FETC:SAMP?", lambda answer: b"#11x\n", ProtocolError, "expected a block of"),
        ("FETC:SAMP?", lambda answer: b"0,1,0,1\n", ProtocolError, "expected a block of"),
        ("FETC:SAMP?", lambda answer: answer[:-1] + b"!\n", ProtocolError, "no line's end"),
        ("SYST:ERR?", lambda answer: b"fine\n", ProtocolError, "answered SYST:ERR. with 'fine'"),
        ("SYST:ERR?", lambda answer: b'-222,"Data out of range"\n', ModelNotSupportedError, "error -222.*smaller"),
        ("SYST:ERR?", lambda answer: b'-113,"Undefined header"\n', ProtocolError, "does not speak the dialect"),
        ("SYST:ERR?", lambda answer: b'101,"Machine fault;hot"\n', DeviceIOError, "fault;hot.*front panel"),
    ],
)
def test_every_failure_is_typed_and_ends_with_the_job(header, action, kind, message, monkeypatch):
    once = Once(header, action)
    with ScpiServer(ideal(), disturb=once) as server, gl.open_device(server.address) as device:
        if kind is DeviceIOError:  # on a socket even a peer that is gone is only silent
            device._driver._link._instrument.timeout = 300
            monkeypatch.setattr(visa_link, "TIMEOUT_SECONDS", 0.3)
        once.armed = True
        error = failure(device)
        monkeypatch.setattr(visa_link, "TIMEOUT_SECONDS", 5.0)
        assert type(error) is kind, error
        assert re.search(message, str(error), re.DOTALL), error
        assert device.submit(KITE, SOME).result(timeout=30).n_samples == 20


def test_a_late_answer_is_nobody_elses(monkeypatch):
    """The link is closed after a time-out, so what comes then is not taken for the next answer."""
    late = threading.Event()

    def wait(answer: bytes | None) -> bytes | None:
        late.wait(10)
        return answer

    once = Once("*STB?", wait)
    with ScpiServer(ideal(), disturb=once) as server, gl.open_device(server.address) as device:
        device._driver._link._instrument.timeout = 200
        once.armed = True
        assert "did not answer" in str(failure(device))
        late.set()
        with gl.open_device("sim://ideal") as sim:
            got, wanted = (each.submit(KITE, SOME, seed=1).result(timeout=30) for each in (device, sim))
        np.testing.assert_array_equal(got.spins, wanted.spins)


def test_an_engine_that_fails_is_a_machine_fault():
    class Burning(SimulatorDriver):
        def run(self, run):
            yield from ()
            raise RuntimeError("smoke")

    with ScpiServer(Burning(ideal().spec)) as server, gl.open_device(server.address) as device:
        error = failure(device)
        assert "Machine fault;RuntimeError: smoke" in str(error)


def test_an_engine_that_fails_in_the_middle_is_a_machine_fault():
    class Tired(SimulatorDriver):
        def run(self, run):
            for batch in super().run(run):
                yield batch
                raise RuntimeError("no more")

    with ScpiServer(Tired(ideal().spec)) as server, gl.open_device(server.address) as device:
        assert re.search("answered the run with error 101.*no more", str(failure(device, LONG)))


def test_what_cannot_be_done_during_a_run():
    served = machine()
    with ScpiServer(served) as server, gl.open_device(server.address) as device:
        job = device.submit(KITE, LONG)
        while not served._progress:
            time.sleep(0.001)
        for command, number in ("INIT", -213), ("RUN:SEED", -221), ("PROG:LOAD", -221), ("RUN:TABL:SIZE", -221):
            with pytest.raises(ScpiError, match=f"{number},"):  # as the parser would, but by hand
                served._commands[command](Message(command, ("1",)))
        job.cancel()
        job.wait(30)


def test_a_coupling_that_a_chip_does_not_have_is_refused_by_the_machine():
    chip = SimulatorFactory().open(parse_address("sim://pbit-king-64"))
    with closing(ScpiMachine(chip)) as served:
        far = b"\0\0\0\0\0\0\0\x3f"
        lines = (b"PROG:NEW 64,1", b"PROG:EDG 0," + block(far), b"PROG:WEIG 0," + block(far[:4]), b"PROG:FIEL 0,#3256")
        sent = b"\n".join(lines) + bytes(256) + b"\nPROG:LOAD\n"
        for message in Splitter(1000).feed(sent):
            served.obey(message)
        assert b'-222,"Data out of range;1 couplings do not exist' in served.obey(Message("SYST:ERR?"))


def test_a_driver_by_itself_refuses_too(driver):
    spec = load_spec("ideal")
    potts = gl.PottsModel(np.zeros((2, 3)), [(0, 1)], [1.0])
    p_dits = compile_program(potts, step_of(potts, spec))
    for refusing in (lambda: driver.program(p_dits), lambda: driver.admit(None, p_dits)):
        with pytest.raises(ModelNotSupportedError, match="no p-dits"):
            refusing()
    program = compile_program(KITE, step_of(KITE, spec))
    run = make_run(program, gl.TemperingSchedule(betas=(0.1, 0.2), n_samples=2), seed=1)
    with pytest.raises(ModelNotSupportedError, match="heat bath"):
        driver.admit(run, program)


def test_a_run_that_someone_aborts_at_the_panel():
    served = machine()
    with ScpiServer(served) as server, gl.open_device(server.address) as device:
        job = device.submit(KITE, LONG)
        while not served._progress:
            time.sleep(0.001)
        served.abort()
        with pytest.raises(DeviceIOError, match="without an error, as when someone aborts it"):
            job.result(timeout=30)


def test_a_cancelled_job_stops_the_machine_and_the_next_one_is_clean():
    served = machine()
    with ScpiServer(served) as server, gl.open_device(server.address) as device:
        job = device.submit(KITE, LONG)
        for progress in job.watch():
            if progress.samples_done > 100:
                break
        job.cancel()
        with pytest.raises(JobCancelledError):
            job.result(timeout=30)
        assert not served._progress.running
        link = device._driver._link
        assert device.submit(KITE, SOME).result(timeout=30).n_samples == 20
        assert device._driver._link is link, "a cancelled job needs no new link"


def test_a_tty_unplugged_in_the_middle_of_a_job_and_plugged_in_again(tmp_path):
    port = tmp_path / "annealer"
    once = Once("FETC:SAMP?", hang_up)
    with ScpiTty(ideal(), disturb=once) as first, ScpiTty(ideal()) as second:
        port.symlink_to(first.path)
        with gl.open_device(f"visa://ASRL{port}::INSTR") as device:
            once.armed = True
            assert "Check power and cable; the next job opens it anew" in str(failure(device))
            assert re.search("gone|cannot be opened", str(failure(device)))
            port.unlink()
            port.symlink_to(second.path)
            assert device.submit(KITE, SOME).result(timeout=30).n_samples == 20


def test_a_closed_driver_says_so():
    with ScpiServer(ideal()) as server:
        driver = VisaFactory().open(parse_address(server.address))
        driver.close()
        driver.close()
        with pytest.raises(gl.errors.DeviceClosedError):
            driver.program(ising_program(next(iter(ISING_MODELS))))
    assert list(VisaFactory().devices()) == []


# Joules


def test_a_counter_of_joules_measures_jobs():
    began = time.monotonic()
    served = machine(joules=lambda: 2.5 * round(time.monotonic() - began, 3), energy_facts=(0.0025, 0.01, 0.001))
    with ScpiServer(served) as server, gl.open_device(server.address) as device:
        schedule = gl.SamplingSchedule(n_samples=300_000, n_chains=2)
        job = device.submit(KITE, schedule, observe="last")
        result = job.result(timeout=30)
    report = result.energy_report
    assert report.basis == "measured", report.not_measured
    assert report.parts["gross"].joules == pytest.approx(2.5 * report.parts["gross"].count, rel=0.3)


def test_a_counter_that_turns_to_nan_is_refused():
    readings = iter([1.0])
    served = machine(joules=lambda: next(readings, 9.91e37), energy_facts=(0.0, 0.01, 0.001))
    with ScpiServer(served) as server, gl.open_device(server.address) as device:
        report = device.submit(KITE, SOME).result(timeout=30).energy_report
    assert report.basis != "measured"
    assert "expected 1 finite numbers" in report.not_measured


@pytest.mark.parametrize("answer", [b"9.91E+37\n", b"NAN\n", b"-9.9E37\n", b"\n"])
def test_numbers_that_are_none_are_refused(answer):
    with ScpiServer(ideal(), disturb=lambda sent, said: answer if sent.header == "MEAS:ENER?" else said) as server:
        link = visa_link.VisaLink(server.address.removeprefix("visa://"))
        with closing(link), pytest.raises(ProtocolError, match="expected 1 finite numbers"):
            link.reals("MEAS:ENER?")


# The dialect


DOC = (Path(__file__).parents[2] / "docs" / "scpi-annealer.md").read_text()


def unescaped(text: str) -> bytes:
    return re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), text.encode())


@pytest.mark.parametrize("example", re.findall(r"```scpi\n(.*?)```", DOC, re.DOTALL))
def test_the_documents_examples(example):
    with closing(machine()) as served:
        splitter, answers = Splitter(2**20), []
        for line in example.splitlines():
            if line.startswith("> "):
                assert not answers, f"{line} came before {answers} was read"
                said = [served.obey(message) for message in splitter.feed(unescaped(line[2:]) + b"\n")]
                answers += [answer for answer in said if answer is not None]
            else:
                assert answers.pop(0) == unescaped(line.removeprefix("< "))
        assert not answers


def test_the_document_has_every_command_and_no_other():
    with closing(machine()) as served:
        there = set(served._commands)
    told = {command for command in re.findall(r"`(\*?[A-Za-z:*]+\??)[ `]", DOC) if re.search(r"[A-Z]{3}", command)}
    for command in told - {"CAPability", "ERR"}:
        assert command.upper() in there, f"{command} is in the document only"
    missing = {s for s in there if not any(s in forms(command) for command in told)}
    assert not missing, f"not in the document: {missing}"


def test_spellings():
    assert set(forms("SYSTem:ERRor?")) == {"SYST:ERR?", "SYSTEM:ERR?", "SYST:ERROR?", "SYSTEM:ERROR?"}


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 50))
def test_messages_are_cut_alike_whatever_the_pieces(blocks, size):
    stream = b"".join(b"PUT 0," + block(data) + b"\n*OPC?\r\n" for data in blocks)
    splitter, found = Splitter(1000), []
    for k in range(0, len(stream), size):
        found += splitter.feed(stream[k : k + size])
    assert [message.block for message in found[::2]] == blocks
    assert all(message.header == "*OPC?" for message in found[1::2])


@given(st.binary(max_size=300))
def test_noise_ends_in_errors_and_the_next_line_is_understood(noise):
    splitter = Splitter(64)
    splitter.feed(noise.replace(b"#", b"") + b"\n")
    assert splitter.feed(b"*OPC?\n")[-1].header == "*OPC?"


@pytest.mark.parametrize(
    ("sent", "number"),
    [
        (b"PUT #0abc\n", -161),
        (b"PUT #x\n", -161),
        (b"PUT #2x4abc\n", -161),
        (b"PUT #14abcde\n", -161),
        (b"PUT #3900" + b"x" * 900 + b"\n", -223),
        (b"y" * 5000 + b"\n", -161),
    ],
)
def test_blocks_that_cannot_be_read(sent, number):
    splitter = Splitter(64)
    errors = [message.error for message in splitter.feed(sent) if message.error]
    assert [error.number for error in errors] == [number]
    assert splitter.feed(b"*OPC?\n")[-1].header == "*OPC?"


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        (["RUN:SEED"], -109),
        (["RUN:SEED 1,2"], -108),
        (["RUN:SEED x"], -104),
        (["RUN:SEED 18446744073709551616"], -222),
        (["RUN:CHA 0,0"], -222),
        (["INIT"], -221),
        (["FETC:SAMP? 0,1"], -230),
        (["FETC:STAT?"], -230),
        (["RUN:PROG?"], -230),
        (["PROG:LOAD"], -221),
        (["PROG:EDG 0"], -109),
        (["PROG:FIEL 0,#10"], -221),
        (["PROG:NEW 0,0"], -222),
        (["PROG:NEW 2,1", "PROG:FIEL 0,#13abc"], -161),
        (["PROG:NEW 2,1", "PROG:FIEL 1,#14abcd"], -222),
        (["PROG:NEW 1,0", "PROG:FIEL 0,#18abcdefgh"], -223),
        (["PROG:NEW 1,1", "PROG:FIEL 0,#14wxyz", "PROG:EDG 0,#18\0\0\0\0\0\0\0\0", "PROG:WEIG 0,#14abcd",
          "PROG:LOAD"], -221),
        (["RUN:FIEL:SIZE 1"], -221),
        (["CAP:TOP? 0,1,2"], -108),
    ],
)  # fmt: skip
def test_every_error_has_its_number(lines, number):
    with closing(machine()) as served:
        splitter = Splitter(2**20)
        for line in lines:
            for message in splitter.feed(line.encode() + b"\n"):
                served.obey(message)
        answer = served.obey(Message("SYST:ERR?"))
        assert answer.decode().startswith(f"{number},"), answer


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_no_message_breaks_the_machine(data):
    """Any commands with any parameters and blocks, in any order."""
    with closing(
        machine(limits=Limits(p_bits=9, couplings=9, chains=5, table=9, block=99, memory=99, array=99))
    ) as served:
        headers = st.sampled_from(sorted(set(served._commands) - {"*OPC?"}))
        words = st.lists(st.sampled_from(["0", "1", "2", "8", "-1", "-+5", "x", "", "9" * 25]), max_size=4)
        messages = st.builds(Message, headers, words.map(tuple), st.none() | st.binary(max_size=24))
        for message in data.draw(st.lists(messages, max_size=30)):
            served.obey(message)
        served.obey(Message("ABOR"))
        served.obey(Message("*CLS"))
        assert served.obey(Message("*OPC?")) == b"1"
        assert served.obey(Message("SYST:ERR?")) == b'0,"No error"'


def test_a_full_queue_says_so():
    with closing(machine()) as served:
        for _ in range(20):
            served.obey(Message("WHAT"))
        said = [served.obey(Message("SYST:ERR?")) for _ in range(17)]
    assert said[15] == b'-350,"Queue overflow"'
    assert said[16] == b'0,"No error"'


def test_details_are_one_line_of_ascii():
    assert ScpiError(-221, 'a "word"\nand ü').line == "-221,\"Settings conflict;a 'word' and ?\""
    assert set(scpi_upload.ELEMENTS) == {"TABLE", "FIELDS", "CLAMP", "INITIAL"}
