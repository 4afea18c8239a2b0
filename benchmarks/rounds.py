"""The arithmetic of a comparison: rates, ratios round by round, and whether two samplers have the same energies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_rel

from benchmarks.contender import Contender

ALPHA = 1e-4
"""Chance of one false alarm in a comparison of energies; a whole run makes about forty."""
CHAINS_AS_UNITS = 8
"""From so many chains on a chain is the unit of statistics, below it a round."""


@dataclass
class Timing:
    """What the rounds of one contender gave.

    Attributes:
        contender: who.
        sweeps: in each round.
        seconds: of each round.
        energies: per site, of the final states, (rounds, chains).
    """

    contender: Contender
    sweeps: int
    seconds: list[float] = field(default_factory=list)
    energies: list[NDArray[np.float64]] = field(default_factory=list)

    def rates(self, updates_per_sweep: int) -> NDArray[np.float64]:
        """Updates per nanosecond, round by round."""
        return updates_per_sweep * self.sweeps / np.array(self.seconds) / 1e9


def ratio(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """The median over rounds of what is n times as fast: neighbours in time share the machine's mood."""
    return float(np.median(ours / theirs))


def best_peer(rates: dict[str, NDArray[np.float64]]) -> str | None:
    """The name with the largest median rate."""
    return max(rates, key=lambda name: float(np.median(rates[name])), default=None)


def agreement(ours: NDArray[np.float64], theirs: NDArray[np.float64], *, by_round: bool = False) -> float:
    """How probable so large a difference of mean energies is if both samplers have the same law.

    A paired t-test: both start every chain of a round from the same state. With few chains, or where a sampler gives
    all its chains one start, the units are the rounds' means, else the chains' means over rounds.

    Args:
        ours: (rounds, chains).
        theirs: the same; by rounds the number of chains may be another.
        by_round: the chains of a round are not independent.
    """
    axis = 1 if by_round or ours.shape[1] < CHAINS_AS_UNITS else 0
    difference = ours.mean(axis=axis) - theirs.mean(axis=axis)
    if len(difference) < 2:
        return 1.0
    if np.ptp(difference) <= 1e-12 * np.abs(ours).max():  # all the same but for rounding: no spread to test against
        return 1.0 if abs(difference[0]) <= 1e-12 * np.abs(ours).max() else 0.0
    return float(ttest_rel(difference, np.zeros_like(difference)).pvalue)


def compared(ours: Timing, theirs: Timing) -> float | None:
    """The p-value of `agreement`, or None where the other cannot start where ours did."""
    if not theirs.contender.takes_start:
        return None
    shared = theirs.contender.shares_start
    return agreement(np.array(ours.energies), np.array(theirs.energies), by_round=shared)


def row(timing: Timing, ours: Timing, updates_per_sweep: int, version: str) -> dict[str, Any]:
    """A contender's line of the results."""
    rates = timing.rates(updates_per_sweep)
    p_value = None if timing is ours else compared(ours, timing)
    return {
        "name": timing.contender.name,
        "version": version,
        "dynamics": timing.contender.dynamics,
        "precision": timing.contender.precision,
        "generator": timing.contender.generator,
        "sweeps": timing.sweeps,
        "seconds": timing.seconds,
        "updates_per_ns": float(np.median(rates)),
        "glauber_is_faster": ratio(ours.rates(updates_per_sweep), rates),
        "mean_energy_per_site": float(np.mean(timing.energies)),
        "energy_p_value": p_value,
        "energies_agree": None if p_value is None else p_value >= ALPHA,
    }
