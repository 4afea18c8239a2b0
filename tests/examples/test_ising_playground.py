"""The playground's logic: systems, pictures, runs that can be had again bit for bit, hysteresis, joules in words."""

from __future__ import annotations

import io
import json
import runpy
import subprocess
import sys
import zipfile

import glauber as gl
import numpy as np
import pytest
from glauber.energy import EnergyPart, EnergyReport, UncertaintyPart
from glauber.errors import DeviceNotFoundError, FileFormatError, InvalidModelError, ModelNotSupportedError

from examples.ising_playground.devices import Devices, known_addresses
from examples.ising_playground.runs import Run, hysteresis, joules_in_words, loop_area
from examples.ising_playground.systems import (
    DOWN,
    MAX_FILE_BYTES,
    UP,
    lattice,
    model_from_upload,
    own_graph,
    picture,
)


@pytest.fixture(scope="module")
def devices():
    opened = Devices()
    yield opened
    opened.close()


def test_devices_are_opened_once_and_again_after_they_died(devices):
    first = devices.get("sim://ideal")
    assert devices.get("sim://ideal") is first
    first.close()
    again = devices.get("sim://ideal")
    assert again is not first
    assert again.trouble is None
    with pytest.raises(DeviceNotFoundError, match="nowhere"):
        devices.get("nowhere://x")
    assert known_addresses()[0] == "sim://ideal"
    assert "sim://kv260" in known_addresses()


def test_systems(devices):
    torus, patch = lattice(5, -2.0, periodic=True), lattice(5, 1.0, periodic=False)
    assert (torus.n_edges, patch.n_edges) == (50, 40)
    assert set(torus.couplings) == {-2.0}
    with pytest.raises(InvalidModelError, match="3 and 1024"):
        lattice(1025, 1.0, periodic=True)
    king = devices.get("sim://pbit-king-64")
    assert own_graph(king, 1.0).n_edges == 210
    with pytest.raises(ModelNotSupportedError, match="no published graph"):
        own_graph(devices.get("sim://ideal"), 1.0)


def test_uploads_are_read_or_refused_with_a_sentence(tmp_path):
    model = gl.IsingModel.from_edges([(0, 1, 1.0), (1, 2, -0.5)], {2: 0.25})
    for name in ("model.npz", "model.json"):
        gl.write_model(model, tmp_path / name)
        assert model_from_upload(name, (tmp_path / name).read_bytes()) == model
        assert model_from_upload(f"../../{name}", (tmp_path / name).read_bytes()) == model
    gl.write_model(gl.PottsModel(np.zeros((2, 3)), [(0, 1)], [1.0]), tmp_path / "potts.npz")
    for name, content, match in (
        ("model.npz", b"PK\x03\x04 not really", "model.npz"),
        ("model.json", b"{", "model.json"),
        ("notes.txt", b"hello", "notes.txt"),
        ("..", b"", "line|Gset|empty"),
        ("potts.npz", (tmp_path / "potts.npz").read_bytes(), "Potts"),
        ("large.npz", bytes(MAX_FILE_BYTES + 1), "MB"),
    ):
        with pytest.raises(FileFormatError, match=match) as caught:
            model_from_upload(name, content)
        assert "/tmp" not in str(caught.value)


def test_an_archive_that_unpacks_to_more_than_fits_is_refused_unread():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("fields.npy", "w") as member:
        for _ in range(21):
            member.write(bytes(10_000_000))
    assert len(content.getvalue()) < MAX_FILE_BYTES
    with pytest.raises(FileFormatError, match="unpacks to 210 MB; this page takes 200 MB"):
        model_from_upload("bomb.npz", content.getvalue())


def test_pictures():
    spins = np.array([-1, 1, 1, -1, 1])
    image = picture(spins)  # 3 to a row: the last place of the second row is no spin
    assert image.shape == (340, 510, 3)
    assert (image[10, 10] == DOWN).all()
    assert (image[10, 200] == UP).all()
    assert (image[300, 500] == 255).all()
    stripes = np.repeat(np.tile([-1, 1], 400), 800)  # rows of 800, one up, one down: blocks of 2 x 2 are half of each
    image = picture(stripes)
    assert image.shape == (400, 400, 3)
    assert (image == np.round((UP + DOWN) / 2)).all()
    assert picture(np.array([1])).shape == (512, 512, 3)


def moving(devices, address="sim://pbit-king-64", seed=5, start="random"):
    device = devices.get(address)
    return Run(device, own_graph(device, 0.5) if "king" in address else lattice(16, 1.0, periodic=True), seed, start)


def test_a_run_goes_on_from_where_it_was(devices):
    run = moving(devices, "sim://ideal")
    run.advance(0.5, 5.0, 40)
    assert run.magnetisation[-1] > 0.99  # along the field
    run.advance(0.1, 0.0, 1)
    assert run.magnetisation[-1] > 0.99  # a cold magnet keeps it; a new random start would be near 0
    assert run.sweeps == [*range(2, 41, 2), 41]
    run.advance(0.5, -5.0, 97)  # a prime: one state at its end
    assert (run.sweeps[-1], len(run.magnetisation)) == (138, 22)
    assert run.magnetisation[-1] < -0.99
    for arguments, match in (((0.0, 0, 1), "temperature"), ((1.0, 0, 0), "sweeps"), ((1.0, 0, 10**8), "sweeps")):
        with pytest.raises(InvalidModelError, match=match):
            run.advance(*arguments)


def test_the_same_seed_gives_the_same_states(devices):
    runs = [moving(devices, seed=seed) for seed in (7, 7, 8)]
    for run in runs:
        run.advance(2.0, 0.0, 20)
        run.advance(1.5, 0.25, 30)
    assert runs[0].steps == runs[1].steps
    assert runs[0].steps[0].digest != runs[2].steps[0].digest


def test_an_export_draws_the_same_states_again(devices, tmp_path, monkeypatch):
    run = moving(devices, start="down")
    for step in range(3):
        run.advance(2.0 - 0.5 * step, 0.25 * step, 20)
    with zipfile.ZipFile(io.BytesIO(run.export())) as archive:
        assert set(archive.namelist()) == {"model.npz", "run.json", "replay.py"}
        archive.extractall(tmp_path)
    command = [sys.executable, str(tmp_path / "replay.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "3 jobs: the same states" in done.stdout
    np.testing.assert_array_equal(np.load(tmp_path / "last_state.npy"), run.last)
    done = subprocess.run([*command, "sim://none"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    header = json.loads((tmp_path / "run.json").read_text())
    header["jobs"][1]["seed"] += 1
    (tmp_path / "run.json").write_text(json.dumps(header))
    monkeypatch.setattr(sys, "argv", command[1:])
    with pytest.raises(SystemExit, match="2 of 3 jobs drew other states"):
        runpy.run_path(command[1])


def test_a_cold_magnet_lags_behind_the_field_and_a_hot_one_does_not(devices):
    """At T = 1.5 a 16 x 16 lattice flips well beyond zero field; at T = 10 the loop is closed up to noise."""
    areas = {}
    for temperature in (1.5, 10.0):
        run = moving(devices, "sim://ideal", start="down")
        loop = list(hysteresis(run, temperature, 2.0, 11, 10))
        assert [field for field, _ in loop] == pytest.approx([*np.linspace(-2, 2, 11), *np.linspace(2, -2, 11)])
        areas[temperature] = loop_area(loop)
        assert loop[10][1] > loop[0][1]
    assert areas[1.5] > 0.5
    # 21 steps of 0.4, each mean of 256 spins with a deviation of about 0.09 at T = 10 (susceptibility above 1 / T)
    assert abs(areas[10.0]) < 4 * 0.4 * 0.09 * np.sqrt(21)
    with pytest.raises(InvalidModelError, match="2 or more points"):
        next(hysteresis(moving(devices), 1.0, 1.0, 1, 10))
    assert loop_area([(0, -1), (1, -1), (1, 1), (0, 1), (0, -1)]) == pytest.approx(2.0)


def test_joules_are_said_with_their_basis(devices):
    assert joules_in_words([]) == "Nothing has run yet."
    run = moving(devices)
    run.advance(2.0, 0.0, 20)
    run.advance(2.0, 0.0, 20)
    words = joules_in_words(run.reports)
    joules = sum(report.joules for report in run.reports)
    for part in (f"{joules:.3g} J", "uncertainty", "2 jobs", "modelled, not measured", "assumed", "Left out"):
        assert part in words
    ideal = moving(devices, "sim://ideal")
    ideal.advance(2.0, 0.0, 1)
    assert "no energy figures are published" in joules_in_words(ideal.reports)
    part = EnergyPart(2.0, 0.1, 3.0, "s", "measured", "a power meter")
    line = UncertaintyPart("gain", 0.1, 0.1, "normal", "B", "its certificate")
    report = EnergyReport("measured", {"gross": part}, 10, 1, 1e-18, boundary="board", budget=(line,))
    words = joules_in_words([report, report])
    assert words.startswith("4 J, standard uncertainty 0.2 J, for 2 jobs (measured by a power meter; includes: board)")
