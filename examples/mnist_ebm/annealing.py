"""Log Z of a Potts model by annealed importance sampling on a device, forwards and backwards."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from glauber.checks import whole_number
from glauber.errors import InvalidModelError
from glauber.model import PottsModel
from glauber.schedule import SamplingSchedule
from glauber.torch import Sampler
from numpy.typing import NDArray

from examples.mnist_ebm.lattice import fast_energies

EFFECTIVE = 0.1
"""Share of chains that an error bar asks to be effective, and ENOUGH of them at least."""
ENOUGH = 10
TIMES_LONGER = 8
"""At most, than the temperatures that a configuration names."""


class Annealed(Protocol):
    """An estimate that knows how many of its chains count."""

    @property
    def effective_chains(self) -> float:
        """(sum w)^2 / sum w^2."""
        ...


Estimate = TypeVar("Estimate", bound=Annealed)


def with_enough_temperatures(
    estimate: Callable[[int], Estimate], n_chains: int, n_temperatures: int, *, quick: bool
) -> tuple[Estimate, int]:
    """An estimate by annealing in so many steps, doubled until enough of the chains are effective.

    At TIMES_LONGER times as many, or at once if it is to be quick, it is taken as it is: then it is likely too low, by
    more than its error bar.

    Returns:
        The estimate, and its number of temperatures.
    """
    most = n_temperatures if quick else TIMES_LONGER * n_temperatures
    found = estimate(n_temperatures)
    while found.effective_chains < max(ENOUGH, EFFECTIVE * n_chains) and 2 * n_temperatures <= most:
        n_temperatures *= 2
        found = estimate(n_temperatures)
    return found, n_temperatures


@dataclass(frozen=True)
class LogPartition:
    """Log Z with an error bar.

    Attributes:
        value: the estimate.
        standard_error: by the spread of the chains' weights; meaningful with `effective_chains` of ten or more.
        effective_chains: (sum w)^2 / sum w^2; near 1 the run has too few temperatures.
        backwards: from the model's states to the base: then the value is too high in expectation, else too low.
    """

    value: float
    standard_error: float
    effective_chains: float
    backwards: bool


def log_partition(
    model: PottsModel,
    base: NDArray[np.float64],
    sampler: Sampler,
    *,
    n_chains: int,
    n_temperatures: int,
    start: NDArray[np.unsignedinteger] | None = None,
) -> LogPartition:
    """Log Z by annealed importance sampling (Neal 2001): one sweep, and one job, for each temperature.

    From independent sites with fields `base`, whose Z is known, to the model: E_k = (1 - k) E_base + k E. With `start`
    the other way, from states of the model's own law.

    Args:
        model: whose Z; beta = 1.
        base: fields of the independent sites, (n_sites, n_states).
        sampler: draws.
        n_chains: chains, each of which is a weight.
        n_temperatures: steps from base to model.
        start: states (n_chains, n_sites) of the model's law, such as from long chains.

    Raises:
        InvalidModelError: fewer than 2 chains, no temperature, or a base or start of another shape.
    """
    if base.shape != model.fields.shape:
        raise InvalidModelError(f"base must have shape {model.fields.shape}, as the model's fields, not {base.shape}")
    if start is not None and (start.ndim != 2 or start.shape[1] != model.n_sites):
        raise InvalidModelError(f"start must have shape (n_chains, {model.n_sites}), not {start.shape}")
    n_chains = whole_number("n_chains", n_chains if start is None else len(start), 2)
    n_temperatures = whole_number("n_temperatures", n_temperatures, 1)
    difference = PottsModel(model.fields - base, model.edges, model.couplings)  # E - E_base
    schedule = SamplingSchedule(n_samples=1, n_chains=n_chains)

    def sweep(share: float, states: NDArray[np.unsignedinteger] | None) -> NDArray[np.unsignedinteger]:
        mixed = PottsModel((1 - share) * base + share * model.fields, model.edges, share * model.couplings)
        return sampler.run(mixed, schedule, initial=states, on_overflow="scale", observe="last").last

    states = sweep(0.0, None) if start is None else start
    shares = np.linspace(0.0, 1.0, n_temperatures + 1)
    if start is not None:
        shares = shares[::-1]
    log_weights = np.zeros(n_chains)
    for number, (before, after) in enumerate(itertools.pairwise(shares.tolist())):
        log_weights -= (after - before) * fast_energies(difference, states)
        if number + 1 < n_temperatures:
            states = sweep(after, states)
    top = float(log_weights.max())
    weights = np.exp(log_weights - top)
    mean = float(weights.mean())
    # forwards the mean weight is Z / Z_base, backwards Z_base / Z
    ratio = top + math.log(mean)
    high = base.max(axis=1, keepdims=True)
    log_z_base = float((high[:, 0] + np.log(np.exp(base - high).sum(axis=1))).sum())
    return LogPartition(
        value=log_z_base + (ratio if start is None else -ratio),
        standard_error=float(weights.std(ddof=1)) / mean / math.sqrt(n_chains),
        effective_chains=float(weights.sum() ** 2 / (weights**2).sum()),
        backwards=start is not None,
    )
