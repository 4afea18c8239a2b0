"""Exact Boltzmann laws of small models by enumeration, and a chi-square test against them with a stated alpha."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glauber.errors import InvalidModelError
from glauber.model import IsingModel, Model

MAX_STATES = 2**20


@dataclass(frozen=True)
class ExactLaw:
    """P(s) ~ exp(-beta E(s)) of a small model, over the states that a clamp leaves.

    Attributes:
        model: at most about a million states.
        beta: inverse temperature.
        clamp: site -> value that is held.

    Raises:
        InvalidModelError: too many states, or a clamp of a site or to a value that is not there.
    """

    model: Model
    beta: float
    clamp: tuple[tuple[int, int], ...] = ()

    @cached_property
    def states(self) -> NDArray[np.int64]:
        """All states, shape (n_states, n_sites), the last site fastest."""
        values = (-1, 1) if isinstance(self.model, IsingModel) else tuple(range(self.model.n_states))
        held = dict(self.clamp)
        for site, value in held.items():
            if not (0 <= site < self.model.n_sites and value in values):
                raise InvalidModelError(
                    f"site {site} cannot be held at {value}; the model has {self.model.n_sites} sites"
                )
        if len(values) ** (self.model.n_sites - len(held)) > MAX_STATES:
            raise InvalidModelError(f"{len(values)}^{self.model.n_sites} states are too many; at most {MAX_STATES}")
        choices = [(held[i],) if i in held else values for i in range(self.model.n_sites)]
        return np.array(list(itertools.product(*choices)))

    @cached_property
    def energies(self) -> NDArray[np.float64]:
        """Energy of each state."""
        return self.model.energies(self.states)

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Probability of each state."""
        exponent = -self.beta * (self.energies - self.energies.min())
        weight = np.exp(exponent)
        return np.asarray(weight / weight.sum())

    def _digits(self, states: NDArray[np.int64]) -> NDArray[np.int64]:
        """States as digits 0 .. q - 1."""
        return (states + 1) // 2 if isinstance(self.model, IsingModel) else states

    @property
    def log_partition(self) -> float:
        """Log sum exp(-beta E) over the states."""
        lowest = float(self.energies.min())
        return math.log(float(np.exp(-self.beta * (self.energies - lowest)).sum())) - self.beta * lowest

    def counts(self, samples: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """How often each state occurs in samples (..., n_sites); a state the clamp forbids is an error.

        Raises:
            InvalidModelError: a sample that is not among the states.
        """
        return np.bincount(self.numbers(samples.reshape(-1, self.model.n_sites)), minlength=len(self.states))

    def numbers(self, samples: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Which of `states` each sample (..., n_sites) is, (...).

        Raises:
            InvalidModelError: a sample that is not among the states.
        """
        held = dict(self.clamp)
        free = [i for i in range(self.model.n_sites) if i not in held]  # held sites would need digits beyond int64
        base = 2 if isinstance(self.model, IsingModel) else self.model.n_states
        if samples.shape[-1:] != (self.model.n_sites,):
            raise InvalidModelError(
                f"samples of {self.model.n_sites} sites are asked for, not of shape {samples.shape}"
            )
        digits = self._digits(samples.astype(np.int64))
        known = not isinstance(self.model, IsingModel) or bool((np.abs(samples) == 1).all())
        known = known and all((samples[..., site] == value).all() for site, value in held.items())
        if not known or (digits < 0).any() or (digits >= base).any():
            raise InvalidModelError("a sample is not among the states that the clamp leaves")
        powers = base ** np.arange(len(free) - 1, -1, -1, dtype=np.int64)
        return np.asarray(digits[..., free] @ powers)  # the last site is fastest, as in `states`


@dataclass(frozen=True)
class ChiSquare:
    """The outcome of a chi-square test.

    Attributes:
        statistic: sum of (observed - expected)^2 / expected over cells.
        degrees_of_freedom: cells minus one.
        p_value: probability of a statistic at least as large if the law is right.
        total_variation: distance between observed and expected frequencies.
    """

    statistic: float
    degrees_of_freedom: int
    p_value: float
    total_variation: float


def chi_square(
    counts: NDArray[np.int64], probabilities: NDArray[np.float64], *, smallest_expected: float = 10.0
) -> ChiSquare:
    """Pearson's test of counts of independent samples; cells with small expectation are pooled into one."""
    from scipy.stats import chi2

    total = int(counts.sum())
    expected = probabilities * total
    rare = expected < smallest_expected
    observed, wanted = counts[~rare].astype(float), expected[~rare]
    if rare.any():
        observed, wanted = np.append(observed, counts[rare].sum()), np.append(wanted, expected[rare].sum())
    keep = wanted > 0
    if (observed[~keep] > 0).any():
        return ChiSquare(math.inf, max(1, int(keep.sum()) - 1), 0.0, 1.0)
    statistic = float(((observed[keep] - wanted[keep]) ** 2 / wanted[keep]).sum())
    degrees = max(1, int(keep.sum()) - 1)
    distance = float(np.abs(counts / total - probabilities).sum() / 2)
    return ChiSquare(statistic, degrees, float(chi2.sf(statistic, degrees)), distance)
