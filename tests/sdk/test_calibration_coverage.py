"""Reported uncertainties hold: a reduced benchmarks/calibration.py, and calibrations of what is no simulator."""

from __future__ import annotations

import sys
from pathlib import Path

import glauber as gl
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "drivers"))

from glauber.calibration.record import Measured
from glauber_drivers.probana import ProbanaDriver
from probana_emulator import MemoryTransport

from benchmarks.calibration import COUPLED, PLAIN, coverage, twins

pytestmark = pytest.mark.slow
K = 5.0


def test_intervals_of_p_bits_hold_the_true_numbers():
    """Each share in its binomial 99.9 % band; seeded, so a right protocol passes always."""
    found = coverage(range(500, 520), PLAIN, 10_000, ("pbits",))
    assert found.outside == []
    assert found.dead_found == found.chips == 20
    assert found.tallies["gain"].looked == 20 * 63


def test_intervals_that_are_too_narrow_would_be_seen(monkeypatch):
    """The negative control: 15 % too narrow."""
    honest = Measured.of
    monkeypatch.setattr(Measured, "of", classmethod(lambda cls, values, u: honest(values, 0.85 * np.asarray(u))))
    assert len(coverage(range(500, 520), PLAIN, 10_000, ("pbits",)).outside) >= 4


@pytest.mark.parametrize("flaws", [PLAIN, COUPLED], ids=["plain", "coupled"])
def test_intervals_of_couplings_hold_the_true_numbers(flaws):
    found = coverage(range(500, 504), flaws, 10_000)
    assert found.outside == []
    assert found.tallies["factor"].looked == 4 * 63
    assert found.tallies["crosstalk, all"].looked > 1500


def test_twins_pass_for_their_chip_and_for_no_other():
    (found,) = twins(range(510, 511), n_models=4)
    assert found["right chip"]["passed"] is True
    assert found["wrong chip"]["passed"] is False


def test_the_probana_is_calibrated_unchanged():
    """An emulator of its protocol whose p-bits are ideal: nothing to find, and jobs are corrected."""
    with gl.Device(ProbanaDriver(lambda: MemoryTransport(seed=11), "memory"), seed=5) as device:
        record = device.calibrate(shots=400, n_sites=16)
        assert np.abs((record.pbits.gain.array - 1) / record.pbits.gain.u).max() < K
        assert np.abs(record.pbits.offset.array / record.pbits.offset.u).max() < K
        assert record.memory.sweeps == 0
        z = [(value - 1) / u for region in record.temperatures for value, u in region.estimates.values()]
        assert np.abs(z).max() < K
        device.use_calibration(record)
        model = gl.IsingModel.from_edges([(0, 1, 0.5), (1, 2, -0.4)])
        kernel = device.submit(model, gl.SamplingSchedule(n_samples=5)).result().provenance.kernel
        assert kernel["calibration"] == record.id


def test_lanes_of_a_probana_that_were_measured_wrong_are_found():
    """Curves that drifted after the board's own calibration, which the emulator does not repeat."""
    transport = MemoryTransport(seed=11, curves=[(1.2 + 0.05 * lane, 0.2) for lane in range(8)])
    transport.board.curves = [(1.2 + 0.05 * lane, 0.2 if lane else 0.3) for lane in range(8)]  # one got flatter
    with gl.Device(ProbanaDriver(lambda: transport, "memory"), seed=5) as device:
        pbits = device.calibrate(["pbits"], shots=400, n_sites=16).pbits
    z = (pbits.gain.array - 1) / pbits.gain.u
    assert (z < -K).sum() == 2  # two of the sixteen take turns on that lane
