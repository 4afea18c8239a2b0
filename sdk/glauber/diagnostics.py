"""Is it mixed, and at which temperature does it sample? Arrays in, numbers with intervals out.

Rank-normalised R-hat, effective sample size and the Monte Carlo standard error of means (MCSE) are those of Vehtari et
al. 2021, by arviz-stats. The inverse temperature is the maximum of the pseudolikelihood (Besag 1975), its interval from
the spread of the score over samples, corrected for their autocorrelation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glauber.errors import InvalidModelError
from glauber.model import IsingModel, Model

MIN_DRAWS = 4
MAX_FIELD_VALUES = 20_000_000


@dataclass(frozen=True, slots=True)
class Mixing:
    """How one observable mixes over the chains.

    Attributes:
        rhat: rank-normalised split R-hat; None with fewer than 4 draws or a constant series.
        ess: bulk effective sample size over all chains; None likewise.
        tau_int: integrated autocorrelation time in sweeps, 1 for independent samples a sweep apart.
        mean: over all chains and samples.
        mcse: Monte Carlo standard error of that mean, its autocorrelation included; None as for the others.
    """

    rhat: float | None
    ess: float | None
    tau_int: float | None
    mean: float
    mcse: float | None


@dataclass(frozen=True, slots=True)
class BetaEstimate:
    """The inverse temperature that the samples speak of.

    Attributes:
        value: maximum of the pseudolikelihood.
        standard_error: corrected for autocorrelation.
        low: lower end of the interval.
        high: upper end.
        level: of the interval, such as 0.95.
    """

    value: float
    standard_error: float
    low: float
    high: float
    level: float

    def __str__(self) -> str:
        return f"{self.value:.5g}, {self.level:.0%} interval {self.low:.5g} to {self.high:.5g}"


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What the samples say about their own quality.

    Attributes:
        energy: mixing of the energy.
        magnetisation: mixing of the mean spin (Potts: of the share of state 0).
        beta: the inverse temperature they were drawn at, None where it cannot be estimated.
        beta_asked: what the schedule asked for, None for an anneal.
        n_chains: chains.
        n_samples: samples per chain.
    """

    energy: Mixing
    magnetisation: Mixing
    beta: BetaEstimate | None
    beta_asked: float | None
    n_chains: int
    n_samples: int

    @property
    def rhat(self) -> float | None:
        """The worse of the two."""
        values = [mixing.rhat for mixing in (self.energy, self.magnetisation) if mixing.rhat is not None]
        return max(values, default=None)

    @property
    def ess(self) -> float | None:
        """The smaller of the two."""
        values = [mixing.ess for mixing in (self.energy, self.magnetisation) if mixing.ess is not None]
        return min(values, default=None)

    @property
    def tau_int(self) -> float | None:
        """The longer of the two, in sweeps."""
        values = [mixing.tau_int for mixing in (self.energy, self.magnetisation) if mixing.tau_int is not None]
        return max(values, default=None)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what looks wrong; none is a good sign, not a proof."""
        found = []
        if self.rhat is None:
            found.append("too few or constant samples: nothing can be said about mixing")
        elif self.rhat > 1.01:
            found.append(f"R-hat is {self.rhat:.3f}, above 1.01: the chains disagree; warm up and run longer")
        if self.ess is not None and self.ess < 100 * self.n_chains:
            found.append(f"about {self.ess:.0f} effective samples, under 100 a chain; run longer or thin less")
        if (
            self.beta is not None
            and self.beta_asked is not None
            and not self.beta.low <= self.beta_asked <= self.beta.high
        ):
            found.append(f"the samples are at beta {self.beta}, beta {self.beta_asked:g} was asked for")
        return tuple(found)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        mixing = {
            name: {key: getattr(getattr(self, name), key) for key in Mixing.__slots__}
            for name in ("energy", "magnetisation")
        }
        beta = None if self.beta is None else {key: getattr(self.beta, key) for key in self.beta.__slots__}
        totals = {"rhat": self.rhat, "ess": self.ess, "tau_int": self.tau_int, "warnings": list(self.warnings)}
        return {**totals, **mixing, "beta": beta, "beta_asked": self.beta_asked}

    def __str__(self) -> str:
        def text(value: float | None, form: str) -> str:
            return "unknown" if value is None else format(value, form)

        lines = [
            f"{self.n_chains} chains of {self.n_samples} samples: R-hat {text(self.rhat, '.4f')},"
            f" ESS {text(self.ess, '.0f')}, tau_int {text(self.tau_int, '.3g')} sweeps",
            "; ".join(
                f"{name} {mixing.mean:.6g} +- {text(mixing.mcse, '.2g')}"
                for name, mixing in (("energy", self.energy), ("magnetisation", self.magnetisation))
            ),
            f"beta: {self.beta if self.beta is not None else 'not estimated'}",
        ]
        return "\n".join(lines + [f"! {warning}" for warning in self.warnings])


def mixing_of(series: NDArray[np.float64], sweeps_per_sample: int) -> Mixing:
    """Mixing of one observable, shape (n_chains, n_samples)."""
    chains, draws = series.shape
    mean = float(series.mean())
    if draws < MIN_DRAWS or np.ptp(series) == 0:
        return Mixing(None, None, None, mean, None)
    array_stats: Any = import_module("arviz_stats.base").array_stats  # imported late: it brings scipy

    # Constant chains at different values: R-hat is infinite and no sample is effective, where the formulas divide by 0
    if chains > 1 and (np.ptp(series, axis=1) == 0).all():
        return Mixing(math.inf, float(chains), math.inf, mean, float(series[:, 0].std(ddof=1)) / math.sqrt(chains))
    # one chain has only its own halves to disagree with
    halves = series if chains > 1 or draws < 2 * MIN_DRAWS else series[:, : draws // 2 * 2].reshape(2, -1)
    with np.errstate(all="ignore"):  # constant halves divide by zero; what is not finite is not reported
        rhat = float(array_stats.rhat(halves, chain_axis=0, draw_axis=1))
        ess = float(array_stats.ess(series, chain_axis=0, draw_axis=1, method="bulk"))
        mcse = float(array_stats.mcse(series, chain_axis=0, draw_axis=1, method="mean"))
    good = math.isfinite(ess) and ess > 0
    tau_int = max(1.0, chains * draws / ess) * sweeps_per_sample if good else None
    return Mixing(
        rhat=rhat if math.isfinite(rhat) else None,
        ess=ess if good else None,
        tau_int=tau_int,
        mean=mean,
        mcse=mcse if math.isfinite(mcse) else None,
    )


def mean_states(model: Model, states: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """The magnetisation of states (n_chains, n_samples, n_sites): mean spin, or the share of state 0 of p-dits."""
    ordered = states.mean(axis=2) if isinstance(model, IsingModel) else (states == 0).mean(axis=2)
    return np.asarray(ordered, dtype=np.float64)


def effective_samples(energies: NDArray[np.float64], means: NDArray[np.float64]) -> float | None:
    """The smaller ESS of the two series (n_chains, n_samples), as in `Diagnostics.ess`; None where neither varies."""
    found = [mixing_of(series, 1).ess for series in (energies, means)]
    return min((ess for ess in found if ess is not None), default=None)


def local_fields(model: Model, states: NDArray[np.integer[Any]], fields: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each site feels: h_i + sum_j J_ij s_j, shape (N, n_sites); Potts: for each of its states, (N, n_sites, q).

    Args:
        model: the model, for its graph and couplings.
        states: shape (N, n_sites).
        fields: in the model's shape, or one set for each row of `states`.
    """
    from scipy.sparse import csr_array

    n = model.n_sites
    a, b = model.edges[:, 0], model.edges[:, 1]
    if isinstance(model, IsingModel):
        both = np.concatenate([model.couplings, model.couplings])
        matrix = csr_array((both, (np.concatenate([a, b]), np.concatenate([b, a]))), shape=(n, n))
        return np.asarray(fields + (matrix @ states.T.astype(np.float64)).T)
    total = np.array(np.broadcast_to(fields, (len(states), n, model.n_states)))
    tables = model.edge_tables()
    for k in range(model.n_edges):
        total[:, a[k]] += tables[k].T[states[:, b[k]]]
        total[:, b[k]] += tables[k][states[:, a[k]]]
    return total


def beta_by_pseudolikelihood(
    model: Model,
    states: NDArray[np.integer[Any]],
    fields: NDArray[np.float64],
    free: NDArray[np.bool_],
    level: float = 0.95,
) -> BetaEstimate | None:
    """Beta that maximises sum log P(s_i | all others) over free sites and samples, with an interval.

    Args:
        model: the model in the user's units.
        states: shape (n_chains, n_samples, n_sites).
        fields: (1 or n_chains, ...) fields that were in force.
        free: (1 or n_chains, n_sites), False for clamped sites.
        level: of the interval.

    Returns:
        None where the samples say nothing about beta: no field anywhere, or a state so cold that it never left its
        minimum.
    """
    chains, draws, n = states.shape
    stride = max(1, math.ceil(chains * draws * model.fields.size / MAX_FIELD_VALUES))
    states = states[:, ::stride]
    draws = states.shape[1]
    flat = states.reshape(-1, n)
    wide = np.broadcast_to(fields, (chains, *model.fields.shape)).repeat(draws, axis=0)
    mask = np.broadcast_to(free, (chains, n)).repeat(draws, axis=0)
    field = local_fields(model, flat, wide)
    if isinstance(model, IsingModel):
        log_odds = np.where(mask, 2.0 * flat * field, 0.0)  # log P(s) = -log(1 + exp(-beta log_odds))
    else:
        log_odds = field - np.take_along_axis(field, flat[:, :, None].astype(np.int64), axis=2)
        if model.allowed is not None:
            log_odds = np.where(model.allowed, log_odds, -np.inf)
        log_odds = np.where(mask[:, :, None], log_odds, 0.0)

    def score_and_slope(beta: float) -> tuple[NDArray[np.float64], float]:
        """d/d beta of each sample's log pseudolikelihood, and minus the second derivative summed over samples."""
        if isinstance(model, IsingModel):
            other = 1.0 / (1.0 + np.exp(np.clip(beta * log_odds, -700, 700)))
            return (log_odds * other).sum(axis=1), float((log_odds**2 * other * (1 - other)).sum())
        finite = np.where(np.isfinite(log_odds), log_odds, 0.0)
        weight = np.where(np.isfinite(log_odds), np.exp(np.clip(beta * finite, -700, 700)), 0.0)
        weight /= weight.sum(axis=2, keepdims=True)
        mean = (weight * finite).sum(axis=2)
        variance = (weight * finite**2).sum(axis=2) - mean**2
        return -mean.sum(axis=1), float(variance.sum())

    spread = float(np.abs(np.where(np.isfinite(log_odds), log_odds, 0.0)).max(initial=0.0))
    if spread == 0.0 or draws < 2:
        return None
    beta = 0.0
    for _ in range(200):
        score, slope = score_and_slope(beta)
        if slope <= 1e-300:
            return None
        step = float(score.sum()) / slope
        step = max(-2.0 / spread - abs(beta), min(2.0 / spread + abs(beta), step))  # far from the maximum, no leaps
        beta += step
        if abs(step) <= 1e-10 * (abs(beta) + 1.0 / spread):
            break
    else:
        return None
    score, slope = score_and_slope(beta)
    series = score.reshape(chains, draws)
    mixing = mixing_of(series, 1)
    effective = min(mixing.ess, score.size) if mixing.ess is not None and math.isfinite(mixing.ess) else score.size
    standard_error = math.sqrt(float(score.var()) * score.size**2 / effective) / slope
    if not math.isfinite(standard_error) or standard_error == 0.0 or beta * spread > 600:
        return None
    z = NormalDist().inv_cdf(0.5 + level / 2)
    return BetaEstimate(beta, standard_error, beta - z * standard_error, beta + z * standard_error, level)


def diagnose(
    model: Model,
    states: NDArray[np.integer[Any]],
    energies: NDArray[np.float64],
    *,
    fields: NDArray[np.float64],
    free: NDArray[np.bool_],
    sweeps_per_sample: int,
    beta_asked: float | None,
    level: float = 0.95,
) -> Diagnostics:
    """All diagnostics of states (n_chains, n_samples, n_sites) with their energies (n_chains, n_samples)."""
    if not 0.0 < level < 1.0:
        raise InvalidModelError(f"level must lie between 0 and 1, not {level!r}")
    return Diagnostics(
        energy=mixing_of(energies, sweeps_per_sample),
        magnetisation=mixing_of(mean_states(model, states), sweeps_per_sample),
        beta=None if beta_asked is None else beta_by_pseudolikelihood(model, states, fields, free, level),
        beta_asked=beta_asked,
        n_chains=states.shape[0],
        n_samples=states.shape[1],
    )
