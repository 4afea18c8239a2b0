"""How much of measured numbers to believe.

Numbers that scatter no more than their uncertainties are drawn towards their mean (empirical Bayes): a measured
crosstalk of one uncertainty is more likely noise than crosstalk, and a correction or a twin that believed it would be
worse than one that does not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from glauber.calibration.record import Measured

SIGNIFICANT = 4.0
"""Standard errors from which on a mean counts as different from the ideal one."""

Floats = NDArray[np.float64]


def believed(measured: Measured, ideal: float, rng: np.random.Generator | None = None) -> Floats | None:
    """Measured numbers drawn towards their mean; None if they are all as good as ideal.

    Args:
        measured: of many couplings.
        ideal: what they would be without flaws.
        rng: draws them within what is not known, instead of the best guess.
    """
    values, u = measured.array, np.maximum(measured.u, 1e-12)
    weight = 1 / u**2
    mean = float((weight * values).sum() / weight.sum())
    spread = max(0.0, float((weight * ((values - mean) ** 2 - u**2)).sum() / weight.sum()))
    noise = float((weight * u**4).sum() / weight.sum()) * 2 / len(values)  # of the spread's own estimate
    if spread < SIGNIFICANT * noise**0.5:
        spread = 0.0
    off = abs(mean - ideal) * float(weight.sum()) ** 0.5
    if spread == 0.0 and off < SIGNIFICANT:
        return None
    share = spread / (spread + u**2)
    guess = mean + share * (values - mean)
    if rng is not None:
        guess = guess + np.sqrt(share) * u * rng.normal(size=len(values))
    return np.asarray(guess)
