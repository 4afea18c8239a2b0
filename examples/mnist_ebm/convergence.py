"""How fast chains forget where they started: energies from noise, autocorrelation, and its time with an error bar.

For any model whose states can be had after given numbers of sweeps: arrays in, plain data and pictures out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import matplotlib
import numpy as np
from glauber.diagnostics import mixing_of
from glauber.errors import InvalidModelError
from numpy.typing import NDArray

matplotlib.use("Agg")
import matplotlib.pyplot as plt

GROUPS = 8
"""Groups of chains, each of which gives an autocorrelation time of its own: their spread is the error bar."""
LOW, HIGH = 0.05, 0.95
"""The band of a trajectory: quantiles over chains."""
Report = Callable[[float, str], None]


class Advance(Protocol):
    """A model's chains, moved on by a device; `GridModel.advance` is one, with its number of chains filled in."""

    def __call__(self, states: NDArray[Any] | None, n_sweeps: int, /) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """States (n_chains, ...) after so many sweeps from given ones, or from random ones for None, and energies."""
        ...


@dataclass(frozen=True)
class AutocorrelationTime:
    """Integrated autocorrelation time of one observable.

    Attributes:
        sweeps: tau_int = n / ESS in sweeps, 1 for independent states a sweep apart; NaN where nothing varies.
        standard_error: by the spread over GROUPS groups of chains.
        mean: of the observable.
        mean_error: its standard error, with the autocorrelation in it.
        rhat: of the chains; well above 1.01 they have not seen all of one law, and `sweeps` is too short. None where
            nothing varies.
    """

    sweeps: float
    standard_error: float
    mean: float
    mean_error: float
    rhat: float | None


def autocorrelation_time(series: NDArray[Any], sweeps_per_sample: int = 1) -> AutocorrelationTime:
    """Tau_int of a series (n_chains, n_samples) in equilibrium; rank-normalised ESS of Vehtari et al. 2021.

    Raises:
        InvalidModelError: fewer than GROUPS chains.
    """
    if series.ndim != 2 or len(series) < GROUPS:
        raise InvalidModelError(f"an error bar needs {GROUPS} chains or more, shape (n_chains, n_samples)")
    series = np.asarray(series, dtype=np.float64)
    whole = mixing_of(series, sweeps_per_sample)
    if whole.tau_int is None or whole.mcse is None:
        return AutocorrelationTime(math.nan, math.nan, whole.mean, math.nan, whole.rhat)
    each = [mixing_of(part, sweeps_per_sample).tau_int for part in np.array_split(series, GROUPS)]
    found = np.array([math.nan if tau is None else tau for tau in each])
    spread = float(found.std(ddof=1)) / math.sqrt(GROUPS)
    return AutocorrelationTime(whole.tau_int, spread, whole.mean, whole.mcse, whole.rhat)


def autocorrelation(series: NDArray[Any], n_lags: int) -> NDArray[np.float64]:
    """Rho(t) for t = 0 .. n_lags - 1 samples, mean over the chains of a series (n_chains, n_samples).

    About the mean of all chains, which share one law, so that short chains do not hide long memory.
    """
    series = np.asarray(series, dtype=np.float64)
    n = series.shape[1]
    if not 1 <= n_lags <= n:
        raise InvalidModelError(f"n_lags must be 1 to {n}, the samples there are, not {n_lags}")
    centred = series - series.mean()
    spectrum = np.fft.rfft(centred, 2 * n, axis=1)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :n_lags].mean(axis=0) / (n - np.arange(n_lags))
    if covariance[0] == 0:
        raise InvalidModelError("the series is constant: nothing is correlated")
    return np.asarray(covariance / covariance[0])


@dataclass(frozen=True)
class Trajectory:
    """Energies from random states on.

    Attributes:
        sweeps: done at each point.
        mean: energy, mean over chains.
        low: quantile LOW over chains.
        high: quantile HIGH.
        settled: the first of `sweeps` from which on the mean is within three standard errors of its last value; None if
            that is the last.
    """

    sweeps: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]
    settled: int | None


def checkpoints(n_sweeps: int, n_points: int = 40) -> list[int]:
    """About so many numbers of sweeps, evenly spaced in their logarithm, from 1 to n_sweeps."""
    return sorted({round(value) for value in np.geomspace(1, n_sweeps, n_points)})


def states_from_noise(
    advance: Advance, sweeps: Sequence[int], report: Report | None = None
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """States (n_points, n_chains, ...) and energies (n_points, n_chains) after so many sweeps from random states.

    Args:
        advance: moves the chains.
        sweeps: numbers of sweeps, ascending, from 1; a job for each.
        report: told how far it is.

    Raises:
        InvalidModelError: sweeps that do not ascend from 1 or more.
    """
    if not sweeps or sweeps[0] < 1 or any(a >= b for a, b in itertools.pairwise(sweeps)):
        raise InvalidModelError(f"sweeps must ascend from 1 or more, not {list(sweeps)}")
    states, energies = [], []
    last: NDArray[Any] | None = None
    for before, at in itertools.pairwise([0, *sweeps]):
        last, found = advance(last, at - before)
        states.append(last)
        energies.append(found)
        if report is not None:
            report(at / sweeps[-1], f"{at} sweeps from noise")
    return np.stack(states), np.stack(energies)


def trajectory(sweeps: Sequence[int], energies: NDArray[np.float64]) -> Trajectory:
    """A trajectory from energies (n_points, n_chains)."""
    mean = energies.mean(axis=1)
    error = energies.std(axis=1, ddof=1) / math.sqrt(energies.shape[1])
    near = np.abs(mean - mean[-1]) <= 3 * np.hypot(error, error[-1])
    away = np.flatnonzero(~near)
    first = 0 if len(away) == 0 else int(away[-1]) + 1
    low, high = np.quantile(energies, (LOW, HIGH), axis=1)
    settled = int(sweeps[first]) if first < len(sweeps) - 1 else None
    return Trajectory([int(k) for k in sweeps], mean.tolist(), low.tolist(), high.tolist(), settled)


@dataclass(frozen=True)
class Memory:
    """How long one observable of chains in equilibrium is remembered.

    Attributes:
        lags: in sweeps.
        autocorrelation: at each lag, mean over chains.
        time: its integral, with an error bar.
    """

    lags: list[int]
    autocorrelation: list[float]
    time: AutocorrelationTime


def memory(series: NDArray[Any], sweeps_per_sample: int = 1, n_lags: int = 200) -> Memory:
    """Autocorrelation function and time of a series (n_chains, n_samples) in equilibrium."""
    n_lags = min(n_lags, series.shape[1] // 4)
    lags = [lag * sweeps_per_sample for lag in range(n_lags)]
    return Memory(lags, autocorrelation(series, n_lags).tolist(), autocorrelation_time(series, sweeps_per_sample))


@dataclass(frozen=True)
class Recognition:
    """When chains from noise become recognisable.

    Attributes:
        sweeps: done at each point.
        share: of chains whose confidence is at least `threshold` there.
        confidence: mean over chains.
        threshold: from which on a state counts as recognised.
        median: the first of `sweeps` from which on half of the chains are recognised at each point; None if never. They
            need not be the same chains: noise passes for a digit now and then.
    """

    sweeps: list[int]
    share: list[float]
    confidence: list[float]
    threshold: float
    median: int | None


def recognition(
    sweeps: Sequence[int],
    states: NDArray[Any],
    confidence: Callable[[NDArray[Any]], NDArray[np.floating[Any]]],
    threshold: float = 0.9,
) -> Recognition:
    """Steps to a recognisable image.

    Args:
        sweeps: done at each point.
        states: of the chains at each point, (n_points, n_chains, ...), as from states_from_noise.
        confidence: from states (n_chains, ...) to a recogniser's confidence in each, 0 to 1, (n_chains,).
        threshold: of a recognised state.
    """
    found = np.stack([np.asarray(confidence(part), dtype=np.float64) for part in states])
    recognised = found >= threshold
    share = recognised.mean(axis=1)
    below = np.flatnonzero(share < 0.5)
    first = 0 if len(below) == 0 else int(below[-1]) + 1
    median = int(sweeps[first]) if first < len(sweeps) else None
    return Recognition([int(k) for k in sweeps], share.tolist(), found.mean(axis=1).tolist(), threshold, median)


def draw_convergence(
    path: Path, trajectories: Mapping[str, Trajectory], memories: Mapping[str, Memory], targets: Mapping[str, float]
) -> None:
    """Energies from noise on the left, autocorrelations on the right.

    Args:
        path: of the picture.
        trajectories: by name.
        memories: by name.
        targets: mean energies of data, by the name of their trajectory, from which energies are drawn.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for number, (name, found) in enumerate(trajectories.items()):
        colour, data = f"C{number}", targets[name]
        left.plot(found.sweeps, np.array(found.mean) - data, color=colour, label=name)
        left.fill_between(
            found.sweeps, np.array(found.low) - data, np.array(found.high) - data, color=colour, alpha=0.2, linewidth=0
        )
    left.axhline(0, color="black", linestyle=":", label="data")
    left.set_xscale("log")
    left.set_xlabel("sweeps from random states")
    left.set_ylabel("energy less that of data")
    left.set_title(f"band: {LOW:.0%} to {HIGH:.0%} of chains", fontsize=9)
    left.legend(fontsize=8)
    for name, kept in memories.items():
        time = kept.time
        right.plot(kept.lags, kept.autocorrelation, label=f"{name}: {time.sweeps:.3g} ± {time.standard_error:.2g}")
    right.axhline(0, color="grey", linewidth=0.8)
    right.set_xlabel("lag [sweeps]")
    right.set_ylabel("autocorrelation")
    right.legend(fontsize=8, title="tau_int [sweeps]", title_fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
