"""What several seeds say together: for the RESULTS.md of every example."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
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
