"""Convergence tests keep their false-alarm rates on stationary chains, and see a drift; series are of known law."""

from __future__ import annotations

import math

import glauber as gl
import numpy as np
import pytest
from glauber.convergence import (
    ENOUGH_EFFECTIVE,
    convergence_of,
    cramer_von_mises,
    geweke,
    heidelberger_welch,
    spectral_density_at_zero,
    thermalisation,
)
from glauber.errors import InvalidModelError
from scipy.signal import lfilter
from scipy.stats import binom


def ar1(rng, rho, shape):
    """Stationary AR(1) series along the last axis, innovations of variance 1; its S is 1 / (1 - rho)^2."""
    n = shape[-1]
    noise = rng.normal(size=shape)
    noise[..., 0] /= math.sqrt(1 - rho**2)
    return lfilter([1.0], [1.0, -rho], noise, axis=-1).reshape(*shape[:-1], n)


def test_the_law_of_cramer_and_von_mises():
    """Quantiles of Anderson and Darling's table 1 (1952), which has five digits."""
    for x, p in ((0.34730, 0.90), (0.46136, 0.95), (0.74346, 0.99), (1.16786, 0.999), (0.11888, 0.5)):
        assert cramer_von_mises(x) == pytest.approx(p, abs=5e-6)
    assert (cramer_von_mises(0.0), cramer_von_mises(50.0)) == (0.0, 1.0)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9])
def test_the_spectral_density_of_a_known_process(rho):
    """50 chains of 5000. One is known to about 10 % (n_eff 250 and more), so that their mean's 5 % is over 3 errors."""
    chains = ar1(np.random.default_rng(1), rho, (50, 5000))
    found = np.mean([spectral_density_at_zero(3.0 * chain + 7.0) for chain in chains])
    assert found == pytest.approx(9.0 / (1 - rho) ** 2, rel=0.05)


def alarms(rho, n, chains, repeats, alpha, seed):
    """How many of `repeats` runs each test calls moving, at alpha."""
    rng = np.random.default_rng(seed)
    runs = [ar1(rng, rho, (chains, n)) for _ in range(repeats)]
    early = sum(not geweke(run, alpha=alpha).passed for run in runs)
    stationary = sum(heidelberger_welch(run, alpha=alpha).dropped > 0 for run in runs)
    return early, stationary


@pytest.mark.parametrize(("rho", "n"), [(0.0, 400), (0.5, 1000)])
def test_false_alarms_are_as_many_as_stated(rho, n):
    """400 runs at alpha 0.05: at most what binomial(400, 0.075) exceeds with 1e-3; half as much again is allowed.

    A test that raised alarms twice too often would fail with probability 0.5, one of three times with 0.9999.
    """
    limit = int(binom.isf(1e-3, 400, 0.075))
    early, stationary = alarms(rho, n, 1, 400, 0.05, seed=2)
    assert 3 < early <= limit  # below 4 of 20 expected: 1e-5
    assert 3 < stationary <= limit


@pytest.mark.slow
@pytest.mark.parametrize(("rho", "n", "chains"), [(0.0, 1000, 1), (0.5, 2000, 1), (0.5, 4000, 4), (0.9, 4000, 4)])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_false_alarms_of_many_runs(rho, n, chains, alpha):
    """4000 runs of 96 or more effective samples in the later half: 0.5 to 2 alpha, beside 4 errors of binomials."""
    limits = binom.isf(3e-5, 4000, 2 * alpha), binom.ppf(3e-5, 4000, 0.5 * alpha)
    for found in alarms(rho, n, chains, 4000, alpha, seed=3):
        assert limits[1] <= found <= limits[0]


def test_a_drift_is_seen():
    """A transient of 3 standard deviations that decays in 40 samples of 1000: in 100 of 100 runs, at alpha 0.01."""
    rng, n, start = np.random.default_rng(4), 1000, 3.0 / math.sqrt(1 - 0.5**2)
    transient = start * np.exp(-np.arange(n) / 40)
    settled = []
    for _ in range(100):
        run = ar1(rng, 0.5, (4, n)) + transient
        assert not geweke(run, alpha=0.01).passed
        found = heidelberger_welch(run, alpha=0.01)
        assert found.passed
        assert found.dropped >= 100
        settled.append(thermalisation(run))
    assert all(found.reached for found in settled)
    # what is left of the transient, 3.5 exp(-d / 40), is between half and 2 % of the standard deviation 1.15
    assert 70 < np.mean([found.samples for found in settled]) < 200


def test_a_drift_to_the_very_end_is_never_called_arrived():
    """It hides in its own spectral density, so that tests may pass; but then next to nothing is effective."""
    rng, n = np.random.default_rng(5), 1000
    for _ in range(50):
        found = convergence_of({"energy": ar1(rng, 0.5, (4, n)) + np.linspace(0.0, 8.0, n)}, 1, 0.01)
        assert found.geweke["energy"].n_effective < ENOUGH_EFFECTIVE / 2
        assert not found.thermalisation["energy"].reached
        assert len(found.warnings) >= 2


def test_the_half_width_covers_the_mean():
    """95 % intervals of 400 stationary runs: 0.90 to 0.99, the 1e-4 band of binomial(400, 0.95) widened by 2 %."""
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(400):
        found = heidelberger_welch(10.0 + ar1(rng, 0.5, (2, 1000)), alpha=0.05)
        covered += abs(found.mean - 10.0) <= found.half_width
        assert found.relative_half_width == pytest.approx(found.half_width / found.mean)
    assert binom.ppf(1e-4, 400, 0.93) <= covered <= binom.isf(1e-4, 400, 0.97)


def test_chains_that_stand_still():
    still = np.full((2, 200), 5.0)
    assert geweke(still).passed
    assert heidelberger_welch(still).passed
    assert heidelberger_welch(still).half_width == 0.0
    jumped = still.copy()
    jumped[1, :10] = 4.0
    assert not geweke(jumped).passed
    assert heidelberger_welch(jumped).dropped == 20


@pytest.mark.parametrize(
    ("series", "alpha", "match"),
    [
        (np.zeros((2, 99)), 0.01, "100 or more samples"),
        (np.full((2, 200), np.nan), 0.01, "NaN"),
        (np.zeros((2, 200)), 1.0, "alpha"),
        (np.zeros((0, 200)), 0.1, "100 or more"),
    ],
)
def test_what_cannot_be_judged_is_refused(series, alpha, match):
    for test in (geweke, heidelberger_welch):
        with pytest.raises(InvalidModelError, match=match):
            test(series, alpha=alpha)


RING = gl.IsingModel.from_edges([(i, (i + 1) % 64, 1.0) for i in range(64)])


def test_a_result_says_whether_it_has_arrived():
    """A ring at beta 1.5 takes hundreds of sweeps from a random start: domains of length about 20 must form."""
    with gl.open_device("sim://ideal?seed=5") as device:
        cold = device.submit(RING, gl.SamplingSchedule(n_samples=400, n_chains=32, beta=1.5)).result()
        warm = device.submit(
            RING, gl.SamplingSchedule(n_samples=400, n_chains=32, beta=0.5, n_warmup=100, sweeps_per_sample=2)
        ).result()
    found = cold.convergence()
    assert not found.geweke["energy"].passed
    assert "energy" in found.warnings[0]
    assert found.thermalisation_sweeps >= 50
    assert str(found).count("!") == len(found.warnings)
    fine = warm.convergence()
    assert fine.warnings == ()
    assert fine.sweeps_per_sample == 2
    assert fine.geweke["energy"].alpha == 0.01 / 4


def test_the_monte_carlo_error_of_a_mean():
    """40 runs: errors of the mean energy of a ring, against enumeration, scatter as the MCSE says.

    The sum of squares of 40 standard normals lies within 18 and 76 with probability 0.998; the seed is fixed.
    """
    law = gl.testing.ExactLaw(gl.IsingModel.from_edges([(i, (i + 1) % 8, 1.0) for i in range(8)]), 0.6)
    exact = float(law.probabilities @ law.energies)
    squares = 0.0
    with gl.open_device("sim://ideal?seed=6") as device:
        for _ in range(40):
            schedule = gl.SamplingSchedule(n_samples=500, n_chains=4, n_warmup=50, beta=0.6)
            found = device.submit(law.model, schedule).result().diagnostics().energy
            assert found.mcse is not None
            squares += ((found.mean - exact) / found.mcse) ** 2
    assert 18 < squares < 76


def test_the_monte_carlo_error_is_shown():
    with gl.open_device("sim://ideal?seed=7") as device:
        samples = device.submit(RING, gl.SamplingSchedule(n_samples=100, n_chains=4, beta=0.5)).result()
    found = samples.diagnostics()
    assert found.as_dict()["energy"]["mcse"] == found.energy.mcse
    assert found.energy.mean == pytest.approx(samples.energies.mean())
    assert f"energy {found.energy.mean:.6g} +- {found.energy.mcse:.2g}" in str(found)


def test_arguments_of_other_types_are_refused():
    series = np.random.default_rng(0).normal(size=(2, 200))
    for alpha in ("0.01", None, math.nan, 2):
        with pytest.raises(InvalidModelError, match="alpha must lie"):
            geweke(series, alpha=alpha)
        with pytest.raises(InvalidModelError, match="alpha must lie"):
            convergence_of({"energy": series, "magnetisation": series}, 1, alpha)
    with pytest.raises(InvalidModelError, match="array of numbers"):
        geweke([[1.0, 2.0], [3.0]])
