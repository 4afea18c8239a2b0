"""Have the chains arrived, and how far may their means be trusted? Tests of one observable, series in, verdicts out.

A series has shape (n_chains, n_samples). Two things are tested: each chain by itself, so that one astray is seen (the
smallest p of independent chains is 1 - (1 - p)^n_chains, Sidak), and the mean over chains, which shows best what they
have in common, such as a start. Twice the smaller of the two p-values is the result (Bonferroni). All tests need the
spectral density at frequency 0, S = sum over lags of the autocovariance. It is estimated on the later half of each
chain, which has had longest to arrive, by an autoregression (Yule-Walker, order by Akaike's criterion).

- Geweke's test: J. Geweke, in Bayesian Statistics 4 (Oxford, 1992), pages 169 to 193.
- Heidelberger and Welch's test: P. Heidelberger, P. D. Welch, Operations Research 31, 1109 (1983).
- How much to drop: MSER-5, K. P. White, M. J. Cobb, S. C. Spratt, Proc. 2000 Winter Simulation Conference, 755.

Their null laws hold for long chains. On AR(1) chains with fewer than about 50 effective samples in the later half they
raise more false alarms than alpha; `n_effective` says how many there were. A drift that goes on to the end enlarges S
and hides in it: then `n_effective` is small, and MSER-5 finds no minimum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from glauber.errors import InvalidModelError

MIN_SAMPLES = 100
ENOUGH_EFFECTIVE = 50.0
EARLY, LATE = 0.1, 0.5  # Geweke's shares of a chain
STARTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # shares that Heidelberger and Welch drop, one after another
BATCH = 5  # MSER-5
SETTLED = 0.4


@dataclass(frozen=True, slots=True)
class Geweke:
    """Do the first tenth and the later half of each chain have the same mean?

    Attributes:
        z: difference of the two means in its standard errors, (n_chains,); standard normal for long stationary chains.
        common_z: the same of the mean over chains.
        p_value: two-sided, of all of these.
        alpha: false alarms among stationary chains that are long enough.
        n_effective: effective samples in the later half of the chain that has fewest.
    """

    z: NDArray[np.float64]
    common_z: float
    p_value: float
    alpha: float
    n_effective: float

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against it, at alpha."""
        return self.p_value >= self.alpha


@dataclass(frozen=True, slots=True)
class HeidelbergerWelch:
    """Is what is left of each chain stationary, once its beginning is dropped? And is its mean known well enough?

    Attributes:
        dropped: samples dropped at the beginning of each chain, a multiple of a tenth, at most a half: the first choice
            that passes.
        p_value: of the Cramer-von Mises statistics of what is left; after dropping half, if none passes.
        alpha: false alarms at each choice among stationary chains that are long enough.
        mean: of what is left, over all chains.
        half_width: of the 1 - alpha interval of that mean.
        n_effective: effective samples in the later half of the chain that has fewest.
    """

    dropped: int
    p_value: float
    alpha: float
    mean: float
    half_width: float
    n_effective: float

    @property
    def passed(self) -> bool:
        """Whether some choice passed."""
        return self.p_value >= self.alpha

    @property
    def relative_half_width(self) -> float:
        """Half-width over |mean|; Heidelberger and Welch call 0.1 accurate. Says nothing where the mean is about 0."""
        return math.inf if self.mean == 0.0 else self.half_width / abs(self.mean)


@dataclass(frozen=True, slots=True)
class Thermalisation:
    """How much of the beginning to drop.

    Attributes:
        samples: the multiple of 5 to drop from each chain: the one that minimises the marginal standard error, the
            variance of what is left over its length.
        reached: False where that minimum is beyond 40 % of the chain, near its bound of 50 %: then nothing has settled,
            and the chain is to be run longer.
    """

    samples: int
    reached: bool


@dataclass(frozen=True, slots=True)
class Convergence:
    """All of it for one result: two observables, two tests each, at a quarter of alpha.

    Attributes:
        geweke: by observable, "energy" and "magnetisation".
        heidelberger_welch: by observable.
        thermalisation: by observable.
        alpha: of a warning by any of the tests, among stationary chains that are long enough.
        sweeps_per_sample: of the schedule.
    """

    geweke: Mapping[str, Geweke]
    heidelberger_welch: Mapping[str, HeidelbergerWelch]
    thermalisation: Mapping[str, Thermalisation]
    alpha: float
    sweeps_per_sample: int

    @property
    def thermalisation_sweeps(self) -> int:
        """Sweeps to add to n_warmup next time: by MSER-5, the longer of the two observables'."""
        return self.sweeps_per_sample * max(found.samples for found in self.thermalisation.values())

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what speaks against convergence; none is a good sign, not a proof."""
        found = []
        for name in self.geweke:
            early, stationary = self.geweke[name], self.heidelberger_welch[name]
            if not early.passed:
                found.append(f"{name}: the first tenth differs from the later half (Geweke, p = {early.p_value:.2g})")
            if not stationary.passed:
                found.append(f"{name}: still moving after dropping half (Heidelberger-Welch); run longer")
            elif stationary.dropped:
                sweeps = stationary.dropped * self.sweeps_per_sample
                found.append(f"{name}: stationary only without the first {sweeps} sweeps (Heidelberger-Welch)")
            if not self.thermalisation[name].reached:
                found.append(f"{name}: the error is least with near half of each chain dropped (MSER-5); run longer")
            if early.n_effective < ENOUGH_EFFECTIVE:
                found.append(
                    f"{name}: {early.n_effective:.0f} effective samples in the later half of a chain, under"
                    f" {ENOUGH_EFFECTIVE:.0f}: the tests raise more false alarms than alpha"
                )
        return tuple(found)

    def __str__(self) -> str:
        lines = []
        for name, test in self.geweke.items():
            other, dropped = self.heidelberger_welch[name], self.thermalisation[name].samples
            lines.append(
                f"{name}: Geweke p {test.p_value:.2g}, Heidelberger-Welch p {other.p_value:.2g} after dropping"
                f" {other.dropped} samples, MSER-5 drops {dropped}; mean {other.mean:.5g} +- {other.half_width:.2g}"
            )
        return "\n".join(lines + [f"! {warning}" for warning in self.warnings])


def convergence_of(observables: Mapping[str, NDArray[np.float64]], sweeps_per_sample: int, alpha: float) -> Convergence:
    """All tests of each series (n_chains, n_samples); alpha is shared by two tests an observable.

    Raises:
        InvalidModelError: as for geweke.
    """
    _check_alpha(alpha)
    each = alpha / (2 * len(observables))
    return Convergence(
        {name: geweke(series, alpha=each) for name, series in observables.items()},
        {name: heidelberger_welch(series, alpha=each) for name, series in observables.items()},
        {name: thermalisation(series) for name, series in observables.items()},
        alpha,
        sweeps_per_sample,
    )


def geweke(series: NDArray[np.float64], *, alpha: float = 0.01) -> Geweke:
    """Geweke's test, z = (first - last) / sqrt(S (1 / n_first + 1 / n_last)), with S from the later half alone.

    Geweke estimates S in each part by itself. Here the early part, too short for it, is judged by the later one's,
    which is the same if the chain is stationary; z then has lighter tails, and a drift cannot hide in its own spread.

    Raises:
        InvalidModelError: fewer than 100 samples a chain, numbers that are not finite, or alpha outside (0, 1).
    """
    series = _checked(series, alpha)
    n = series.shape[1]
    first, last = series[:, : int(EARLY * n)], series[:, n - int(LATE * n) :]
    density = np.array([spectral_density_at_zero(chain) for chain in last])
    difference = first.mean(axis=1) - last.mean(axis=1)
    error = np.sqrt(density * (1 / first.shape[1] + 1 / last.shape[1]))
    z = _ratio(difference, error)
    common = float(_ratio(difference.sum(), np.sqrt((error**2).sum())))
    p_value = _combined([math.erfc(abs(each) / math.sqrt(2.0)) for each in (common, *z.tolist())])
    return Geweke(z, common, p_value, alpha, _effective(last, density))


def heidelberger_welch(series: NDArray[np.float64], *, alpha: float = 0.01) -> HeidelbergerWelch:
    """Heidelberger and Welch's test: the partial sums of a stationary chain make a Brownian bridge.

    B(t) = (sum of the first t n - t sum of all) / sqrt(n S); the integral of B^2 follows the law of Cramer and von
    Mises. Where it is too large for that, a tenth of the chain is dropped and the rest is tested, up to a half.

    Raises:
        InvalidModelError: as for geweke.
    """
    series = _checked(series, alpha)
    chains, n = series.shape
    late = series[:, n - int(LATE * n) :]
    density = np.array([spectral_density_at_zero(chain) for chain in late])
    dropped, p_value = 0, 0.0
    for share in STARTS:
        dropped = int(share * n)
        left = series[:, dropped:]
        bridge = np.cumsum(left - left.mean(axis=1, keepdims=True), axis=1)
        bridges, densities = np.vstack([bridge.sum(axis=0), bridge]), np.append(density.sum(), density)
        statistic = _ratio((bridges**2).mean(axis=1), left.shape[1] * densities)
        p_value = _combined([1.0 - cramer_von_mises(float(x)) for x in statistic])
        if p_value >= alpha:
            break
    left = series[:, dropped:]
    error = math.sqrt(float(density.sum()) / left.shape[1]) / chains
    z = NormalDist().inv_cdf(1.0 - alpha / 2)
    return HeidelbergerWelch(dropped, p_value, alpha, float(left.mean()), z * error, _effective(late, density))


def thermalisation(series: NDArray[np.float64]) -> Thermalisation:
    """MSER-5 on the mean over chains: they start and thermalise alike, and their mean shows it with less noise.

    Raises:
        InvalidModelError: as for geweke.
    """
    series = _checked(series, 0.5)
    mean = series.mean(axis=0)
    batches = mean[: len(mean) // BATCH * BATCH].reshape(-1, BATCH).mean(axis=1)
    m = len(batches)
    last = m // 2
    left = m - np.arange(last + 1)
    # sums over batches d .. m - 1 for every d, of values about their mean so that the squares do not cancel
    centred = batches - batches.mean()
    sums = np.cumsum(centred[::-1])[::-1][: last + 1]
    squares = np.cumsum(centred[::-1] ** 2)[::-1][: last + 1]
    marginal = np.maximum(squares - sums**2 / left, 0.0) / left.astype(np.float64) ** 2
    best = int(marginal.argmin())
    return Thermalisation(BATCH * best, best <= SETTLED * m)


def spectral_density_at_zero(chain: NDArray[np.float64]) -> float:
    """S = sum over all lags of the autocovariance of one chain, (n,), so that Var(mean) is about S / n.

    Autoregressions of order 0 to 10 log10(n) by the Yule-Walker equations (Levinson and Durbin), the one of least AIC:
    S = variance of its innovations / (1 - sum of its coefficients)^2.
    """
    n = len(chain)
    centred = chain - chain.mean()
    scale = float(np.abs(centred).max(initial=0.0))
    if scale <= 1e-13 * float(np.abs(chain).max(initial=0.0)):
        return 0.0
    centred = centred / scale
    orders = min(n - 1, int(10 * math.log10(n)))
    covariance = np.array([centred[: n - lag] @ centred[lag:] for lag in range(orders + 1)]) / n
    innovation = float(covariance[0])
    coefficients = np.zeros(0)
    best, density = n * math.log(innovation), innovation
    for order in range(1, orders + 1):
        reflection = (covariance[order] - coefficients @ covariance[order - 1 : 0 : -1]) / innovation
        coefficients = np.append(coefficients - reflection * coefficients[::-1], reflection)
        innovation *= 1.0 - float(reflection) ** 2
        if innovation <= 0.0:
            break
        criterion = n * math.log(innovation) + 2 * order
        if criterion < best:
            best, density = criterion, innovation * n / (n - order - 1) / (1.0 - float(coefficients.sum())) ** 2
    return density * scale**2


def cramer_von_mises(x: float) -> float:
    """P(integral of a squared Brownian bridge <= x), by T. W. Anderson, D. A. Darling, Ann. Math. Stat. 23, 193 (1952).

    Sum over k of Gamma(k + 1/2) / (Gamma(1/2) k!) sqrt(4 k + 1) exp(-y) K_1/4(y) / (pi sqrt(x)), with
    y = (4 k + 1)^2 / (16 x).
    """
    from scipy.special import gammaln, kve

    if x <= 0.0:
        return 0.0
    if x > 10.0:  # beyond 1e-21 of the law
        return 1.0
    k = np.arange(40)
    y = (4 * k + 1) ** 2 / (16 * x)
    # kve is K exp(y); terms beyond the tenth are below 1e-16 for any x that is allowed here
    terms = np.exp(gammaln(k + 0.5) - gammaln(0.5) - gammaln(k + 1) - 2 * y) * np.sqrt(4 * k + 1) * kve(0.25, y)
    return min(1.0, float(terms.sum()) / (math.pi * math.sqrt(x)))


def _checked(series: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    try:
        series = np.atleast_2d(np.asarray(series, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise InvalidModelError(f"a series is an array of numbers (n_chains, n_samples): {error}") from error
    if series.ndim != 2 or len(series) == 0 or series.shape[1] < MIN_SAMPLES:
        raise InvalidModelError(
            f"convergence is judged on {MIN_SAMPLES} or more samples of each chain, shape (n_chains, n_samples), not"
            f" {series.shape}; keep more samples"
        )
    if not np.isfinite(series).all():
        raise InvalidModelError("the series holds NaN or infinity; convergence is judged on finite numbers")
    _check_alpha(alpha)
    return series


def _check_alpha(alpha: float) -> None:
    if not (isinstance(alpha, int | float) and 0.0 < alpha < 1.0):
        raise InvalidModelError(f"alpha must lie between 0 and 1, not {alpha!r}; 0.01 is usual")


def _ratio(value: NDArray[np.float64] | np.float64, unit: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    """Value / unit; of a chain that stands still 0 if it always did, else infinite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(value == 0.0, 0.0, value / unit)


def _combined(p_values: list[float]) -> float:
    """Of what is common to the chains, which comes first, and of each of them."""
    common, smallest = p_values[0], min(p_values[1:])
    if len(p_values) == 2:
        return smallest  # one chain has itself in common
    each = -math.expm1((len(p_values) - 1) * math.log1p(-smallest)) if smallest < 1.0 else 1.0
    return min(1.0, 2.0 * min(common, each))


def _effective(late: NDArray[np.float64], density: NDArray[np.float64]) -> float:
    variance = late.var(axis=1)
    moving = density > 0
    return float((late.shape[1] * variance[moving] / density[moving]).min(initial=math.inf))
