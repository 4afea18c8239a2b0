"""Importance weights against exact laws: Gaussians, and Ising models reweighted from one beta to another."""

from __future__ import annotations

import math
from dataclasses import replace

import glauber as gl
import numpy as np
import pytest
from glauber.errors import InvalidModelError
from glauber.importance import Importance
from glauber.testing import ExactLaw


def test_gaussians_with_known_weights():
    """x from N(0, 1) for N(m, 1): log w = m x - m^2 / 2, ESS / n = exp(-m^2), mean m, log ratio 0; within 4 errors."""
    x, m = np.random.default_rng(1).normal(size=(4, 5000)), 0.5
    found = Importance(m * x - m**2 / 2)
    assert found.weights.sum() == pytest.approx(1.0)
    assert found.ess / x.size == pytest.approx(math.exp(-(m**2)), rel=0.03)
    mean = found.mean(x)
    # Var = E[w^2 (x - m)^2] / n = exp(m^2) (1 + m^2) / n
    assert mean.standard_error == pytest.approx(math.sqrt(math.exp(m**2) * (1 + m**2) / x.size), rel=0.1)
    assert abs(mean.value - m) < 4 * mean.standard_error
    assert abs(found.log_ratio.value) < 4 * found.log_ratio.standard_error
    assert found.reliable
    assert "reliable" in str(found)


def test_laws_that_hardly_overlap_are_called_unreliable():
    """Weights w = u^-1.25 of uniform u have a Pareto tail of shape 1.25: not even a mean."""
    found = Importance(-1.25 * np.log(np.random.default_rng(2).random((1, 4000))))
    assert found.k_hat == pytest.approx(1.25, abs=0.15)
    assert not found.reliable
    assert "NOT reliable" in str(found)


def test_equal_weights_lose_nothing():
    found = Importance(np.full((2, 50), 3.0))
    assert (found.ess, found.k_hat, found.reliable) == (pytest.approx(100.0), -math.inf, True)
    assert found.log_ratio == (pytest.approx(3.0), 0.0)
    assert found.mean(np.full((2, 50), 2.0)) == (pytest.approx(2.0), 0.0)
    assert Importance(np.append(np.zeros(50), -np.inf)).ess == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (np.zeros((1, 10)), "25 samples"),
        (np.full((1, 30), np.nan), "NaN"),
        (np.full((1, 30), -np.inf), "not all"),
        (np.full((1, 30), np.inf), "below infinity"),
        (np.zeros((30, 3)), "4 a chain"),
    ],
)
def test_weights_that_are_none(weights, match):
    with pytest.raises(InvalidModelError, match=match):
        Importance(weights)
    with pytest.raises(InvalidModelError, match="give one each"):
        Importance(np.zeros((2, 50))).mean(np.zeros(100))


@pytest.fixture(scope="module")
def samples():
    edges = [(i, (i + 1) % 10, (-1.0) ** (i // 3) * (0.5 + 0.25 * (i % 2))) for i in range(10)]
    model = gl.IsingModel.from_edges(edges, {0: 0.25, 5: -0.5})
    with gl.open_device("sim://ideal?seed=3") as device:
        return device.submit(model, gl.SamplingSchedule(n_samples=5000, n_chains=8, n_warmup=50, beta=0.8)).result()


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.2])
def test_from_one_beta_to_another(samples, beta):
    """Energy, magnetisation and free energy against enumeration, within 4 standard errors that are smaller than 2 %."""
    here, there = ExactLaw(samples.model, 0.8), ExactLaw(samples.model, beta)
    found = samples.reweight(beta)
    assert found.reliable
    assert found.ess < 40_000
    for values, exact in ((samples.energies, there.energies), (samples.spins.mean(axis=2), there.states.mean(axis=1))):
        estimate = found.mean(values)
        assert 0 < estimate.standard_error < 0.02 * np.abs(exact).max()
        assert abs(estimate.value - there.probabilities @ exact) < 4 * estimate.standard_error
    ratio = found.log_ratio
    assert abs(ratio.value - (there.log_partition - here.log_partition)) < 4 * ratio.standard_error
    assert ratio.standard_error < 0.02


def test_what_the_device_rounded_is_undone():
    """On a chip of 8 bits a model off its grid is sampled as rounded, and reweighted to what was asked."""
    rng = np.random.default_rng(4)
    edges = [(0, 1), (1, 2), (2, 3), (0, 8), (1, 9), (8, 9)]
    model = gl.IsingModel(np.zeros(64), edges, [0.003, 1.0, 0.0041, 0.0052, -0.997, 0.61 + rng.random() / 100])
    with gl.open_device("sim://pbit-king-64?seed=4") as device:
        drawn = device.submit(model, gl.SamplingSchedule(n_samples=200, n_chains=64)).result()
    assert not drawn.provenance.quantisation.exact
    found = drawn.reweight(1.0)
    expected = drawn.programmed_energies - drawn.energies
    np.testing.assert_allclose(found.log_weights, expected)
    assert np.ptp(expected) > 0
    with pytest.raises(InvalidModelError, match="run the job again"):
        replace(drawn, program=None).reweight(1.0)


def test_what_cannot_be_reweighted(samples):
    for beta in (-1.0, math.nan, "1"):
        with pytest.raises(InvalidModelError, match="beta must be"):
            samples.reweight(beta)
    with gl.open_device("sim://ideal") as device:
        anneal = device.submit(samples.model, gl.AnnealingSchedule(n_sweeps=10)).result()
    with pytest.raises(InvalidModelError, match="one beta"):
        anneal.reweight(1.0)


@pytest.fixture(scope="module")
def device():
    with gl.open_device("sim://ideal?seed=3") as opened:
        yield opened


def ring_energy(n, beta):
    """Mean energy of a ring of n spins with couplings 1."""
    t = math.tanh(beta)
    return -n * (t + t ** (n - 1)) / (1 + t**n)


@pytest.mark.parametrize(("cold", "hot"), [(1.5, 1.45), (1.5, 0.5), (2.0, 0.1), (3.0, 0.5)])
def test_energies_in_levels_do_not_hide_that_two_laws_overlap_too_little(device, cold, hot):
    """The energies of a ring of 64 spins are multiples of 4, so many of the largest weights are equal."""
    ring = gl.IsingModel.from_edges([(i, (i + 1) % 64, 1.0) for i in range(64)])
    schedule = gl.SamplingSchedule(n_samples=500, n_chains=8, beta=cold, n_warmup=2000, sweeps_per_sample=20)
    samples = device.submit(ring, schedule).result()
    found = samples.reweight(hot)
    mean = found.mean(samples.energies)
    near = abs(mean.value - ring_energy(64, hot)) < 5 * mean.standard_error
    assert found.reliable == near == (hot == 1.45)


def test_levels_of_a_bounded_law_are_reliable():
    """Weights of 1 and 2 alone: few of them are the largest, and none can be larger."""
    for share in (0.002, 0.01, 0.1, 0.9):
        weights = np.where(np.arange(4000) < share * 4000, 2.0, 1.0)
        assert Importance(np.log(np.random.default_rng(1).permutation(weights))).reliable
    assert Importance(np.zeros(100)).reliable


def test_one_energy_tells_nothing_about_a_lower_beta(device):
    pair = gl.IsingModel.from_edges([(0, 1, 1.0)])
    frozen = device.submit(pair, gl.SamplingSchedule(n_samples=200, n_warmup=50, beta=30.0)).result()
    with pytest.raises(InvalidModelError, match="all samples have the energy -1"):
        frozen.reweight(0.5)
    assert frozen.reweight(40.0).mean(frozen.energies).value == pytest.approx(-1.0)
    free = device.submit(gl.IsingModel(np.zeros(2), [], []), gl.SamplingSchedule(n_samples=200)).result()
    assert free.reweight(0.5).reliable


def test_values_that_are_no_numbers_are_refused(samples):
    with pytest.raises(InvalidModelError, match="finite numbers"):
        samples.reweight(0.9).mean(np.full(samples.energies.shape, math.nan))
