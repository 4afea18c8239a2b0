"""What several seeds or trials say together: for the RESULTS.md of every example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm as normal
from scipy.stats import t as student


def interval(values: Sequence[float], digits: int) -> str:
    """Mean and 95 % interval over seeds, by Student's t."""
    mean = float(np.mean(values))
    if not math.isfinite(mean):
        return f"{mean}"
    if len(values) < 2:
        return f"{mean:.{digits}f} (one seed)"
    half = float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


@dataclass(frozen=True)
class Proportion:
    """Share of trials that came out so, with Wilson's interval (1927) of 95 %.

    Attributes:
        share: hits / n.
        low: lower end of the interval.
        high: upper end.
        n: trials.
    """

    share: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{100 * self.share:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


def proportion(hits: int, n: int) -> Proportion:
    """Hits of n independent trials.

    Raises:
        ValueError: fewer than one trial, or hits that are not 0 to n.
    """
    if not 0 <= hits <= n or n < 1:
        raise ValueError(f"hits must be 0 to the number of trials, at least one, not {hits} of {n}")
    z = float(normal.ppf(0.975))
    centre = (hits + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * math.sqrt(hits * (n - hits) / n + z**2 / 4)
    return Proportion(hits / n, max(0.0, centre - half), min(1.0, centre + half), n)
