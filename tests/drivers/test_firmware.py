"""The firmware: the same samples as every other body, and every answer that docs/wire-protocol.md promises."""

from __future__ import annotations

import socket
import struct
import threading
import time
import zlib
from dataclasses import replace
from typing import Any

import glauber as gl
import numpy as np
import pytest
from bodies import assert_same, compiled, ising_program, run_whole
from firmware_lab import Talk, boardable, boot_again, build, on_board, process, talking
from glauber.compile import make_run
from glauber.compile.run import threefry4x32
from glauber.errors import DeviceIOError, ModelNotSupportedError, ProtocolError
from glauber.registry import open_driver, parse_address
from glauber.topology import King
from glauber_drivers import wire
from glauber_drivers.board_arrays import program_segments
from glauber_drivers.firmware import host_program
from glauber_drivers.serial_link import Link
from glauber_drivers.serial_pbit import SerialPbitDriver
from glauber_drivers.transport import SerialTransport
from glauber_drivers.wire import Kind, Operation, RecordReader, RunFlag, Segment, Status
from test_identity import ISING_MODELS, ising_cases, ising_reference, ising_run


@pytest.fixture(scope="module")
def board():
    driver = open_driver(parse_address("firmware://host"))
    yield driver
    driver.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("firmware")


@pytest.mark.parametrize("model", ISING_MODELS)
def test_identity_pairs(board, model):
    cases = [case for case in ising_cases() if case["model"] == model]
    ran = 0
    for case in cases:
        run = ising_run(case)
        if boardable(run):
            ran += 1
            assert_same(on_board(board, ising_program(model), run), ising_reference(tuple(sorted(case.items()))), case)
    assert ran, "no case of this model can run on a board"


def schedule(**changes: Any) -> gl.SamplingSchedule:
    return gl.SamplingSchedule(**{"n_samples": 30, "n_chains": 40, "n_warmup": 9, "beta": 0.6, **changes})


def made_run(program: Any, shape: Any, **arguments: Any) -> Any:
    return make_run(program, shape, seed=77, **{"observe": {"samples", "moments"}, **arguments})


def test_a_long_table_goes_window_by_window(board, monkeypatch):
    monkeypatch.setattr(board, "_hello", replace(board._hello, table=7))
    program = ising_program("frustrated")
    shape = gl.AnnealingSchedule(table=tuple(np.linspace(0.1, 2.0, 30)), n_chains=40)
    run = made_run(program, shape)
    assert_same(on_board(board, program, run), run_whole("core", program, run), "windows")


def test_shards_have_their_own_lanes(board):
    program = ising_program("bipartite")
    whole = made_run(program, schedule(n_chains=70))
    wanted = run_whole("core", program, whole)
    part = replace(whole, first_chain=21, n_chains=30)
    got = on_board(board, program, part)
    np.testing.assert_array_equal(got.samples, wanted.samples[21:51])


def test_moments_and_last_alone(board):
    program = ising_program("glass")
    for observe in ({"moments"}, {"last"}):
        run = made_run(program, schedule(), observe=observe)
        batches = list(board.run(run)) if board.program(program) is None else []
        wanted = run_whole("core", program, replace(run, observe=frozenset({"samples", "moments"})))
        np.testing.assert_array_equal(batches[-1].state, wanted.last)
        assert sum(batch.n_samples for batch in batches) == 30
        if "moments" in observe:
            np.testing.assert_array_equal(batches[-1].moments.edges, wanted.moments.edges)


@pytest.mark.slow
def test_checkpoints_come_while_nothing_else_does(board):
    """A long warm-up: progress, and something to resume from, come all the same."""
    program = ising_program("torus")
    run = made_run(program, schedule(n_warmup=60_000, n_samples=1, n_chains=64), observe={"samples"})
    board.program(program)
    batches = list(board.run(run))
    assert len(batches) > 1, "this machine is too fast for the test: make the warm-up longer"
    middle = batches[0]
    resumed = replace(run, first_sweep=middle.next_sweep, initial=middle.state)
    np.testing.assert_array_equal(list(board.run(resumed))[-1].state, batches[-1].state)


def test_the_same_job_by_its_address():
    model = ISING_MODELS["dense"]()
    with gl.open_device("firmware://host") as firmware, gl.open_device("sim://ideal") as simulator:
        ours, wanted = (
            device.submit(model, schedule(), seed=3, observe={"samples", "moments"}).result(60)
            for device in (firmware, simulator)
        )
    np.testing.assert_array_equal(ours.packed, wanted.packed)
    np.testing.assert_array_equal(ours.moments.edges, wanted.moments.edges)
    assert ours.provenance.program_key == wanted.provenance.program_key
    assert ours.provenance.contract_version == 1


def test_cancel_and_the_next_job():
    model = ISING_MODELS["torus"]()
    with gl.open_device("firmware://host") as device:
        job = device.submit(model, schedule(n_samples=10**7), partial=True, observe="moments")
        for progress in job.watch():
            if progress.sweeps_done > 10:
                break
        began = time.perf_counter()
        job.cancel()
        assert job.result(10).n_samples > 0
        assert time.perf_counter() - began < 2
        assert device.submit(model, schedule()).result(30).n_samples == 30


def test_what_does_not_fit_is_refused_before_it_is_sent():
    with gl.open_device("firmware://host") as device:
        large = gl.IsingModel(np.zeros(5000), np.array([(0, 1)]), np.ones(1))
        with pytest.raises(ModelNotSupportedError):
            device.submit(large, schedule())
        wide = gl.IsingModel(np.zeros(4000), np.array([(0, 1)]), np.ones(1))
        with pytest.raises(ModelNotSupportedError, match="words of state; fewer chains"):
            device.submit(wide, schedule(n_chains=1000))
        with pytest.raises(ModelNotSupportedError, match="moments"):
            device.submit(wide, schedule(n_chains=64), observe="moments")
        potts = gl.PottsModel(np.zeros((2, 3)), np.array([(0, 1)]), np.ones(1))
        with pytest.raises(ModelNotSupportedError):
            device.submit(potts, schedule())
        with pytest.raises(ModelNotSupportedError, match="one set of fields"):
            device.submit(ISING_MODELS["dense"](), schedule(), fields=np.zeros((40, 9)))
        tempering = gl.TemperingSchedule(betas=(0.1, 0.5), n_samples=3)
        with pytest.raises(ModelNotSupportedError, match="tempering"):
            device.submit(ISING_MODELS["dense"](), tempering)
        assert device.submit(ISING_MODELS["dense"](), schedule()).result(30).n_samples == 30


# A chip with a topology


def test_kings_graph_is_read_and_kept():
    king = King(rows=8, cols=8)
    with gl.open_device("firmware://host?chip=king") as device:
        assert device.spec.topology is not None
        assert {tuple(edge) for edge in device.spec.topology.edges().tolist()} == {
            tuple(sorted(edge)) for edge in king.edges().tolist()
        }
        model = gl.IsingModel(np.zeros(64), king.edges(), np.random.default_rng(1).normal(size=len(king.edges())))
        with gl.open_device("sim://ideal") as simulator:
            ours, wanted = (each.submit(model, schedule(), seed=3).result(60) for each in (device, simulator))
        np.testing.assert_array_equal(ours.packed, wanted.packed)
        with pytest.raises(ModelNotSupportedError):
            device.submit(gl.IsingModel(np.zeros(64), np.array([(0, 2)]), np.ones(1)), schedule())


def test_the_chip_itself_refuses_a_coupling_it_does_not_have():
    driver = open_driver(parse_address("firmware://host?chip=king"))
    try:
        with pytest.raises(ModelNotSupportedError, match="lacks a coupling"):
            driver.program(compiled(gl.IsingModel(np.zeros(64), np.array([(0, 2)]), np.ones(1))))
    finally:
        driver.close()


# Answers


def program_of(talk: Any, name: str = "dense") -> Any:
    """Load a model by hand."""
    program = ising_program(name)
    order = program.order
    sizes = wire.program_request(program.n_sites, len(order.neighbour), len(order.colour_start) - 1)
    assert talk.ask(Operation.PROGRAM, sizes).status is Status.OK
    segments = program_segments(program)
    for segment, data in segments.items():
        for at in range(0, len(data), 1000):
            assert talk.ask(Operation.WRITE, wire.write_request(segment, at, data[at : at + 1000])).status is Status.OK
    assert talk.ask(Operation.COMMIT, wire.CRC.pack(zlib.crc32(b"".join(segments.values())))).status is Status.OK
    return program


ORDER = wire.RunOrder(
    seed=5,
    first_sweep=1,
    n_warmup=0,
    n_samples=10,
    sweeps_per_sample=1,
    last_sweep=10,
    beta_first=1,
    n_chains=8,
    first_chain=0,
    n_beta=1,
    n_counted=0,
    crc=0,
    stream=0,
    layout=0,
    flags=RunFlag.KEEP_SAMPLES,
)
BETA = (1 << 30).to_bytes(8, "little")


def start(talk: Any, **changes: Any) -> wire.Answer:
    assert talk.ask(Operation.WRITE, wire.write_request(Segment.BETA, 0, BETA)).status is Status.OK
    return talk.ask(Operation.RUN, wire.run_request(replace(ORDER, crc=zlib.crc32(BETA), **changes)))


def pulled(talk: Any, run: int, start: int = 0, *, piece: int = 900, again: bool = False) -> wire.Answer:
    request = wire.pull_request(run, piece, start, start + 8192, again=again, checkpoint=False)
    return talk.ask(Operation.PULL, request)


def data_of(talk: Any, run: int) -> bytes:
    """All that has come of a run's stream, in order."""
    pieces = {
        int.from_bytes(frame.payload[:4], "little"): frame.payload[4:]
        for frame in talk.frames
        if frame.operation == wire.DATA and frame.sequence == run
    }
    return b"".join(pieces[at] for at in sorted(pieces))


def test_a_session_is_needed_and_belongs_to_one_host():
    with talking() as talk:
        assert talk.ask(Operation.HEALTH).status is Status.OK
        assert talk.ask(Operation.HEALTH, session=0x4321).status is Status.SESSION
        program_of(talk)
        assert start(talk, n_samples=10**6, last_sweep=10**6).status is Status.OK
        talk.session = 0x5678  # another host
        hello = talk.hello()
        assert hello.program_crc, "the program stays"
        assert wire.read_health(talk.ask(Operation.HEALTH).rest).activity is wire.Activity.IDLE, "the run does not"
        again = talk.hello()
        assert again == hello


def test_before_hello_nothing_else_is_answered():
    transport = process(host_program("any"))
    try:
        talk = Talk(transport)
        assert talk.ask(Operation.HEALTH).status is Status.SESSION
        assert talk.ask(Operation.HELLO, struct.pack("<HH", 0, 4096)).status is Status.ARGUMENT
        assert talk.ask(Operation.HELLO, struct.pack("<HH", 1, 255)).status is Status.ARGUMENT
        assert talk.ask(Operation.HELLO, b"\0" * 5).status is Status.LENGTH
        answer = talk.ask(Operation.HELLO, wire.hello_request(0x1234, 300))
        assert wire.read_hello(answer.rest).max_frame == 300
        assert talk.ask(Operation.PING, version=2, session=0x4444).status is Status.VERSIONS
        assert talk.frames[-1].session == 0x4444, "an answer has its request's session, or nobody takes it for one"
    finally:
        transport.close()


@pytest.mark.parametrize(
    ("operation", "payload", "status"),
    [
        (0x55, b"", Status.UNKNOWN),
        (Operation.HANG, b"", Status.UNKNOWN),
        (Operation.PING, b"x" * 241, Status.LENGTH),
        (Operation.HEALTH, b"x", Status.LENGTH),
        (Operation.ENERGY, b"x", Status.LENGTH),
        (Operation.TOPOLOGY, b"x", Status.LENGTH),
        (Operation.TOPOLOGY, struct.pack("<II", 0, 1), Status.ARGUMENT),
        (Operation.TOPOLOGY, struct.pack("<II", 0, 61), Status.ARGUMENT),
        (Operation.RESET, b"x", Status.LENGTH),
        (Operation.PROGRAM, b"", Status.LENGTH),
        (Operation.PROGRAM, wire.program_request(0, 0, 1), Status.TOO_LARGE),
        (Operation.PROGRAM, wire.program_request(5000, 0, 1), Status.TOO_LARGE),
        (Operation.PROGRAM, wire.program_request(5, 10**6, 1), Status.TOO_LARGE),
        (Operation.PROGRAM, wire.program_request(5, 0, 6), Status.TOO_LARGE),
        (Operation.WRITE, b"", Status.LENGTH),
        (Operation.WRITE, struct.pack("<II", 6, 0), Status.ARGUMENT),
        (Operation.WRITE, struct.pack("<II", 99, 0), Status.ARGUMENT),
        (Operation.WRITE, wire.write_request(Segment.BETA, 0, b"12"), Status.STATE),
        (Operation.COMMIT, b"", Status.LENGTH),
        (Operation.COMMIT, b"1234", Status.STATE),
        (Operation.RUN, b"", Status.LENGTH),
        (Operation.RUN, wire.run_request(ORDER), Status.STATE),
        (Operation.PULL, b"", Status.LENGTH),
        (Operation.PULL, wire.pull_request(9, 10, 0, 9, again=False, checkpoint=False), Status.STATE),
        (Operation.ABORT, b"x", Status.LENGTH),
        (Operation.CALIBRATE, b"", Status.LENGTH),
        (Operation.CALIBRATE, wire.calibrate_request(4096, 0, 1), Status.ARGUMENT),
        (Operation.CALIBRATE, wire.calibrate_request(0, 4096, 1), Status.ARGUMENT),
        (Operation.CALIBRATE, wire.calibrate_request(0, 0, 0), Status.ARGUMENT),
        (Operation.CALIBRATE, wire.calibrate_request(0, 0, 1921), Status.ARGUMENT),
    ],
)
def test_refusals(operation, payload, status):
    with talking() as talk:
        assert talk.ask(operation, payload).status is status
        assert talk.ask(Operation.PING, b"alive").rest == b"alive"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"first_sweep": 0}, Status.ARGUMENT),
        ({"first_sweep": 11}, Status.ARGUMENT),
        ({"last_sweep": 2**64 - 1}, Status.ARGUMENT),
        ({"sweeps_per_sample": 0}, Status.ARGUMENT),
        ({"layout": 2}, Status.ARGUMENT),
        ({"n_beta": 0}, Status.TOO_LARGE),
        ({"n_beta": 5000}, Status.TOO_LARGE),
        ({"n_beta": 9}, Status.TOO_LARGE),
        ({"n_beta": 10, "beta_first": 2}, Status.TOO_LARGE),
        ({"n_chains": 0}, Status.TOO_LARGE),
        ({"n_chains": 2**31}, Status.TOO_LARGE),
        ({"n_chains": 100_000, "flags": RunFlag.KEEP_MOMENTS}, Status.TOO_LARGE),
        ({"first_chain": 2**32 - 4}, Status.TOO_LARGE),
        ({"flags": RunFlag.CLAMPED}, Status.CHECKSUM),
        ({"n_samples": 2**31, "flags": RunFlag.KEEP_MOMENTS}, Status.TOO_LARGE),
        ({"n_chains": 100_000, "flags": RunFlag.INITIAL_SUMS}, Status.TOO_LARGE),
    ],
)
def test_runs_that_cannot_be(changes, status):
    with talking() as talk:
        program_of(talk)
        assert start(talk, **changes).status is status
        assert start(talk).status is Status.OK


def test_sums_beyond_their_samples_are_refused():
    """Or they could run over."""
    with talking() as talk:
        program = program_of(talk)
        sums = np.full(8 * (program.n_sites + program.n_edges), 6, "<i4").tobytes()
        for at in range(0, len(sums), 1000):
            talk.ask(Operation.WRITE, wire.write_request(Segment.SUMS, at, sums[at : at + 1000]))
        talk.ask(Operation.WRITE, wire.write_request(Segment.BETA, 0, BETA))
        order = replace(ORDER, crc=zlib.crc32(BETA + sums), flags=RunFlag.INITIAL_SUMS, n_counted=5)
        assert talk.ask(Operation.RUN, wire.run_request(order)).status is Status.ARGUMENT
        assert talk.ask(Operation.RUN, wire.run_request(replace(order, n_counted=6))).status is Status.OK


def test_a_second_host_with_the_same_session_begins_anew():
    with talking() as talk:
        program_of(talk)
        assert start(talk, n_samples=10**6, last_sweep=10**6).status is Status.OK
        hello = wire.hello_request(talk.session, 4096)
        talk.ask(Operation.HELLO, hello, sequence=1)  # the first HELLO again, as a retry sends it
        talk.sequence = 9000
        assert wire.read_health(talk.ask(Operation.HEALTH).rest).activity is wire.Activity.RUNNING
        talk.ask(Operation.HELLO, hello)  # another program that drew the same session
        assert wire.read_health(talk.ask(Operation.HEALTH).rest).activity is wire.Activity.IDLE


def test_own_fields_are_checked():
    """Sums beyond 2^30 would overflow the arithmetic."""
    with talking() as talk:
        program = program_of(talk)
        own = np.full(program.n_sites, 2**30, "<i4").tobytes()
        assert talk.ask(Operation.WRITE, wire.write_request(Segment.OWN_FIELD, 0, own)).status is Status.OK
        talk.ask(Operation.WRITE, wire.write_request(Segment.BETA, 0, BETA))
        order = replace(ORDER, crc=zlib.crc32(BETA + own), flags=RunFlag.OWN_FIELDS)
        assert talk.ask(Operation.RUN, wire.run_request(order)).status is Status.ROWS


@pytest.mark.parametrize(
    ("segment", "offset", "data"),
    [
        (Segment.ROW_START, 0, b"\1\0\0\0"),
        (Segment.ROW_START, 4, b"\xff\xff\0\0"),
        (Segment.NEIGHBOUR, 0, b"\xff\xff"),
        (Segment.NEIGHBOUR, 0, b"\0\0"),
        (Segment.COLOURS, 0, b"\1\0\0\0"),
        (Segment.COLOURS, 4, b"\0\0\0\0"),
        (Segment.SITE, 0, b"\xff\xff"),
        (Segment.FIELD, 0, b"\0\0\0\x40"),
        (Segment.FIELD, 0, b"\0\0\0\x80"),
        (Segment.NEIGHBOUR, 16, b"\2\0"),  # the second row goes up where it went down
    ],
)
def test_programs_that_cannot_be(segment, offset, data):
    with talking() as talk:
        program = ising_program("dense")
        order = program.order
        talk.ask(
            Operation.PROGRAM,
            wire.program_request(program.n_sites, len(order.neighbour), len(order.colour_start) - 1),
        )
        segments = program_segments(program)
        segments[segment] = segments[segment][:offset] + data + segments[segment][offset + len(data) :]
        for number, content in segments.items():
            assert talk.ask(Operation.WRITE, wire.write_request(number, 0, content)).status is Status.OK
        assert talk.ask(Operation.COMMIT, b"1234").status is Status.CHECKSUM
        crc = wire.CRC.pack(zlib.crc32(b"".join(segments.values())))
        assert talk.ask(Operation.COMMIT, crc).status is Status.ROWS
        assert start(talk).status is Status.STATE, "what was refused cannot be run"


def test_a_lost_answer_runs_nothing_twice():
    with talking() as talk:
        program_of(talk)
        assert start(talk, n_samples=10**6, last_sweep=10**6).status is Status.OK
        run = talk.sequence
        order = replace(ORDER, crc=zlib.crc32(BETA), n_samples=10**6, last_sweep=10**6)
        repeated = talk.ask(Operation.RUN, wire.run_request(order), sequence=run)
        assert repeated.status is Status.OK, "the remembered answer; a second RUN would be refused as busy"
        talk.sequence = run
        assert talk.ask(Operation.RUN, wire.run_request(order)).status is Status.BUSY
        assert talk.ask(Operation.WRITE, wire.write_request(Segment.BETA, 0, BETA)).status is Status.BUSY
        assert talk.ask(Operation.PROGRAM, wire.program_request(2, 2, 2)).status is Status.BUSY
        assert talk.ask(Operation.CALIBRATE, wire.calibrate_request(0, 0, 8)).status is Status.BUSY
        talk.send(Operation.ABORT, sequence=talk.sequence - 1)  # an old copy: it must not end the run
        talk.sequence = 1000
        assert wire.read_health(talk.ask(Operation.HEALTH).rest).activity is wire.Activity.RUNNING
        assert talk.ask(Operation.ABORT).status is Status.OK
        assert pulled(talk, run).status is Status.STATE


def test_readings_are_not_taken_twice():
    with talking() as talk:
        first = talk.ask(Operation.CALIBRATE, wire.calibrate_request(3, 2048, 1000))
        number = talk.sequence
        again = talk.ask(Operation.CALIBRATE, wire.calibrate_request(3, 2048, 1000), sequence=number)
        assert again.rest == first.rest
        assert talk.ask(Operation.CALIBRATE, wire.calibrate_request(3, 2048, 1000)).rest != first.rest


def test_the_stream_can_be_had_again_from_anywhere_that_was_not_acknowledged():
    with talking() as talk:
        program_of(talk)
        start(talk)
        run = talk.sequence
        status = pulled(talk, run, piece=50)
        while wire.read_pulled(status.rest).activity is not wire.Activity.ENDED:
            status = pulled(talk, run, piece=50)
        while talk.hear(0.2):
            pass
        whole = data_of(talk, run)
        records = list(RecordReader(10_000).feed(whole))
        assert [record.kind for record in records] == [Kind.SAMPLE] * 10 + [Kind.CHECKPOINT, Kind.END]
        assert wire.read_pulled(status.rest).head == len(whole)
        talk.frames.clear()
        pulled(talk, run, 100, piece=77, again=True)
        while talk.hear(0.2):
            pass
        assert data_of(talk, run) == whole[100:]
        assert pulled(talk, run, 50).detail == 3, "what was acknowledged is gone"
        assert pulled(talk, run, len(whole) + 1).detail == 3
        assert pulled(talk, run, 100, piece=4085).status is Status.ARGUMENT


def test_a_board_that_hangs_is_reset_by_its_watchdog(folder):
    with talking(build(folder, "host-test")) as talk:
        before = wire.read_health(talk.ask(Operation.HEALTH).rest)
        talk.send(Operation.HANG)
        boot_again(talk, 5)
        after = wire.read_health(talk.ask(Operation.HEALTH).rest)
        assert (after.boots, after.watchdogs) == (before.boots + 1, before.watchdogs + 1)


def test_reset_is_counted_and_forgets():
    with talking() as talk:
        program_of(talk)
        assert talk.ask(Operation.RESET).status is Status.OK
        assert talk.ask(Operation.HEALTH).status is Status.SESSION
        hello = talk.hello()
        assert (hello.boots, hello.program_crc) == (1, 0)


def test_damaged_frames_are_counted():
    with talking() as talk:
        damaged = bytearray(wire.encode(wire.Frame(Operation.PING, talk.session, 9, b"abc")))
        damaged[5] ^= 0x40
        talk.transport.write(bytes(damaged) + b"\0\0\0", 1)
        assert wire.read_health(talk.ask(Operation.HEALTH).rest).bad_frames == 1


# What the driver adds


def test_energy_grows_with_work_and_is_called_a_model(board):
    before = board.energy_counter_joules()
    on_board(board, ising_program("torus"), made_run(ising_program("torus"), schedule()))
    updates = 96 * 40 * 39
    assert board.energy_counter_joules() - before >= updates * 20e-12
    assert board.energy_counter_provenance == "model"


def curve(p_bit: int, code: int) -> float:
    """P(1) of firmware_stubs/afe_model.c."""
    own = threefry4x32([0, 0, 9, 0], [p_bit, 0, 0, 0])
    offset, gain = (own[0] >> 17) - 2**14, 512 + own[1] % 105 - 52
    return float(1 / (1 + 2 ** (-(gain * (code - 2048) + offset) / 2**16)))


def test_raw_bits_follow_each_p_bits_own_curve(board):
    """Fifteen counts, each within five standard errors: a false alarm in 100,000 runs."""
    count = 4000
    for p_bit in (0, 1, 2):
        for code in (0, 1800, 2048, 2300, 4095):
            wanted, found = curve(p_bit, code), board.raw_bits(p_bit, code, count).mean()
            assert abs(found - wanted) < 5 * (wanted * (1 - wanted) / count) ** 0.5 + 1e-9, (p_bit, code)
    assert abs(curve(0, 2048) - curve(1, 2048)) > 0.02, "p-bits differ"
    for wrong in ((-1, 0, 1), (0, 4096, 1), (0, 0, 0), (4096, 0, 1)):
        with pytest.raises(ModelNotSupportedError, match="there are p-bits 0 to"):
            board.raw_bits(*wrong)


def test_health(board):
    health = board.health()
    assert health.overruns == 0
    assert health.ticks > 0


def test_two_programs_at_one_board_are_noticed():
    """The second one's HELLO ends the first one's session: it resumes with a new one, and gets right samples."""
    transport = process(host_program("any"))
    try:
        link = Link(lambda: transport, "board")
        link.open()
        Talk(transport, session=0x7777).hello()
        with pytest.raises(DeviceIOError, match="reset in between"):
            link.request(Operation.HEALTH)
    finally:
        transport.close()


def test_a_board_of_another_make_is_named():
    server = socket.create_server(("127.0.0.1", 0))

    def chatter() -> None:
        connection, _ = server.accept()
        with connection:
            for _ in range(100):
                try:
                    connection.sendall(b"READY PROBANA 2 8 WORKING\n")
                except OSError:
                    return
                time.sleep(0.01)

    thread = threading.Thread(target=chatter)
    thread.start()
    try:
        link = Link(lambda: SerialTransport(f"socket://127.0.0.1:{server.getsockname()[1]}"), "socket")
        with pytest.raises(ProtocolError, match="does not run glauber's firmware"):
            link.open(0.5)
    finally:
        thread.join()
        server.close()


# Addresses


def test_qemu_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(gl.errors.DeviceNotFoundError, match="apt-get install"):
        gl.open_device("firmware://qemu")


@pytest.mark.parametrize(
    "address", ["firmware://board", "firmware://host?chip=square", "firmware://host?baud=9", "serial://"]
)
def test_addresses_that_mean_nothing(address):
    with pytest.raises(gl.errors.DeviceNotFoundError):
        gl.open_device(address)


def test_a_driver_knows_its_name(board):
    assert isinstance(board, SerialPbitDriver)
    assert board.spec.name == "firmware-any"


def test_sequence_numbers_go_round(board):
    """A run that is asked for more often than there are numbers: what changes something is still new after it."""
    run = made_run(ising_program("frustrated"), schedule())
    wanted = run_whole("core", ising_program("frustrated"), run)
    for pings in (40_000, 30_000):  # more than half of the numbers, and then past their end
        for _ in range(pings):
            board.link.request(Operation.PING)
        assert_same(on_board(board, ising_program("frustrated"), run), wanted, pings)
