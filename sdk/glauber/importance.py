"""Samples of one law used for another: weights, what is left of the samples, and how far to trust it.

Draws from exp(-f) stand for exp(-g) with weights w = exp(f - g), known up to a constant. Means are self-normalised,
sum w x / sum w (a ratio: its bias is of order 1 / ESS). The effective sample size of the weights is Kish's, (sum w)^2 /
sum w^2. The Pareto k-hat of the largest weights (A. Vehtari, D. Simpson, A. Gelman, Y. Yao, J. Gabry, J. Mach. Learn.
Res. 25(72), 2024), by arviz-stats, says whether so few of them carry the sum that the standard error cannot be trusted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glauber.errors import InvalidModelError

MIN_DRAWS = 25  # psislw fits a tail of 20 % of the draws, and at least 5


class Weighted(NamedTuple):
    """An estimate with its standard error."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class Importance:
    """Weights of samples (n_chains, n_samples) for another law.

    Attributes:
        log_weights: f - g of each sample, up to a constant where the laws are known up to one.

    Raises:
        InvalidModelError: fewer than 25 samples in all or 4 a chain, a weight that is NaN or infinite, or all are zero.
    """

    log_weights: NDArray[np.float64]

    def __post_init__(self) -> None:
        log_weights = np.atleast_2d(np.asarray(self.log_weights, dtype=np.float64))
        object.__setattr__(self, "log_weights", log_weights)
        if log_weights.ndim != 2 or log_weights.size < MIN_DRAWS or log_weights.shape[1] < 4:
            raise InvalidModelError(
                f"weights need {MIN_DRAWS} samples or more in all and 4 a chain, shape (n_chains, n_samples), not"
                f" {log_weights.shape}"
            )
        if np.isnan(log_weights).any() or (log_weights == np.inf).any() or not np.isfinite(log_weights).any():
            raise InvalidModelError("log weights must be below infinity, not NaN, and not all minus infinity")

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """Of each sample; they sum to 1."""
        weights = np.exp(self.log_weights - self.log_weights.max())
        return np.asarray(weights / weights.sum())

    @property
    def ess(self) -> float:
        """Kish's effective sample size of the weights, as if the samples were independent; at most their number."""
        return 1.0 / float((self.weights**2).sum())

    @cached_property
    def k_hat(self) -> float:
        """Shape of the generalised Pareto law of the largest weights; minus infinity where all weights are equal.

        Weights of a discrete law come in levels, to which no Pareto law can be fitted: those of a level are spread
        evenly, halfway to the next levels.
        """
        array_stats: Any = import_module("arviz_stats.base").array_stats  # imported late: it brings scipy
        lowest = np.nextafter(-700.0, 0.0)  # exp of it is still above zero, and psislw takes no minus infinity
        shifted = np.maximum(self.log_weights - self.log_weights.max(), lowest)
        try:
            with np.errstate(all="ignore"):
                return float(array_stats.psislw(-_spread(shifted.ravel()))[1])
        except ValueError:  # "All tail values are the same"
            return -math.inf

    @property
    def reliable(self) -> bool:
        """Whether k-hat is below min(1 - 1 / log10(n), 0.7), Vehtari et al.'s bound for n samples."""
        return self.k_hat < min(1.0 - 1.0 / math.log10(self.log_weights.size), 0.7)

    def mean(self, values: NDArray[np.float64]) -> Weighted:
        """The mean of an observable under the other law.

        Args:
            values: of each sample, in the shape of the weights.

        Returns:
            sum w x; its standard error by the delta method, from the MCSE of n w (x - mean), so that autocorrelation is
            included.

        Raises:
            InvalidModelError: another shape, or values that are not finite.
        """
        values = np.atleast_2d(np.asarray(values, dtype=np.float64))
        if values.shape != self.weights.shape:
            raise InvalidModelError(
                f"values have shape {values.shape}, the weights {self.weights.shape}; give one each"
            )
        if not np.isfinite(values).all():
            raise InvalidModelError("the values hold NaN or infinity; a mean is of finite numbers")
        mean = float((self.weights * values).sum())
        return Weighted(mean, _mcse(self.weights.size * self.weights * (values - mean)))

    @property
    def log_ratio(self) -> Weighted:
        """Log of the mean weight: ln(Z_g / Z_f), the difference of log partition functions, where log w is f - g."""
        highest = float(self.log_weights.max())
        ratios = np.exp(self.log_weights - highest)
        mean = float(ratios.mean())
        return Weighted(highest + math.log(mean), _mcse(ratios) / mean)

    def __str__(self) -> str:
        verdict = "reliable" if self.reliable else "NOT reliable: the two laws overlap too little; go in smaller steps"
        return f"{self.ess:.0f} effective of {self.weights.size} samples, k-hat {self.k_hat:.2f}: {verdict}"


def _spread(log_weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log weights (n,), equal ones spread evenly over the interval that is nearest to them; others as they are."""
    # equal energies differ in the last bits where they were summed in another order
    levels, level, counts = np.unique(np.round(log_weights, 9), return_inverse=True, return_counts=True)
    if len(levels) == 1:
        return np.zeros_like(log_weights)
    half = np.diff(levels) / 2
    low, high = levels - np.append(half[:1], half), levels + np.append(half, half[-1:])
    above = len(level) - np.cumsum(counts)  # draws above each level
    rank = np.empty(len(level))  # from the top, in halves
    rank[np.argsort(-level, kind="stable")] = np.arange(len(level)) + 0.5
    first, last = (above + counts)[level], np.maximum(above, 1)[level]
    share = np.where(
        above[level] > 0,
        np.log(first / np.maximum(rank, last)) / np.log(np.maximum(first / last, 1 + 1e-9)),
        1 - rank / first,
    )
    spread = low[level] + (high - low)[level] * share
    return np.where(counts[level] > 1, spread, log_weights)


def _mcse(series: NDArray[np.float64]) -> float:
    if np.ptp(series) <= 1e-13 * float(np.abs(series).max()):
        return 0.0
    array_stats: Any = import_module("arviz_stats.base").array_stats
    return float(array_stats.mcse(series, chain_axis=0, draw_axis=1, method="mean"))
