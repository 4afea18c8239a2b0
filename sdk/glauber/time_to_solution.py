"""How long a solver takes to reach a target, over many seeds, with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from glauber.errors import InvalidModelError

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class TimeToSolution:
    """Time to reach a target with a probability of 99 %, if hits come at a constant rate.

    With r hits in a total time T over all runs, those cut off included, the rate is r / T; 2 T rate follows chi-squared
    with 2 r degrees of freedom (2 r + 2 for the upper end of the rate, because runs end by time). A solver needs some
    time before it can hit at all, so the truth is rather below than above these figures where every run hits.

    Attributes:
        hits: runs that reached the target.
        runs: all.
        mean_seconds: T / r; infinite without a hit.
        seconds_99: mean_seconds ln 100.
        low, high: 95 % interval of seconds_99; high is infinite without a hit.
    """

    hits: int
    runs: int
    mean_seconds: float
    seconds_99: float
    low: float
    high: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; infinite figures as None."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


def time_to_solution(seconds: Sequence[float | None], limit: float | Sequence[float]) -> TimeToSolution:
    """The estimate from the runs' times to target, None where one did not reach it within its limit.

    Args:
        seconds: of each run, such as `Solution.seconds_to_target`.
        limit: seconds after which runs were cut off; one for all, or one each.

    Raises:
        InvalidModelError: no runs, or times that are not above 0.
    """
    from scipy.stats import chi2  # imported late: half a second

    limits = [float(limit)] * len(seconds) if isinstance(limit, int | float) else [float(one) for one in limit]
    used = [cut if took is None else float(took) for took, cut in zip(seconds, limits, strict=True)]
    if not used or not all(math.isfinite(one) and one > 0 for one in used):
        raise InvalidModelError("a time to solution needs at least one run, and times above 0")
    hits, total, tail = sum(took is not None for took in seconds), sum(used), (1 - CONFIDENCE) / 2
    mean = total / hits if hits else math.inf
    shortest = 2 * total / float(chi2.ppf(1 - tail, 2 * hits + 2))
    longest = 2 * total / float(chi2.ppf(tail, 2 * hits)) if hits else math.inf
    return TimeToSolution(hits, len(used), mean, *(math.log(100) * one for one in (mean, shortest, longest)))
