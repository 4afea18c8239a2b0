"""How surely a law test finds a fault of a named size: exact laws of wrong machines, and the power of two tests.

A test that cannot fail is worth nothing. So each law clause of the contract states, for the number of samples that it
drew, the probability that it would have noticed each of the faults here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from glauber.model import IsingModel
from glauber.testing.exact import ExactLaw

Law = NDArray[np.float64]

SMALLEST_EXPECTED = 10.0
"""Cells with a smaller expectation are pooled, as `chi_square` does."""


def chi_square_power(wrong: Law, right: Law, n: int, alpha: float) -> float:
    """The probability that `chi_square` at alpha notices that n samples come from `wrong` instead of `right`.

    By the noncentral chi-square distribution; both laws are over the same states.
    """
    rare = right * n < SMALLEST_EXPECTED
    a = np.append(wrong[~rare], wrong[rare].sum()) if rare.any() else wrong
    b = np.append(right[~rare], right[rare].sum()) if rare.any() else right
    if (a[b == 0] > 0).any():
        return 1.0
    a, b = a[b > 0], b[b > 0]
    return noncentral_power(n * float(((a - b) ** 2 / b).sum()), len(b) - 1, alpha)


def noncentral_power(distance: float, degrees: int, alpha: float) -> float:
    """The probability that a chi-square with this noncentrality exceeds the (1 - alpha) quantile of a central one."""
    from scipy.stats import chi2, ncx2

    degrees = max(1, degrees)
    return float(ncx2.sf(chi2.isf(alpha, degrees), degrees, distance)) if distance > 0 else alpha


def mean_energy_power(wrong: Law, law: ExactLaw, n: int, alpha: float) -> float:
    """The probability that a z test of the mean energy of n samples at alpha (two-sided) notices `wrong`."""
    p, energies = law.probabilities, law.energies
    variance = float(p @ energies**2 - (p @ energies) ** 2)
    if variance <= 0:
        return alpha
    return noncentral_power(n * float((wrong - p) @ energies) ** 2 / variance, 1, alpha)


def named_faults(model: IsingModel, beta: float, clamp: tuple[tuple[int, int], ...] = ()) -> Iterator[tuple[str, Law]]:
    """(name, law) of machines that are wrong in one way each; several laws can share a name.

    Laws are over the states that the clamp leaves.
    """
    right = ExactLaw(model, beta, clamp)
    yield "beta + 5 %", ExactLaw(model, 1.05 * beta, clamp).probabilities
    held = dict(clamp)
    for site, value in itertools.product(range(model.n_sites), (-1, 1)):
        if site not in held:
            law = np.where(right.states[:, site] == value, right.probabilities, 0.0)
            yield "one dead p-bit", law / law.sum()
    for k in range(model.n_edges):
        i, j = model.edges[k].tolist()
        if model.couplings[k] != 0 and not (i in held and j in held):  # else nothing is lost with it
            couplings = model.couplings.copy()
            couplings[k] = 0.0
            yield "one dropped coupling", ExactLaw(model.replace(couplings=couplings), beta, clamp).probabilities
    yield "neighbours updated together", synchronous_law(right)


def synchronous_law(law: ExactLaw) -> Law:
    """What all p-bits drawing at once, from the state before, settle at: the stationary law of that sweep."""
    states = law.states.astype(np.float64)
    model = law.model
    assert isinstance(model, IsingModel)
    weights = np.zeros((model.n_sites, model.n_sites))
    weights[model.edges[:, 0], model.edges[:, 1]] = model.couplings
    local = states @ (weights + weights.T) + model.fields
    up = 1 / (1 + np.exp(-2 * law.beta * local))  # of each site, after each state
    held = [site for site, _ in law.clamp]
    free = [site for site in range(model.n_sites) if site not in held]
    kernel = np.ones((len(states), len(states)))
    for site in free:
        kernel *= np.where(states[:, site] > 0, up[:, site, None], 1 - up[:, site, None])
    p = law.probabilities
    for _ in range(60):
        kernel = kernel @ kernel if _ < 6 else kernel
        p = p @ kernel
    return np.asarray(p / p.sum())


def swept(law: ExactLaw, start: Law, sweeps: int) -> Law:
    """The exact law after heat-bath sweeps over the sites in ascending order."""
    values = [len(np.unique(law.states[:, site])) for site in range(law.model.n_sites)]
    energies, p = law.energies.reshape(values), start.reshape(values)
    for _ in range(sweeps):
        for site in range(law.model.n_sites):
            weight = np.exp(-law.beta * (energies - energies.min(axis=site, keepdims=True)))
            p = p.sum(axis=site, keepdims=True) * weight / weight.sum(axis=site, keepdims=True)
    return np.asarray(p.ravel())


def memory(law: ExactLaw) -> float:
    """What a sweep leaves of the slowest disturbance of the law: the second eigenvalue of the sweep, 0 to 1.

    Of sweeps in ascending order; another order changes it little, which the users of this number leave room for.
    """
    p = law.probabilities
    disturbed = p * np.random.default_rng(1).normal(size=len(p))
    disturbed -= p * disturbed.sum()
    early = swept(law, disturbed, 12)
    late = swept(law, early, 8)
    size = float(np.abs(early).sum())
    return min(0.999, (float(np.abs(late).sum()) / size) ** (1 / 8)) if size > 1e-12 else 0.0
