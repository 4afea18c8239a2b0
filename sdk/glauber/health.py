"""Are the p-bits still random? The continuous health tests of NIST SP 800-90B (section 4.4) on a job's raw samples.

A p-bit is tested where its law is known without its neighbours: it has no couplings in the job, or only to held spins.
Then its values in sampling order, one chain after another, are independent by law, each +1 with P = (1 + tanh(a)) / 2.

- Repetition count: a value repeats C = 1 + ceil(20 / H) times in a row, H being the min-entropy of a value in bits.
- Adaptive proportion: in a window of 1,024 values the first one comes more often than the (1 - 2^-20) quantile of the
  binomial law of probability 2^-H, plus one.
- Lags 1 to 8: the correlation is further from 0 than chance allows, alpha shared among lags and p-bits.

A healthy p-bit fails the first two with a probability of about 2^-20 for each run or window. Real p-bits have offsets,
so H is taken for an argument that is larger by a margin: these tests find what is broken, calibration finds what is
off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from glauber.errors import InvalidModelError
from glauber.model import IsingModel

ALPHA_BITS = 20
"""-log2 of the false-alarm probability, as SP 800-90B recommends (2^-20 to 2^-40)."""
WINDOW = 1024
"""Of the adaptive proportion test, for binary sources."""
LAGS = 8
LAG_ALPHA = 1e-6
MOST_SKEWED = 0.3
"""A lag of a p-bit is tested while the skewness of its correlation is at most this: rare values need more samples."""
MARGIN = 0.3
"""Of the argument: offsets and gains of a chip that works."""
LEAST_ENTROPY = 0.02
"""Bits: a value that is almost sure says nothing about health."""

Test = Literal["repetition count", "adaptive proportion", "lag correlation"]


@dataclass(frozen=True, slots=True)
class Alarm:
    """A p-bit that failed a test.

    Attributes:
        site: which.
        test: which one it failed first.
        value: longest run, largest count in a window, or correlation.
        limit: that it should stay below.
        lag: of a correlation, else 0.
    """

    site: int
    test: Test
    value: float
    limit: float
    lag: int = 0

    def __str__(self) -> str:
        if self.test == "lag correlation":
            return f"p-bit {self.site}: correlation {self.value:+.4f} at lag {self.lag}, beyond +-{self.limit:.4f}"
        what = "equal values in a row" if self.test == "repetition count" else f"of {WINDOW} values equal to the first"
        return f"p-bit {self.site}: {self.value:.0f} {what}, the limit is {self.limit:.0f}"


@dataclass(frozen=True, slots=True)
class EntropyHealth:
    """The health tests of one job.

    Attributes:
        n_tested: p-bits whose law was known and random enough.
        n_values: of each.
        alarms: by site; several tests may complain about one.
        largest_correlation: (site, lag, correlation) nearest to its limit; None if nothing was tested.
        skipped: why p-bits were not tested, with how many.
    """

    n_tested: int
    n_values: int
    alarms: tuple[Alarm, ...]
    largest_correlation: tuple[int, int, float] | None
    skipped: dict[str, int]

    @property
    def failed_sites(self) -> tuple[int, ...]:
        """p-bits with an alarm."""
        return tuple(sorted({alarm.site for alarm in self.alarms}))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        alarms = [{name: getattr(alarm, name) for name in alarm.__slots__} for alarm in self.alarms]
        largest = None if self.largest_correlation is None else list(self.largest_correlation)
        parts = {"n_tested": self.n_tested, "n_values": self.n_values, "skipped": dict(self.skipped)}
        return {**parts, "alarms": alarms, "largest_correlation": largest, "failed_sites": list(self.failed_sites)}

    def __str__(self) -> str:
        skipped = "".join(f"; {count} not tested: {why}" for why, count in self.skipped.items())
        verdict = "no alarm" if not self.alarms else f"{len(self.failed_sites)} failed"
        head = f"entropy: {self.n_tested} p-bits, {self.n_values} values each: {verdict}{skipped}"
        return "\n".join([head, *(f"! {alarm}" for alarm in self.alarms[:8])])


def repetition_limit(entropy_bits: float) -> int:
    """C of SP 800-90B, 4.4.1."""
    return 1 + math.ceil(ALPHA_BITS / entropy_bits)


def proportion_limit(entropy_bits: float) -> int:
    """C of SP 800-90B, 4.4.2, for a window of 1,024."""
    from scipy.stats import binom

    return 1 + int(binom.isf(2.0**-ALPHA_BITS, WINDOW, 2.0**-entropy_bits))


def entropy_health(
    model: IsingModel,
    spins: NDArray[np.int8],
    arguments: NDArray[np.float64],
    free: NDArray[np.bool_],
    *,
    margin: float = MARGIN,
) -> EntropyHealth:
    """Test all p-bits whose law is known.

    Args:
        model: for its couplings.
        spins: (n_chains, n_samples, n_sites).
        arguments: beta times the field of each p-bit, couplings to held neighbours included, (n_chains, n_sites).
        free: (n_chains, n_sites), False where a spin is held.
        margin: see the module.

    Raises:
        InvalidModelError: the margin is negative or no number.
    """
    if not (margin >= 0 and math.isfinite(margin)):
        raise InvalidModelError(f"margin must be a number from 0 on, not {margin!r}")
    chains, draws, n = spins.shape
    loose: NDArray[np.bool_] = np.asarray(free.any(axis=0), dtype=np.bool_)
    coupled = np.zeros(n, dtype=bool)
    for ends in (model.edges, model.edges[:, ::-1]):
        active = (model.couplings != 0) & loose[ends[:, 1]]
        coupled[ends[active, 0]] = True
    whole = free.all(axis=0)
    entropy = -np.log2(1 / (1 + np.exp(-2 * (np.abs(arguments).max(axis=0) + margin))))
    steady: NDArray[np.bool_] = np.asarray(np.ptp(arguments, axis=0)) == 0.0
    skipped: dict[str, int] = {}
    usable = whole.copy()
    for why, bad in (
        ("held", ~whole),
        ("coupled to spins that move", coupled),
        ("another field in each chain", ~steady),
        ("almost sure of its value", entropy < LEAST_ENTROPY),
    ):
        hit = usable & bad if why != "held" else bad
        if hit.any():
            skipped[why] = int(hit.sum())
        usable &= ~bad
    sites = np.flatnonzero(usable)
    total = chains * draws
    if not len(sites) or total < 2:
        return EntropyHealth(0, total, (), None, skipped)
    alarms: list[Alarm] = []
    values = spins[:, :, sites].reshape(total, len(sites)) > 0
    runs = _longest_runs(values)
    counts = _largest_counts(values)
    proportion: dict[float, int] = {}
    for k, site in enumerate(sites.tolist()):
        h = round(float(entropy[site]), 6)
        limit = repetition_limit(h)
        if runs[k] >= limit:
            alarms.append(Alarm(site, "repetition count", float(runs[k]), float(limit)))
        if counts is not None:
            if h not in proportion:
                proportion[h] = proportion_limit(h)
            if counts[k] >= proportion[h]:
                alarms.append(Alarm(site, "adaptive proportion", float(counts[k]), float(proportion[h])))
    lags, largest = _correlations(spins, sites, arguments[0, sites])
    alarms += lags
    return EntropyHealth(len(sites), total, tuple(sorted(alarms, key=lambda a: a.site)), largest, skipped)


def _longest_runs(values: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Length of the longest run of equal values in each column."""
    longest = np.ones(values.shape[1], dtype=np.int64)
    for column in range(values.shape[1]):
        change = np.flatnonzero(np.diff(values[:, column]))
        ends = np.concatenate([[-1], change, [len(values) - 1]])
        longest[column] = int(np.diff(ends).max())
    return longest


def _largest_counts(values: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """How often the first value of a window comes in it, the most over windows; None with less than one window."""
    n_windows = len(values) // WINDOW
    if n_windows == 0:
        return None
    windows = values[: n_windows * WINDOW].reshape(n_windows, WINDOW, -1)
    ups = windows.sum(axis=1, dtype=np.int64)
    return np.asarray(np.where(windows[:, 0], ups, WINDOW - ups).max(axis=0))


def _correlations(
    spins: NDArray[np.int8], sites: NDArray[np.int64], arguments: NDArray[np.float64]
) -> tuple[list[Alarm], tuple[int, int, float] | None]:
    """Alarms, and the correlation that is furthest from chance."""
    chains, draws, _ = spins.shape
    lags = [lag for lag in range(1, LAGS + 1) if chains * (draws - lag) >= 100]
    if not lags:
        return [], None
    x = spins[:, :, sites].astype(np.float32)
    x -= x.mean(axis=(0, 1))
    power = (x**2).mean(axis=(0, 1))
    moving = power > 1e-6
    power = np.where(moving, power, 1.0)
    from scipy.stats import norm

    far = float(norm.isf(LAG_ALPHA / (2 * len(lags) * len(sites))))
    # products of rare values are far from normal: their sum has this skewness times 1 / sqrt(pairs)
    up = 1 / (1 + np.exp(-2 * arguments))
    skewness = (1 - 2 * up) ** 2 / (up * (1 - up))
    alarms: list[Alarm] = []
    best, largest = -1.0, None
    for lag in lags:
        pairs = chains * (draws - lag)
        r = (x[:, lag:] * x[:, :-lag]).mean(axis=(0, 1), dtype=np.float64) / power
        r = np.where(moving, r, 0.0)
        skewed = skewness / math.sqrt(pairs)
        limit = (far + (far**2 - 1) * skewed / 6) / math.sqrt(pairs)  # Cornish and Fisher's first term
        r = np.where(skewed <= MOST_SKEWED, r, 0.0)
        k = int(np.abs(r / limit).argmax())
        if abs(r[k] / limit[k]) > best:
            best, largest = abs(float(r[k] / limit[k])), (int(sites[k]), lag, float(r[k]))
        alarms += [
            Alarm(int(sites[k]), "lag correlation", float(r[k]), float(limit[k]), lag)
            for k in np.flatnonzero(np.abs(r) > limit)
        ]
    return alarms, largest
