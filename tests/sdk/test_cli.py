"""The command: text for people, JSON for machines, exit codes for scripts."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time

import glauber as gl
import jsonschema
import numpy as np
import pytest
from glauber.cli import app
from glauber.meter import MeterSpec, Trace
from glauber.solve_view import solve_view, temperature_table
from glauber_simulator.driver import SimulatorDriver
from rich.console import Console
from rich.progress import Progress
from typer.testing import CliRunner

RUNNER = CliRunner()


def invoke(*arguments, code=0):
    result = RUNNER.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "model.json"
    gl.write_model(gl.IsingModel.from_edges([(0, 1, 1.0), (1, 2, -0.5)], {0: 0.3}), path)
    return path


def test_devices_as_json_lists_twelve_of_five_kinds():
    listed = json.loads(invoke("devices", "--json").stdout)
    assert len(listed) >= 12
    assert {device["kind"] for device in listed} == {"tsu", "pbit", "annealer", "gpu", "cpu"}
    extras = ("jax://", "thrml://")  # listed where they are installed
    others = [device["address"] for device in listed if not device["address"].startswith(("sim://", *extras))]
    assert others == ["firmware://host"]


@pytest.mark.parametrize("name", gl.load_spec.__wrapped__.__globals__["catalogue_names"]())
def test_describe_as_json_validates_against_the_schema(name):
    schema = json.loads(invoke("schema").stdout)
    described = json.loads(invoke("describe", name, "--json").stdout)
    assert not list(jsonschema.validators.validator_for(schema)(schema).iter_errors(described))


def test_describe_for_people():
    text = invoke("describe", "z1").stdout
    assert "not published" in text
    assert "7.09e-15 J" in text
    assert "offset grid" in invoke("describe", "sim://z1?width=24&height=24").stdout.lower()


def test_devices_and_version_for_people():
    assert "sim://pbit-king-64" in invoke("devices").stdout
    assert "machine contract" in invoke("version").stdout
    assert json.loads(invoke("version", "--json").stdout)["machine contract"] == 1


def test_run_is_reproducible_and_writes_what_it_drew(model_file, tmp_path):
    arguments = ["run", model_file, "--device", "sim://ideal", "--samples", 50, "--chains", 2, "--seed", 3]
    first = json.loads(invoke(*arguments, "--json", "-o", tmp_path / "a.npz").stdout)
    invoke(*arguments, "-o", tmp_path / "b.npz")
    a, b = gl.SampleSet.load(tmp_path / "a.npz"), gl.SampleSet.load(tmp_path / "b.npz")
    np.testing.assert_array_equal(a.states, b.states)
    assert first["lowest_energy"] == a.energies.min()
    assert first["seed"] == 3


def test_run_with_clamps(model_file, tmp_path):
    invoke("run", model_file, "-d", "sim://ideal", "--clamp", "0=-1", "--clamp", "2=1", "-o", tmp_path / "c.npz")
    states = gl.SampleSet.load(tmp_path / "c.npz").states
    assert (states[..., 0] == -1).all()
    assert (states[..., 2] == 1).all()


def test_solve_prints_cut_check_and_best_known(tmp_path):
    path = tmp_path / "C5"
    path.write_text("5 5\n" + "".join(f"{i + 1} {(i + 1) % 5 + 1} 1\n" for i in range(5)))
    text = invoke("solve", path, "--device", "sim://ideal", "--sweeps", 20000, "--best-known", 4).stdout
    assert "cut: 4" in text
    assert "recounted edge by edge" in text
    assert "best known: 4 (reached)" in text
    found = json.loads(invoke("solve", path, "-d", "sim://ideal", "--sweeps", 20000, "--json", "--seed", 1).stdout)
    assert found["value"] == 4
    invoke("solve", path, "-d", "sim://ideal", "--sweeps", 20000, "-o", tmp_path / "best.npz")
    with np.load(tmp_path / "best.npz", allow_pickle=False) as archive:
        assert archive["states"].shape[1] == 5


def test_solve_measures_the_time_to_a_target(tmp_path):
    path = tmp_path / "grid"
    edges = [(i, j) for i in range(36) for j in (i + 1, i + 6) if j < 36 and (j == i + 6 or j % 6)]
    path.write_text(f"36 {len(edges)}\n" + "".join(f"{i + 1} {j + 1} 1\n" for i, j in edges))
    arguments = ["solve", path, "-d", "sim://ideal", "--sweeps", 20000, "--target", len(edges), "--runs", 3]
    assert "target reached in 3 of 3 runs" in invoke(*arguments).stdout
    found = json.loads(invoke(*arguments, "--json").stdout)["time_to_solution"]
    assert found["hits"] == found["runs"] == 3
    assert found["low"] < found["seconds_99"] < found["high"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["describe", "pbit-king"], 3, "did you mean pbit-king-64"),
        (["describe", "simm://z1"], 3, "did you mean sim://"),
        (["run", "{missing}", "-d", "sim://ideal"], 2, "No such file"),
        (["run", "{model}", "-d", "nowhere"], 3, "looks like"),
        (["run", "{model}", "-d", "sim://z1"], 4, "width"),
        (["run", "{model}", "-d", "sim://ideal", "--beta", "-1"], 2, "greater than or equal to 0"),
        (["run", "{model}", "-d", "sim://ideal", "--clamp", "0"], 2, "SITE=VALUE"),
        (["run", "{model}", "-d", "sim://ideal", "--clamp", "9=1"], 2, "site 9"),
        (["run", "{model}", "-d", "sim://ideal", "-o", "{folder}/no/x.npz"], 2, "does not exist"),
        (["run", "{model}", "-d", "sim://ideal", "-o", "{folder}/x.txt"], 2, "written as .npz"),
        (["run", "{folder}", "-d", "sim://ideal"], 2, "directory"),
        (["run", "{model}", "-d", "sim://ideal", "-o", "{folder}/d.npz"], 2, "it is a folder"),
        (["solve", "{model}", "-d", "sim://ideal", "--best-known", "inf"], 2, "finite number"),
        (["solve", "{model}", "-d", "sim://ideal", "--runs", "3"], 2, "give --target"),
        (["solve", "{model}", "-d", "sim://ideal", "--penalty", "3"], 2, "problems with constraints"),
        (["solve", "{bad}", "-d", "sim://ideal"], 2, "line 1"),
        (["solve", "{model}", "-d", "sim://ideal", "--seconds", "-1"], 2, "greater than 0"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_errors_have_a_code_and_no_traceback(model_file, tmp_path, arguments, code, message, as_json):
    (tmp_path / "bad").write_text("rubbish\n")
    (tmp_path / "d.npz").mkdir()
    names = {"model": model_file, "folder": tmp_path, "missing": tmp_path / "none", "bad": tmp_path / "bad"}
    result = invoke(*(a.format(**names) for a in arguments), *(["--json"] if as_json else []), code=code)
    text = json.loads(result.stderr)["message"] if as_json else result.stderr
    assert message in text.replace("\n", " ")
    assert "Traceback" not in result.output


def test_help_for_newcomers():
    for arguments in ([], ["run"], ["solve"], ["describe"], ["devices"]):
        assert "Usage" in RUNNER.invoke(app, [*arguments, "--help"]).output


def let_work(process, seconds):
    """Until a process has had so many seconds of a processor: on a busy machine that takes longer."""
    deadline = time.monotonic() + 100
    had = 0.0
    while had < seconds:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
        with open(f"/proc/{process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        had = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # in user and in system mode


def test_ctrl_c_keeps_what_was_drawn(model_file, tmp_path):
    out = tmp_path / "r.npz"
    command = [sys.executable, "-m", "glauber.cli", "run", str(model_file), "-d", "sim://ideal", "-o", str(out)]
    command += ["--samples", "1000000000", "--thin", "1000", "--chains", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        let_work(process, 3)  # importing takes one of them
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "what was drawn is kept" in errors
    assert process.returncode == 0
    assert gl.SampleSet.load(out).provenance.stopped_by == "cancel"


def test_ctrl_c_as_the_job_ends_keeps_it(model_file, tmp_path, monkeypatch):
    """There is nothing to cancel any more: no error, all of it is kept."""
    watch = gl.Job.watch

    def interrupted(job):
        yield from watch(job)
        raise KeyboardInterrupt

    monkeypatch.setattr(gl.Job, "watch", interrupted)
    out = tmp_path / "r.npz"
    invoke("run", model_file, "-d", "sim://ideal", "-o", out, "--samples", "100")
    assert gl.SampleSet.load(out).n_samples == 100


def test_a_reader_that_has_gone_is_no_error_to_tell_of(model_file):
    """As in `glauber run ... | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "glauber.cli", "run", str(model_file), "-d", "sim://ideal"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert ended.returncode == 1
    assert "error" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_ctrl_c_in_a_solve_keeps_the_best_so_far(tmp_path):
    problem, out = tmp_path / "torus.txt", tmp_path / "s.npz"
    n = 40
    sites = [(i, j) for i in range(n) for j in range(n)]
    edges = [(n * i + j, n * (a % n) + b % n) for i, j in sites for a, b in ((i + 1, j), (i, j + 1))]
    problem.write_text("\n".join([f"{n * n} {len(edges)}", *(f"{a + 1} {b + 1} 1" for a, b in edges)]))
    command = [sys.executable, "-m", "glauber.cli", "solve", str(problem), "-d", "sim://ideal", "--seconds", "600"]
    process = subprocess.Popen(
        [*command, "--runs", "3", "--target", "1e9", "-o", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    try:
        let_work(process, 5)
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "the best so far is kept" in errors
    assert process.returncode == 0
    assert "cut: 3200" in printed  # bipartite: every edge
    assert "target reached in 0 of 1 runs" in printed
    assert out.exists()


def test_the_package_tells_its_version():
    assert invoke("version", "--json", code=0).output.find(f'"glauber": "{gl.__version__}"') > 0


def test_import_is_quick_and_loads_no_extra():
    code = (
        "import sys, time; t = time.perf_counter(); import glauber; seconds = time.perf_counter() - t\n"
        "heavy = {'torch','jax','cupy','serial','pyvisa','dimod','scipy','networkx','rich','typer','numpy'}\n"
        "print(seconds, sorted(heavy & set(sys.modules)))\n"
        "glauber.open_device\n"
        "extras = {'torch','jax','cupy','serial','pyvisa','dimod','minorminer','matplotlib','sklearn'}\n"
        "print(sorted(extras & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    first, second = printed.splitlines()
    assert first.split(" ", 1)[1] == "[]"
    assert second == "[]"


def test_the_view_of_a_search_shows_rate_and_temperatures():
    console = Console(force_terminal=True, width=100, record=True, file=io.StringIO())
    with (
        gl.open_device("sim://ideal?seed=1") as device,
        solve_view(console, Progress(console=console), 4e6, by_sweeps=True) as show,
    ):
        edges = [(i, (i + k) % 400, 1.0 if (i * k) % 3 else -1.0) for i in range(400) for k in (1, 7, 31)]
        model = gl.IsingModel.from_edges(edges)
        reports = []
        gl.solve(model, device=device, budget=gl.Budget(sweeps=400_000), seed=1, on_progress=reports.append)
        show(reports[-1])
    assert "sweeps/s" in console.export_text()
    console.print(temperature_table(reports[-1].temperatures()))
    text = console.export_text()
    lines = [line for line in text.splitlines() if "%" in line and "█" in line]
    assert 2 <= len(lines) <= 16
    betas = [float(line.split()[0]) for line in lines]
    assert betas == sorted(betas)


def test_run_prints_measured_joules_or_why_there_are_none(model_file, monkeypatch):
    """A simulator with a counter that reads 100 W for two seconds, and one that saw too little."""
    spec = MeterSpec("a bench meter", "wall", "joules", 0.1, 0.0, 1.0, "", 0.01, 1e-3, "its certificate")
    times = np.arange(0, 2, 0.01)

    class Meter:
        idle = None

        def __init__(self, seen):
            self.spec, self._seen = spec, seen

        def start(self):
            return self

        def stop(self):
            return Trace(times[self._seen], np.floor(times[self._seen] * 10.001) * 10)

    command = ("run", model_file, "-d", "sim://ideal", "--samples", 20, "--seed", 1)
    monkeypatch.setattr(SimulatorDriver, "meter", Meter(slice(None)), raising=False)
    text = invoke(*command).stdout
    assert "device energy: 199 J +- " in text
    assert "(measured, wall; largest uncertainty: window start)" in text
    report = json.loads(invoke(*command, "--json").stdout)["energy_report"]
    assert (report["basis"], report["boundary"], report["not_measured"]) == ("measured", "wall", None)
    assert [line["name"] for line in report["budget"]] == [
        "gain", "resolution, start", "resolution, end", "window start", "window end",
    ]  # fmt: skip
    monkeypatch.setattr(SimulatorDriver, "meter", Meter(slice(5)))
    assert "not measured: a window of 0.04 s cannot be measured by a bench meter" in invoke(*command).stdout


def test_devices_are_listed_where_a_drivers_package_is_missing(monkeypatch):
    from glauber import registry

    def without_serial(scheme):
        if scheme in ("firmware", "serial", "socket"):
            raise gl.errors.DeviceNotFoundError("the package cobs is missing")
        return found(scheme)

    found = registry.factory
    monkeypatch.setattr(registry, "factory", without_serial)
    assert "sim://ideal" in invoke("devices").stdout
    assert "no board answers" in invoke("devices", "--scan").stdout
