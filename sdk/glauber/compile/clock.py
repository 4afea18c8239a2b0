"""When asynchronous p-bits are updated: Poisson counts and a delay as integers, made once on the host."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glauber.schedule import AsynchronousSchedule

TICKS = 2**32
"""Ticks of a sweep."""


@dataclass(frozen=True, slots=True, eq=False)
class Clock:
    """Asynchronous p-bits: each is updated at random times of its own.

    Attributes:
        rate: int32 (n_sites,), which row of counts is whose, by site.
        counts: uint64 (n_rates, n_counts): 2^32 times the probability of at most k updates in a sweep.
        mean: sum of all rates: updates of a chain in a sweep, on average.
        delay: ticks until neighbours see a flip.
        in_flight: flips that neighbours do not see yet where a run is resumed, see driver.Events; None at the start.
    """

    rate: NDArray[np.int32]
    counts: NDArray[np.uint64]
    mean: float
    delay: int
    in_flight: NDArray[np.int64] | None = None


def poisson_counts(rates: NDArray[np.float64]) -> NDArray[np.uint64]:
    """2^32 times P(at most k events) for k = 0, 1, ... under Poisson laws of these means, uint64 (n_rates, n_counts).

    Rounded to nearest; a row ends, and is filled up, with 2^32.
    """
    term = np.array([math.exp(-rate) for rate in rates.tolist()])
    total = np.zeros_like(term)
    columns: list[NDArray[np.uint64]] = []
    while not columns or (columns[-1] < TICKS).any():
        k = len(columns)
        term = term * rates / k if k else term
        total = total + term
        columns.append(np.minimum(np.rint(total * TICKS), TICKS).astype(np.uint64))
    return np.stack(columns, axis=1)


def make_clock(schedule: AsynchronousSchedule, n_sites: int) -> Clock:
    """The clock of a schedule; its rates are those of n_sites p-bits."""
    rates = np.ones(n_sites) if schedule.rates is None else np.array(schedule.rates)
    distinct, rate = np.unique(rates, return_inverse=True)
    return Clock(
        rate=rate.astype(np.int32),
        counts=poisson_counts(distinct),
        mean=math.fsum(rates.tolist()),
        delay=round(schedule.delay * TICKS),
    )
