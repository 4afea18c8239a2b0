"""The powers that the contract states are those that its tests have: laws and powers against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from glauber.model import IsingModel
from glauber.testing import ExactLaw, chi_square
from glauber.testing.power import (
    chi_square_power,
    mean_energy_power,
    memory,
    named_faults,
    noncentral_power,
    swept,
    synchronous_law,
)
from scipy.stats import norm

MODEL = IsingModel([0.3, -0.2, 0.1, 0.0], [(0, 1), (1, 2), (2, 3), (0, 3)], [0.8, -0.6, 0.5, 0.7])
LAW = ExactLaw(MODEL, 0.7)
ROUNDS = 2000


def within(hits, power):
    """As many of ROUNDS tests failed as the power says: five standard errors, and 0.02 for the approximation."""
    assert abs(hits / ROUNDS - power) < 5 * np.sqrt(power * (1 - power) / ROUNDS) + 0.02


@pytest.mark.parametrize("n", [1500, 6000])
def test_the_power_of_the_chi_square_test_is_measured(n):
    wrong = ExactLaw(MODEL, 0.7 * 1.12).probabilities
    rng = np.random.default_rng(1)
    alpha = 1e-3
    hits = sum(
        chi_square(counts, LAW.probabilities).p_value < alpha for counts in rng.multinomial(n, wrong, size=ROUNDS)
    )
    within(hits, chi_square_power(wrong, LAW.probabilities, n, alpha))
    false = sum(
        chi_square(counts, LAW.probabilities).p_value < 0.05
        for counts in rng.multinomial(n, LAW.probabilities, size=ROUNDS)
    )
    within(false, 0.05)


def test_the_power_of_the_mean_energy_test_is_measured():
    wrong = ExactLaw(MODEL, 0.7 * 1.05).probabilities
    n, alpha, rng = 4000, 1e-2, np.random.default_rng(2)
    p, energies = LAW.probabilities, LAW.energies
    mean = p @ energies
    sigma = np.sqrt(p @ (energies - mean) ** 2 / n)
    z = (rng.multinomial(n, wrong, size=ROUNDS) @ energies / n - mean) / sigma
    hits = int((2 * norm.sf(np.abs(z)) < alpha).sum())
    power = mean_energy_power(wrong, LAW, n, alpha)
    assert 0.1 < power < 0.95
    within(hits, power)


def test_a_right_machine_is_noticed_with_alpha_only():
    assert chi_square_power(LAW.probabilities, LAW.probabilities, 10_000, 1e-6) == pytest.approx(1e-6)
    assert mean_energy_power(LAW.probabilities, LAW, 10_000, 1e-6) == pytest.approx(1e-6)
    assert noncentral_power(1e4, 10, 1e-6) > 0.999


def test_the_law_of_neighbours_updated_together_is_that_of_such_a_machine():
    rng, states = np.random.default_rng(3), np.ones((20_000, 4))
    weights = np.zeros((4, 4))
    weights[MODEL.edges[:, 0], MODEL.edges[:, 1]] = MODEL.couplings
    weights += weights.T
    for _ in range(60):
        up = 1 / (1 + np.exp(-2 * 0.7 * (states @ weights + MODEL.fields)))
        states = np.where(rng.random(states.shape) < up, 1.0, -1.0)
    counts = LAW.counts(states.astype(np.int8))
    assert chi_square(counts, synchronous_law(LAW)).p_value > 1e-6
    assert chi_square(counts, LAW.probabilities).p_value < 1e-6


def test_every_named_fault_is_a_law_of_its_own():
    laws = list(named_faults(MODEL, 0.7))
    assert [name for name, _ in laws].count("one dead p-bit") == 8
    assert [name for name, _ in laws].count("one dropped coupling") == 4
    for name, law in laws:
        assert law.sum() == pytest.approx(1), name
        assert np.abs(law - LAW.probabilities).sum() > 1e-3, name
    held = list(named_faults(MODEL, 0.7, ((0, 1), (1, -1))))
    assert [name for name, _ in held].count("one dead p-bit") == 4
    assert [name for name, _ in held].count("one dropped coupling") == 3  # one joins the two that are held


def test_the_memory_of_a_sweep_is_its_second_eigenvalue():
    """Of a pair it is tanh(beta J)^2; of the model, what the whole transition matrix has."""
    pair = ExactLaw(IsingModel([0.0, 0.0], [(0, 1)], [1.0]), 0.9)
    assert memory(pair) == pytest.approx(np.tanh(0.9) ** 2, rel=1e-6)
    matrix = np.stack([swept(LAW, row, 1) for row in np.eye(16)])
    second = np.sort(np.abs(np.linalg.eigvals(matrix)))[-2]
    assert memory(LAW) == pytest.approx(second, rel=0.02)
    np.testing.assert_allclose(swept(LAW, LAW.probabilities, 3), LAW.probabilities, atol=1e-14)
