"""The pytest plug-in: device, requirements, faults, recording and replay, each in a pytest of its own."""

from __future__ import annotations

import pytest
from board_package import write_board_package

pytest_plugins = ["pytester"]

TEST = """
def test_ferromagnet_aligns(glauber_device):
    import glauber as gl
    model = gl.IsingModel.from_edges([(0, 1, 1.0)])
    samples = glauber_device.submit(model, gl.SamplingSchedule(n_samples=10, beta=50.0, n_warmup=5)).result(30)
    assert (samples.spins[..., 0] == samples.spins[..., 1]).all()
    print("device", glauber_device.address)
"""


def test_default_device_is_printed(pytester):
    pytester.makepyfile(TEST)
    result = pytester.runpytest_subprocess("-s")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*glauber device: sim://ideal*", "*device sim://ideal*"])


def test_another_device(pytester):
    pytester.makepyfile(TEST.replace("50.0", "8.0"))
    result = pytester.runpytest_subprocess("-s", "--glauber-device", "sim://pbit-king-64")
    result.stdout.fnmatch_lines(["*device sim://pbit-king-64*"])
    missing = pytester.runpytest_subprocess("--glauber-device", "sim://nothing")
    missing.assert_outcomes(errors=1)


def test_nothing_is_imported_before_a_test_asks(pytester):
    pytester.makepyfile(
        """
        import sys
        def test_nothing():
            assert [name for name in sys.modules if name.startswith("glauber")] == [
                "glauber", "glauber.testing", "glauber.testing.plugin"]
        """
    )
    pytester.runpytest_subprocess("--strict-markers").assert_outcomes(passed=1)


REQUIRING = """
import pytest
@pytest.mark.glauber_requires(n_spins=65)
def test_large(): pass
@pytest.mark.glauber_requires(kind="tsu")
def test_kind(): pass
@pytest.mark.glauber_requires(potts_states=3)
def test_potts(): pass
@pytest.mark.glauber_requires(methods="tempering")
@pytest.mark.glauber_requires(n_spins=64, kind="pbit", deterministic=True, clamp=True)
def test_fits(): pass
"""


def test_requirements_skip_with_a_reason(pytester):
    pytester.makepyfile(REQUIRING)
    result = pytester.runpytest_inprocess("-rs", "--strict-markers", "--glauber-device", "sim://pbit-king-64")
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines_random(
        [
            "*sim://pbit-king-64 has 64 spins, and the test requires n_spins=65*",
            "*is of kind 'pbit', and the test requires kind='tsu'*",
            "*has p-dits of up to 0 states, and the test requires potts_states=3*",
        ]
    )


@pytest.mark.parametrize("wrong", ["spins=3", "64"])
def test_an_unknown_requirement_is_an_error(pytester, wrong):
    pytester.makepyfile(f"import pytest\n@pytest.mark.glauber_requires({wrong})\ndef test_it(): pass\n")
    result = pytester.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*glauber_requires does not know*there are n_spins, kind*"])


FAULTY = """
import glauber as gl, pytest
SCHEDULE = gl.SamplingSchedule(n_samples=50, n_warmup=50)

def test_brown_out(faulty):
    device = faulty(brown_outs=1, seed=3)
    model = gl.IsingModel.from_edges([(0, 1, 1.0)])
    with pytest.raises(gl.errors.DeviceIOError, match="on purpose"):
        device.submit(model, SCHEDULE).result(30)
    assert device.submit(model, SCHEDULE).result(30).n_samples == 50

def test_stuck(faulty):
    spins = faulty(stuck=1, seed=3).submit(gl.IsingModel([0.0] * 64, [], []), SCHEDULE).result(30).spins
    assert (abs(spins.sum(axis=(0, 1))) == 50).sum() == 1

def test_link(faulty):
    faulty(flips=1e-3, seed=1)
"""


def test_faulty_devices(pytester):
    pytester.makepyfile(FAULTY)
    result = pytester.runpytest_inprocess("-rs", "--glauber-device", "sim://pbit-king-64?seed=4")
    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines(["*flips cannot be had: sim:// has no transport*"])


def test_firmware_skips_visibly_or_works(pytester):
    pytester.makepyfile("def test_it(firmware): assert firmware.spec.n_sites")
    result = pytester.runpytest_subprocess("-rs")
    outcomes = result.parseoutcomes()
    assert outcomes.get("passed", 0) + outcomes.get("skipped", 0) == 1
    if "skipped" in outcomes:
        result.stdout.fnmatch_lines(["*no firmware: *"])


BOARD = """
import glauber as gl
def test_signs(glauber_device):
    model = gl.IsingModel([1.0, -1.0, 1.0], [], [])
    samples = glauber_device.submit(model, gl.SamplingSchedule(n_samples=20, beta=3.0), seed={seed}).result(30)
    assert (samples.spins.mean(axis=(0, 1)) * [1, -1, 1] > 0).all()
"""


@pytest.mark.slow
def test_a_session_is_recorded_and_replayed(pytester, tmp_path, monkeypatch):
    """The replay needs no board, and a changed test says where its traffic differs."""
    package = write_board_package(tmp_path / "package")
    monkeypatch.setenv("PYTHONPATH", str(package))
    device, recording = ("--glauber-device", "toy://board"), tmp_path / "traffic.jsonl"
    pytester.makepyfile(BOARD.format(seed=7))
    pytester.runpytest_subprocess(*device, "--glauber-record", recording).assert_outcomes(passed=1)
    unplugged = (
        "from glauber.errors import DeviceNotFoundError\ndef connect(name): raise DeviceNotFoundError('no board')\n"
    )
    (package / "toy_board" / "board.py").write_text(unplugged)
    pytester.runpytest_subprocess(*device).assert_outcomes(errors=1)
    replayed = pytester.runpytest_subprocess(*device, "--glauber-replay", recording)
    replayed.assert_outcomes(passed=1)
    replayed.stdout.fnmatch_lines(["*glauber traffic: replayed from*"])
    pytester.makepyfile(BOARD.format(seed=8))
    changed = pytester.runpytest_subprocess(*device, "--glauber-replay", recording)
    changed.assert_outcomes(failed=1)
    changed.stdout.fnmatch_lines(["*ProtocolError*the traffic differs from*"])


def test_record_and_replay_exclude_each_other(pytester):
    result = pytester.runpytest_inprocess("--glauber-record", "a", "--glauber-replay", "b")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_the_faulty_fixture_disturbs_a_link(pytester, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(write_board_package(tmp_path / "package")))
    pytester.makepyfile(
        """
        import glauber as gl, pytest
        def test_it(faulty):
            device = faulty(disconnect_after=400, seed=1)
            model = gl.IsingModel([1.0, -1.0, 1.0], [], [])
            with pytest.raises(gl.errors.DeviceIOError, match="on purpose"):
                for _ in range(9):
                    device.submit(model).result(30)
            assert device.submit(model).result(30).n_samples == 1000
        """
    )
    pytester.runpytest_subprocess("--glauber-device", "toy://board").assert_outcomes(passed=1)
