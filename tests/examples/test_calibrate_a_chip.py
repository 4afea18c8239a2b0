"""The example: five models, each at least five times nearer to its exact law with the calibration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import glauber as gl
import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is missing: pip install 'glauber[examples]'")

from glauber.calibration import CalibrationRecord, distribution

from examples.calibrate_a_chip.__main__ import CHIP
from examples.calibrate_a_chip.models import PATCH, compare, patches, together

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def record():
    with gl.open_device(CHIP, seed=1) as device:
        return device.calibrate(["pbits"], shots=2000)


def test_patches_are_apart_and_away_from_the_dead_one(record):
    with gl.open_device(CHIP) as device:
        topology = device.spec.topology
    chosen = patches(record, topology, seed=3)
    sites = [site for patch in chosen for site in patch.sites]
    assert len(sites) == len(set(sites)) == 5 * PATCH
    assert not set(sites) & set(record.bad_sites)
    whole = together(chosen, 64)
    assert topology.has_edges(whole.edges).all()
    assert sum(len(patch.model.edges) for patch in chosen) == len(whole.edges)
    with pytest.raises(ValueError, match="no room"):
        patches(record, topology, seed=3, count=9)


def test_the_law_is_numbered_as_distributions_are(record):
    with gl.open_device("sim://pbit-king-64", seed=2) as ideal:
        chosen = patches(record, ideal.spec.topology, seed=3)
        schedule = gl.SamplingSchedule(n_samples=400, n_chains=64, n_warmup=50, sweeps_per_sample=4)
        samples = ideal.submit(together(chosen, 64), schedule).result()
    for patch in chosen:
        drawn, law = distribution(samples, None, patch.sites), patch.law
        n = 400 * 64
        chi_square = n * float(((drawn - law) ** 2 / law).sum())
        assert chi_square < 255 + 6 * np.sqrt(2 * 255)  # and some room for what eight bits round away
        assert n * float(((drawn[::-1] - law) ** 2 / law).sum()) > 2000


@pytest.mark.slow
def test_each_of_the_five_models_is_five_times_nearer(tmp_path):
    command = [sys.executable, "-m", "examples.calibrate_a_chip", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line[:5].strip().isdigit()]
    assert len(rows) == 5
    for _, raw, corrected, floor in rows:
        assert float(raw) > 5 * float(corrected)
        assert float(corrected) < 3 * float(floor)
    assert (tmp_path / "report.png").stat().st_size < 100_000
    assert CalibrationRecord.load(tmp_path / "record.json").bad_sites


@pytest.mark.slow
def test_the_wrong_record_does_not_help(record):
    """The negative control: another chip's calibration."""
    with gl.open_device(CHIP.replace("chip=7", "chip=8"), seed=1) as other:
        wrong = other.calibrate(["pbits"])
    with gl.open_device(CHIP, seed=1) as device:
        chosen = [p for p in patches(record, device.spec.topology, 3) if not set(p.sites) & set(wrong.bad_sites)]
        found = compare(device, wrong, chosen, 64_000, seed=1)
    assert max(found.improvement) < 2
