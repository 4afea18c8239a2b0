"""Does a twin do what its device does? A held-out test: on random models that no protocol has seen.

Both draw samples of each model, in many short independent chains. The differences d between the means of all p-bits and
of all products over couplings are compared by T, the sum over models of d S^-1 d, S the full covariance of the samples
from the scatter between chains, its inverse without the bias that inverses of estimates have (Hotelling). Were the
twin's parameters exact, T would have the mean n, the number of moments. They are not, and their errors are the same in
all models. Twins drawn within the calibration's uncertainties show what that adds: Q, with mean q and variance v over
the draws. So T has mean n + q and variance 2 n + 4 q + v, and is compared with the multiple of a chi-square that has
the same (Satterthwaite 1946). The draws number far fewer than the parameters, and mean and variance of a sum are what
so few can tell.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from glauber.calibration.bench import Submits
from glauber.errors import CalibrationError
from glauber.model import IsingModel
from glauber.schedule import SamplingSchedule
from glauber.topology import TopologyBase

ALPHA = 1e-4
N_MODELS = 20
N_CHAINS = 2048
N_DRAWS = 16
"""Twins within the uncertainties: their scatter is what the twin does not know."""
WARMUP = 30
LARGEST_ARGUMENT = 0.8

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TwinCheck:
    """Outcome of the held-out test.

    Attributes:
        chi_square: over all moments of all models.
        degrees: of freedom, all moments.
        expected: of it, were the twin right: more than the degrees, by what the twin does not know.
        p_value: probability of this or more, were the twin right.
        alpha: below which it is not.
        model_p_values: of each model.
        worst: the moment that is off by most: (model, what, device, twin, standard errors).
    """

    chi_square: float
    degrees: int
    expected: float
    p_value: float
    alpha: float
    model_p_values: tuple[float, ...]
    worst: tuple[int, str, float, float, float]

    @property
    def passed(self) -> bool:
        """Whether the twin could be the device."""
        return self.p_value >= self.alpha

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        names = ("chi_square", "degrees", "expected", "p_value", "alpha", "passed")
        model, what, device, twin, z = self.worst
        worst = {"model": model, "moment": what, "device": device, "twin": twin, "standard_errors": z}
        return {**{name: getattr(self, name) for name in names}, "models": list(self.model_p_values), "worst": worst}

    def __str__(self) -> str:
        model, what, device, twin, z = self.worst
        verdict = "the twin does what the device does" if self.passed else "this is not the device's twin"
        return (
            f"{verdict}: chi-square {self.chi_square:.0f}, {self.expected:.0f} expected for {self.degrees} degrees of"
            f" freedom over {len(self.model_p_values)} models, p = {self.p_value:.3g} (alpha {self.alpha:g}); most off:"
            f" {what} of model {model}, {device:.4f} on the device, {twin:.4f} on the twin, {z:.1f} standard errors"
        )


def random_model(
    topology: TopologyBase, usable: NDArray[np.bool_], span: float, rng: np.random.Generator
) -> IsingModel:
    """A random half of a device's couplings between usable p-bits, and fields."""
    edges = topology.edges()
    edges = edges[usable[edges].all(axis=1)]
    edges = edges[rng.random(len(edges)) < 0.5]
    couplings = rng.choice([-1.0, 1.0], len(edges)) * rng.uniform(0.3, 1.0, len(edges)) * span
    return IsingModel(np.where(usable, rng.uniform(-1.0, 1.0, topology.n_sites) * span, 0.0), edges, couplings)


def _moments(device: Submits, model: IsingModel, beta: float, sites: NDArray[np.int64], seed: int) -> Floats:
    """Spins and products of each chain's last state, (n_chains, n_moments)."""
    schedule = SamplingSchedule(n_samples=1, n_chains=N_CHAINS, beta=beta, n_warmup=WARMUP)
    spins = device.submit(model, schedule, seed=seed).result().spins[:, 0].astype(np.float64)
    products = spins[:, model.edges[:, 0]] * spins[:, model.edges[:, 1]]
    return np.concatenate([spins[:, sites], products], axis=1)


def check_twin(
    device: Submits,
    open_twin: Callable[[int | None], AbstractContextManager[Submits]],
    usable: NDArray[np.bool_],
    *,
    beta: float = 1.0,
    seed: int = 1,
    n_models: int = N_MODELS,
    report: Callable[[float, str], None] | None = None,
) -> TwinCheck:
    """Compare a device with its twin on random models.

    Args:
        device: the real one.
        open_twin: opens the twin, or with a number one of those within the uncertainties.
        usable: p-bits to use, up to (n_sites,); those beyond are not used.
        beta: of all jobs.
        seed: of the models and jobs.
        n_models: how many.
        report: called with (done, what), 0 <= done <= 1.

    Raises:
        CalibrationError: the device has no graph.
    """
    topology = device.spec.topology
    if topology is None:
        raise CalibrationError(f"{device.spec.name} has no graph of its own, so there are no random models of it")
    usable = np.append(usable, np.zeros(topology.n_sites - len(usable), dtype=bool))
    rng = np.random.default_rng(seed)
    degree = 0.5 * float(topology.degrees().mean())
    span = min(device.spec.coefficients.weight_range or 1.0, LARGEST_ARGUMENT / (beta * np.sqrt(max(1.0, degree))))
    models = [random_model(topology, usable, span, rng) for _ in range(n_models)]
    sites = np.flatnonzero(usable)
    real = []
    for k, model in enumerate(models):
        real.append(_moments(device, model, beta, sites, seed + k))
        if report is not None:
            report(0.2 * (k + 1) / n_models, "device")
    with open_twin(None) as twin:  # the same random numbers in all twins: what differs is the parameters' part
        mine = [_moments(twin, model, beta, sites, seed + 10_000 + k) for k, model in enumerate(models)]
    inverse = [_inverse(a, b) for a, b in zip(real, mine, strict=True)]
    added = np.zeros((N_DRAWS, n_models))
    scatter = [np.zeros(a.shape[1]) for a in real]
    for draw in range(N_DRAWS):
        with open_twin(draw) as twin:
            for k, model in enumerate(models):
                off = _moments(twin, model, beta, sites, seed + 10_000 + k).mean(axis=0) - mine[k].mean(axis=0)
                added[draw, k] = off @ inverse[k] @ off
                scatter[k] += off**2 / N_DRAWS
        if report is not None:
            report(0.2 + 0.8 * (draw + 1) / N_DRAWS, "twins within the uncertainties")
    statistics, degrees, worst = np.zeros(n_models), np.zeros(n_models, dtype=int), (0, "", 0.0, 0.0, 0.0)
    for k, model in enumerate(models):
        here, there = real[k].mean(axis=0), mine[k].mean(axis=0)
        statistics[k] = (here - there) @ inverse[k] @ (here - there)
        degrees[k] = len(here)
        variance = (real[k].var(axis=0, ddof=1) + mine[k].var(axis=0, ddof=1)) / N_CHAINS + scatter[k]
        z = (here - there) / np.sqrt(variance)
        at = int(np.abs(z).argmax())
        if abs(z[at]) > abs(worst[4]):
            names = [f"spin {site}" for site in sites] + [f"product {i}-{j}" for i, j in model.edges.tolist()]
            worst = (k, names[at], float(here[at]), float(there[at]), float(z[at]))
    total, whole = added.sum(axis=1), int(degrees.sum())
    return TwinCheck(
        chi_square=float(statistics.sum()),
        degrees=whole,
        expected=whole + float(total.mean()),
        p_value=_p_value(float(statistics.sum()), whole, total),
        alpha=ALPHA,
        model_p_values=tuple(_p_value(float(statistics[k]), int(degrees[k]), added[:, k]) for k in range(n_models)),
        worst=worst,
    )


def _inverse(first: Floats, second: Floats) -> Floats:
    """The inverse of the covariance of the difference of two means, unbiased."""
    freedom, n = len(first) + len(second) - 2, first.shape[1]
    covariance = np.cov(first.T) / len(first) + np.cov(second.T) / len(second)
    return np.asarray(np.linalg.inv(covariance) * (freedom - n - 1) / freedom)


def _p_value(statistic: float, degrees: int, added: Floats) -> float:
    """Of a chi-square to which the parameters add what was drawn, (n_draws,)."""
    mean = degrees + float(added.mean())
    variance = 2 * degrees + 4 * float(added.mean()) + float(added.var(ddof=1))
    scale = variance / (2 * mean)
    return float(chi2.sf(statistic / scale, 2 * mean**2 / variance))
