"""What the tests of exact laws share: laws after some sweeps, and the power of Pearson's test against named faults."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import glauber as gl
import numpy as np
from bodies import compiled
from glauber.testing import ExactLaw, chi_square
from numpy.typing import NDArray
from scipy.stats import chi2, ncx2

ALPHA = 1e-6
POWER = 0.99
Law = NDArray[np.float64]


def swept(law: ExactLaw, betas: NDArray[np.float64], sites: NDArray[np.int32], start: Law | None = None) -> Law:
    """The exact law after one heat-bath sweep per beta over `sites` in order, from the uniform law.

    It is what multiplying with the sweeps' transition matrices gives, without their 4^n entries: an update of site i
    replaces the law along axis i by its conditional.
    """
    values = [np.unique(law.states[:, i]).size for i in range(law.model.n_sites)]
    energies = np.where(np.isfinite(law.energies), law.energies, 1e6).reshape(values)
    p = np.isfinite(law.energies).astype(float).reshape(values) if start is None else start.reshape(values)
    p = p / p.sum()
    for beta in betas.tolist():
        for site in sites.tolist():
            weight = np.exp(-beta * (energies - energies.min(axis=site, keepdims=True)))
            p = p.sum(axis=site, keepdims=True) * weight / weight.sum(axis=site, keepdims=True)
    return np.asarray(p.ravel())


def order_of(model: Any) -> NDArray[np.int32]:
    return compiled(model).order.site


def power_against(wrong: Law, right: Law, n: int) -> float:
    """The probability that chi_square at ALPHA notices that n samples come from `wrong` instead of `right`."""
    rare = right * n < 10  # chi_square pools these
    a = np.append(wrong[~rare], wrong[rare].sum()) if rare.any() else wrong
    b = np.append(right[~rare], right[rare].sum()) if rare.any() else right
    if (a[b == 0] > 0).any():
        return 1.0
    a, b = a[b > 0], b[b > 0]
    distance = n * float(((a - b) ** 2 / b).sum())
    return float(ncx2.sf(chi2.isf(ALPHA, len(b) - 1), len(b) - 1, distance))


def invisible(law: Law, target: Law, n: int) -> bool:
    """Whether n samples of `law` look like `target` to Pearson: a noncentrality below 0.01 moves nothing."""
    seen = target > 0
    return n * float(((law[seen] - target[seen]) ** 2 / target[seen]).sum()) < 0.01


def assert_draws(states: NDArray[Any], law: ExactLaw, expected: Law | None = None) -> None:
    """Chi-square at ALPHA; `expected` in place of the Boltzmann law where a transient is meant."""
    outcome = chi_square(law.counts(states), law.probabilities if expected is None else expected)
    assert outcome.p_value > ALPHA, outcome


def ising_model(n: int, n_edges: int, seed: int, *, fields: bool = True) -> gl.IsingModel:
    """Couplings of both signs and unlike sizes on a random graph with odd cycles."""
    rng = np.random.default_rng(seed)
    pairs = np.array(list(itertools.combinations(range(n), 2)))
    edges = pairs[np.sort(rng.choice(len(pairs), n_edges, replace=False))]
    couplings = rng.choice([-1.0, 1.0], n_edges) * rng.uniform(0.3, 1.0, n_edges)
    return gl.IsingModel(rng.normal(size=n) * 0.4 * fields, edges, couplings)


def named_faults(model: gl.IsingModel, beta: float) -> Iterator[tuple[str, Law]]:
    """Beta + 5 %, each p-bit dead in turn, each coupling dropped in turn."""
    yield "beta + 5 %", ExactLaw(model, 1.05 * beta).probabilities
    for site, value in itertools.product(range(model.n_sites), (-1, 1)):
        held, law = ExactLaw(model, beta, ((site, value),)), np.zeros(2**model.n_sites)
        codes = (held.states + 1) // 2 @ (2 ** np.arange(model.n_sites - 1, -1, -1))
        law[codes] = held.probabilities
        yield f"p-bit {site} dead at {value}", law
    for k in range(model.n_edges):
        couplings = model.couplings.copy()
        couplings[k] = 0.0
        yield f"coupling {k} dropped", ExactLaw(model.replace(couplings=couplings), beta).probabilities
