"""How far to both sides of a figure its true value lies, with a stated probability, from the errors that make it up.

Twice the standard uncertainty is right for a normal error only: an error that is rectangular within +-a has u = a /
sqrt(3), and 95 % of it lie within 0.95 a = 1.65 u. So the errors' distributions are convolved, which is what the
propagation of distributions of JCGM 101:2008 gives for a sum, without its random numbers. Errors known from few
observations are t-distributed, and each is convolved as such. The effective degrees of freedom of Welch and
Satterthwaite (GUM, JCGM 100:2008, G.4.1), which approximate them by one t-distribution, are given for the record only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from glauber.errors import InvalidModelError

BINS = 3**8
"""Of the convolution; odd, so that one bin has 0 in its middle, and no large prime, so that transforms are quick."""
NORMAL_REACH, T_REACH = 9.0, 60.0
"""Scales of a normal and of a t-distribution that the bins reach to."""


@dataclass(frozen=True, slots=True)
class ErrorTerm:
    """One independent error, symmetrical about 0.

    Attributes:
        standard_uncertainty: its standard deviation.
        distribution: of the error.
        degrees_of_freedom: of a t-distributed one, above 2; None: infinitely many.
    """

    standard_uncertainty: float
    distribution: Literal["rectangular", "normal", "t"]
    degrees_of_freedom: float | None = None


def _scale(term: ErrorTerm) -> tuple[float, float | None]:
    """Scale and degrees of freedom of an error that is not rectangular; None: it is normal.

    A t-distributed error of n degrees of freedom has the standard deviation s sqrt(n / (n - 2)), s its scale.
    """
    freedom = term.degrees_of_freedom if term.distribution == "t" else None
    if freedom is None:
        return term.standard_uncertainty, None
    return term.standard_uncertainty * math.sqrt((freedom - 2) / freedom), freedom


def effective_degrees_of_freedom(terms: Iterable[ErrorTerm]) -> float:
    """By Welch and Satterthwaite over all errors, (sum of s^2)^2 / sum of s^4 / n; infinite where none has an n."""
    scales = [_scale(term) for term in terms]
    fourths = sum(scale**4 / freedom for scale, freedom in scales if freedom is not None)
    return float(sum(scale**2 for scale, _ in scales) ** 2 / fourths) if fourths else math.inf


def half_width(terms: Iterable[ErrorTerm], level: float) -> float:
    """The least U with P(|sum of the errors| <= U) >= level.

    Raises:
        InvalidModelError: level is not between 0 and 1.
    """
    from scipy.special import ndtr, stdtr  # imported late: it takes a tenth of a second

    if not 0 < level < 1:
        raise InvalidModelError(f"level must be between 0 and 1, such as 0.95, not {level!r}")
    known = [term for term in terms if term.standard_uncertainty > 0]
    limits = [math.sqrt(3) * term.standard_uncertainty for term in known if term.distribution == "rectangular"]
    others = [_scale(term) for term in known if term.distribution != "rectangular"]
    normal = math.sqrt(sum(scale**2 for scale, freedom in others if freedom is None))
    student = [(scale, freedom) for scale, freedom in others if freedom is not None]
    reach = sum(limits) + NORMAL_REACH * normal + T_REACH * sum(scale for scale, _ in student)
    if reach == 0:
        return 0.0
    width = 2 * reach / BINS
    edges = (np.arange(BINS + 1) - BINS / 2) * width
    below = [np.clip((edges / limit + 1) / 2, 0, 1) for limit in limits]
    below += [stdtr(freedom, edges / scale) for scale, freedom in student]
    if normal:
        below.append(ndtr(edges / normal))
    spectrum = np.ones(BINS // 2 + 1, dtype=complex)
    for each in below:
        spectrum *= np.fft.rfft(np.fft.ifftshift(np.diff(each)))
    half = np.fft.irfft(spectrum, BINS)[: BINS // 2 + 1]  # bin 0 is the middle one
    inside = np.concatenate([[0.0], half[0] + 2 * np.concatenate([[0.0], np.cumsum(half[1:])])])
    distance = np.concatenate([[0.0], (np.arange(len(half)) + 0.5) * width])
    return float(np.interp(level * inside[-1], np.maximum.accumulate(inside), distance))
