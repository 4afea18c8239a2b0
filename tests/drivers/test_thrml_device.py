"""thrml://cpu: our jobs on THRML's sampler. Its law is tested by the driver contract, and against exact laws here.

Alpha is 1e-6 for each chi-square; seeds are fixed.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("thrml", reason="needs the extra thrml: pip install -e '.[thrml]'")

import glauber as gl
from glauber.errors import DeviceNotFoundError, ModelNotSupportedError
from glauber.testing import DriverContract, ExactLaw, chi_square
from glauber_drivers.thrml_device import driver

ALPHA = 1e-6


@pytest.fixture(scope="module")
def device():
    with gl.open_device("thrml://cpu?seed=5") as opened:
        yield opened


def test_an_anneal_takes_each_sweep_at_its_own_temperature(device):
    """Spins without couplings forget all but the last sweep, so that the last states follow its beta's law exactly."""
    model = gl.IsingModel(np.linspace(-1, 1, 6), np.zeros((0, 2), int), [])
    schedule = gl.AnnealingSchedule(table=(0.0, 3.0, 0.8), n_chains=4000)
    states = device.submit(model, schedule, seed=3).result(120).last
    law = ExactLaw(model, 0.8)
    assert chi_square(law.counts(states), law.probabilities).p_value > ALPHA


def test_forbidden_states_never_come_even_at_beta_0(device):
    allowed = np.array([[True, False, True], [True, True, True]])
    model = gl.PottsModel(np.zeros((2, 3)), [(0, 1)], [0.7], allowed)
    for beta in (0.0, 0.9):
        schedule = gl.SamplingSchedule(n_samples=200, n_chains=20, sweeps_per_sample=4, beta=beta)
        states = device.submit(model, schedule, seed=4).result(120).states
        assert set(np.unique(states[..., 0]).tolist()) == {0, 2}
        law = ExactLaw(model, beta)
        energies = np.where(law.states[:, 0] == law.states[:, 1], -0.7, 0.0)
        possible = np.exp(-beta * energies) * allowed[0, law.states[:, 0]]
        assert chi_square(law.counts(states), possible / possible.sum()).p_value > ALPHA


def test_batches_change_nothing(device, monkeypatch):
    model = gl.IsingModel([0.1, -0.2, 0.3], [(0, 1), (1, 2)], [0.5, -0.4])
    schedule = gl.SamplingSchedule(n_samples=9, n_chains=3, n_warmup=4, sweeps_per_sample=2)
    whole = device.submit(model, schedule, seed=2**63 + 5).result(120)
    monkeypatch.setattr(driver, "FIRST_SWEEPS", 1)
    monkeypatch.setattr(driver, "BATCH_SECONDS", 0.0)
    parts = device.submit(model, schedule, seed=2**63 + 5).result(120)
    np.testing.assert_array_equal(whole.spins, parts.spins)


def test_what_thrml_cannot_do_is_refused(device):
    model = gl.IsingModel([0.1, 0.2], [(0, 1)], [1.0])
    with pytest.raises(ModelNotSupportedError, match="same sites"):
        device.submit(model, gl.SamplingSchedule(n_samples=2, n_chains=2), clamp=np.array([[1, 0], [0, 1]]))
    n = 300
    dense = gl.IsingModel(np.zeros(n), np.argwhere(np.triu(np.ones((n, n)), 1)), np.ones(n * (n - 1) // 2))
    with pytest.raises(ModelNotSupportedError, match="300 colours"):
        device.submit(dense, gl.SamplingSchedule(n_samples=2))
    with pytest.raises(DeviceNotFoundError, match="thrml://cpu"):
        gl.open_device("thrml://gpu")


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestThrml(DriverContract):
    address = "thrml://cpu?seed=31"
    effort = "quick"


@pytest.mark.parametrize("address", ["thrml://cpu", "jax://cpu"])
def test_a_cpu_that_jax_was_told_to_leave_out(address):
    code = (
        f"import glauber as gl\ntry: gl.open_device({address!r})\nexcept gl.errors.DeviceNotFoundError as e: print(e)"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "nowhere"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "unset JAX_PLATFORMS" in done.stdout
    assert "always works" not in done.stdout
