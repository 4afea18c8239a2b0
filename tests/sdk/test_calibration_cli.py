"""glauber calibrate, history, diff, rollback, twin and run --calibration."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import glauber as gl
import numpy as np
import pytest
from glauber.calibration import CalibrationHistory, CalibrationRecord, twin_check
from glauber.cli import app
from typer.testing import CliRunner

RUNNER = CliRunner()
CHIP = "sim://pbit-king-64?chip=3&gain_spread=0.1&offset_spread=0.2&readout_error=0.02&n_dead=1"
QUICK = ("--protocol", "pbits", "--shots", 2000)


def invoke(*arguments, code=0):
    result = RUNNER.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GLAUBER_CALIBRATIONS", str(tmp_path / "calibrations"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "calibrations"


@pytest.fixture
def record(tmp_path):
    invoke("calibrate", f"{CHIP}&seed=1", *QUICK, "--out", "record.json")
    return CalibrationRecord.load("record.json")


def test_a_calibration_is_shown_kept_and_in_force(folder):
    told = invoke("calibrate", f"{CHIP}&seed=1", *QUICK, "--valid-hours", 24, "--temperature", 30, "--out", "r.json")
    record = CalibrationRecord.load("r.json")
    assert "63 of 64" in told.stdout
    assert f"in force for {CHIP}: {record.id}" in told.stdout.replace("\n", "")
    assert f"site {record.bad_sites[0]}: dead" in told.stdout
    assert (record.temperature_c, record.address) == (30, CHIP)
    assert record.expires is not None
    assert CalibrationHistory().in_force(CHIP) == record
    again = json.loads(invoke("calibrate", CHIP, *QUICK, "--no-history", "--json").stdout)
    assert again["in_force"] is None
    assert again["written"] == []
    assert CalibrationRecord.model_validate(again["record"]).device == "pbit-king-64"
    assert CalibrationHistory().in_force(CHIP) == record


def test_history_rollback_and_diff(record):
    second = json.loads(invoke("calibrate", f"{CHIP}&seed=2", *QUICK, "--json").stdout)["in_force"]
    listed = json.loads(invoke("history", f"{CHIP}&seed=5", "--json").stdout)
    assert [(entry["id"], entry["in_force"]) for entry in listed] == [(record.id, False), (second, True)]
    assert second in invoke("history").stdout
    assert "none yet" in invoke("history", "sim://ideal").stdout
    back = json.loads(invoke("rollback", CHIP, "--json").stdout)
    assert (back["before"], back["in_force"]) == (second, record.id)
    assert "has no calibration before" in invoke("rollback", CHIP, code=1).stderr
    assert f"in force for {CHIP}: {second}" in invoke("rollback", f"{CHIP}&seed=2", second).stdout.replace("\n", "")
    assert "none of that id" in invoke("rollback", CHIP, "nothing", code=1).stderr
    same = invoke("diff", "record.json", second)
    assert "no drift beyond chance" in same.stdout
    assert json.loads(invoke("diff", record.id, second, "--json").stdout)["drifted"] is False


def test_drift_has_an_exit_code_of_its_own(record):
    aged = f"{CHIP}&drift_per_hour=0.01&age_hours=30&seed=4"
    later = json.loads(invoke("calibrate", aged, *QUICK, "--json").stdout)["in_force"]
    assert "drifted" in invoke("diff", record.id, later, code=1).stdout
    for wrong in ("nothing", "nothing.json"):
        assert "error" in invoke("diff", record.id, wrong, code=2).stderr
    with open("empty.json", "w") as file:
        file.write("{}")
    invoke("diff", "empty.json", record.id, code=2)
    other = json.loads(invoke("calibrate", "sim://dtm-l70", *QUICK, "--sites", 16, "--json").stdout)["in_force"]
    assert "is of" in invoke("diff", record.id, other, code=2).stderr


def test_runs_are_corrected(record):
    gl.write_model(gl.IsingModel.from_edges([(0, 1, 0.5), (1, 2, -0.5)], {0: 0.3}), "model.json")
    run = ("run", "model.json", "--samples", 5, "--store", "none", "--json", "-d")
    for name in ("latest", record.id, record.id[:-2], "record.json"):
        told = json.loads(invoke(*run, CHIP, "--calibration", name).stdout)
        assert told["calibration"] == record.id
    assert json.loads(invoke(*run, CHIP).stdout)["calibration"] is None
    nothing = invoke(*run, "sim://ideal", "--calibration", "latest")
    assert "Nothing is corrected" in nothing.stderr.replace("\n", " ").replace("  ", " ")
    assert "corrected by calibration" in invoke(*run[:-2], "-d", CHIP, "--calibration", "latest").stdout
    past = record.model_copy(update={"expires": "2026-01-01T00:00:00+00:00"})
    past.save("past.json")
    assert "expired at 2026" in invoke(*run, CHIP, "--calibration", "past.json").stderr.replace("\n", " ")
    assert "is of pbit-king-64" in invoke(*run, "sim://ideal", "--calibration", record.id, code=1).stderr
    assert "none of that id" in invoke(*run, CHIP, "--calibration", "nothing", code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nope://x",), 3, "nope"),
        (("sim://nope",), 3, "nope"),
        ((CHIP, "--protocol", "pbit"), 2, "pbits"),
        ((CHIP, "--shots", "1"), 2, "100 or more"),
        ((CHIP, "--seconds", "-1"), 2, "seconds"),
        ((CHIP, "--sites", "65"), 1, "has 64"),
        ((CHIP, "--out", "r.txt"), 2, ".json"),
        ((CHIP, "--html", "no/folder/r.html"), 2, "does not exist"),
        (("sim://ideal",), 1, "n_sites"),
    ],
)
def test_what_cannot_be_calibrated(folder, arguments, code, says):
    error = json.loads(invoke("calibrate", *arguments, "--json", code=code).stderr)
    assert says in error["message"]
    assert not list(folder.glob("*.json"))


def test_a_history_that_cannot_be_used_is_said_before_the_work(folder, monkeypatch):
    folder.mkdir()
    (folder / "index.sqlite").write_bytes(b"no database" * 400)
    began = time.monotonic()
    for command in (("calibrate", CHIP), ("history",), ("rollback", CHIP)):
        assert "cannot be used" in invoke(*command, code=1).stderr.replace("\n", " ")
    assert time.monotonic() - began < 5  # the whole calibration takes longer
    invoke("calibrate", CHIP, *QUICK, "--no-history")


def test_a_full_disk_leaves_no_half_of_a_file(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert "No space left" in invoke("calibrate", CHIP, *QUICK, code=1).stderr
    monkeypatch.undo()
    assert sorted(file.name for file in folder.iterdir()) == ["index.sqlite"]
    assert json.loads(invoke("history", "--json").stdout) == []


def test_a_twin_of_a_record(record):
    told = invoke("twin", "record.json").stdout.strip()
    assert told == f"sim://pbit-king-64?twin={record.id}.twin.json"
    with gl.open_device(told) as twin:
        assert twin.spec.name == "pbit-king-64"
    assert json.loads(invoke("twin", record.id, "--out", "a b.json", "--json").stdout)["address"].endswith("a%20b.json")
    with gl.open_device("sim://pbit-king-64?twin=a%20b.json"):
        pass
    assert "history ADDRESS" in invoke("twin", "latest", code=2).stderr.replace("\n", " ")
    assert "is of pbit-king-64" in invoke("twin", record.id, "--check", "sim://dtm-l70", code=1).stderr


@pytest.mark.slow
def test_a_twin_is_held_against_its_chip_and_another(monkeypatch):
    monkeypatch.setattr(twin_check, "N_DRAWS", 6)  # quicker, and as right
    monkeypatch.setattr(twin_check, "N_CHAINS", 1024)
    invoke("calibrate", CHIP, "--protocol", "pbits", "--out", "record.json")
    right = json.loads(invoke("twin", "record.json", "--check", CHIP, "--json").stdout)
    assert right["check"]["passed"] is True
    wrong = invoke("twin", "record.json", "--check", CHIP.replace("chip=3", "chip=4"), code=1)
    assert "this is not the device's twin" in wrong.stdout.replace("\n", " ")


def test_ctrl_c_leaves_nothing_behind(folder, tmp_path):
    command = [
        sys.executable,
        "-m",
        "glauber.cli",
        "calibrate",
        "firmware://host",
        "--sites",
        "64",
        "--shots",
        "400000",
    ]
    process = subprocess.Popen([*command, "--out", "r.json"], stderr=subprocess.PIPE, start_new_session=True, text=True)
    deadline = time.monotonic() + 30
    while not (children := _children(process.pid)):  # the board's process: the work has begun
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert "stopped" in process.stderr.read()
    process.stderr.close()
    assert not [child for child in children if os.path.exists(f"/proc/{child}")]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["calibrations"]
    assert sorted(file.name for file in folder.iterdir()) == ["index.sqlite"]


def _children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return file.read().split()
    except OSError:
        return []


def test_the_numbers_of_the_command_are_the_records(record):
    text = invoke("calibrate", CHIP, *QUICK, "--no-history").stdout
    line = next(line for line in text.splitlines() if line.startswith("gain"))
    mean = float(line.split()[1])
    gains = record.pbits.gain.array[record.pbits.good]
    assert abs(mean - gains.mean()) < 5 * np.sqrt(2) * np.median(record.pbits.gain.u) / np.sqrt(len(gains)) + 1e-3
