"""How wrong a gradient estimator is: its bias and variance on a small case, against exact enumeration."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glauber.checks import whole_number
from glauber.errors import InvalidModelError
from glauber.torch.boltzmann import BoltzmannMachine
from glauber.torch.estimators import ESTIMATORS, Estimator, expected_cost, log_probability
from glauber.torch.layers import BinaryLayer, PbitLinear
from glauber.torch.objectives import contrastive_divergence, maximum_likelihood

MAX_PROBED_BITS = 16
EXACT_TOLERANCE = 1e-5
"""Deviations of components that do not vary at all: single precision, relative to the exact gradient."""


@dataclass(frozen=True)
class EstimatorError:
    """One estimator on one case.

    Attributes:
        estimator: its name.
        bias: Euclidean norm of mean estimate minus exact gradient, over that of the exact gradient; not below what
            chance alone makes of it, `noise_floor`.
        noise_floor: root mean square of the same for an unbiased estimator of this variance.
        p_value: of the hypothesis that there is no bias (Hotelling's T^2).
        variance: trace of the covariance of one estimate, over the squared norm of the exact gradient.
        draws: states of the layer that one estimate draws.
        evaluations: of the cost in one estimate; 0 for a Boltzmann machine.
    """

    estimator: str
    bias: float
    noise_floor: float
    p_value: float
    variance: float
    draws: int
    evaluations: int


@dataclass(frozen=True)
class GradientReport:
    """Estimators side by side.

    Attributes:
        exact: the gradient by enumeration, flat.
        n_repeats: estimates of each.
        rows: one for each estimator.
    """

    exact: NDArray[np.float64]
    n_repeats: int
    rows: tuple[EstimatorError, ...]

    def __getitem__(self, estimator: str) -> EstimatorError:
        return next(row for row in self.rows if row.estimator == estimator)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "exact_norm": float(np.linalg.norm(self.exact)),
            "n_repeats": self.n_repeats,
            "rows": [asdict(row) for row in self.rows],
        }

    def __str__(self) -> str:
        lines = [
            f"gradient of {self.exact.size} numbers, {self.n_repeats} estimates each; relative to the exact one",
            f"{'estimator':<20}{'bias':>10}{'by chance':>11}{'p':>10}{'variance':>11}{'draws':>7}{'costs':>7}",
        ]
        lines += [
            f"{row.estimator:<20}{row.bias:>10.3g}{row.noise_floor:>11.2g}{row.p_value:>10.2g}{row.variance:>11.3g}"
            f"{row.draws:>7}{row.evaluations:>7}"
            for row in self.rows
        ]
        return "\n".join(lines)


def gradient_probe(
    layer: BinaryLayer | PbitLinear | BoltzmannMachine,
    inputs: Tensor,
    cost: Callable[[Tensor], Tensor] | None = None,
    *,
    estimators: Sequence[Estimator] = ESTIMATORS,
    n_samples: int = 8,
    n_repeats: int = 200,
) -> GradientReport:
    """Bias and variance of gradient estimators against the exact gradient.

    For a BinaryLayer or PbitLinear: of the mean of E[cost] over the batch, with respect to the logits. For a Boltzmann
    machine: of the mean negative log-likelihood with respect to fields and couplings, by "two-phase" (moments of
    n_samples chains of as many samples), "cd-1" and "cd-10".

    Args:
        layer: what draws, on its own device.
        inputs: of the layer, (batch, n); visible states for a machine.
        cost: as in expected_cost, of the layer's output; none for a machine.
        estimators: of the menu; a machine has its own.
        n_samples: draws of one estimate.
        n_repeats: estimates; more than the gradient has numbers.

    Raises:
        InvalidModelError: more than 16 units, no cost for a layer, or fewer repeats than numbers.
    """
    n_repeats = whole_number("n_repeats", n_repeats, 3)
    if isinstance(layer, BoltzmannMachine):
        return _probe_machine(layer, inputs, n_samples, n_repeats)
    if cost is None:
        raise InvalidModelError("a layer's gradient is that of a cost; give one, as for expected_cost")
    binary = layer.bits if isinstance(layer, PbitLinear) else layer
    with torch.no_grad():
        logits = 2 * layer.beta * layer.linear(inputs) if isinstance(layer, PbitLinear) else inputs
    logits = logits.double()
    spins = isinstance(layer, PbitLinear)
    evaluations = 0

    def counted(bits: Tensor) -> Tensor:
        nonlocal evaluations
        evaluations += len(bits)
        return cost((2 * bits - 1 if spins else bits).to(inputs.dtype)).to(logits.dtype)

    exact = _exact_gradient(logits, counted)
    rows = []
    for estimator in estimators:
        evaluations = 0
        draws = np.empty((n_repeats, exact.size))
        for k in range(n_repeats):
            asked = logits.clone().requires_grad_()
            value = expected_cost(asked, counted, sampler=binary.sampler, estimator=estimator, n_samples=n_samples)
            (gradient,) = torch.autograd.grad(value.mean(), asked)
            draws[k] = gradient.numpy(force=True).ravel()
        rows.append(_row(estimator, draws, exact, n_samples, evaluations // n_repeats))
    return GradientReport(exact, n_repeats, tuple(rows))


def _exact_gradient(logits: Tensor, cost: Callable[[Tensor], Tensor]) -> NDArray[np.float64]:
    n_bits = logits.shape[-1]
    if n_bits > MAX_PROBED_BITS:
        raise InvalidModelError(f"{n_bits} units have 2^{n_bits} states; probe a layer of at most {MAX_PROBED_BITS}")
    codes = torch.arange(2**n_bits, device=logits.device)
    states = (codes[:, None] >> torch.arange(n_bits, device=logits.device) & 1).to(logits.dtype)
    states = states.reshape(len(states), *[1] * (logits.dim() - 1), n_bits).expand(-1, *logits.shape)
    asked = logits.clone().requires_grad_()
    expected = (torch.exp(log_probability(asked, states)) * cost(states).detach()).sum(0)
    (gradient,) = torch.autograd.grad(expected.mean(), asked)
    return np.asarray(gradient.numpy(force=True).ravel(), dtype=np.float64)


def _probe_machine(machine: BoltzmannMachine, data: Tensor, n_samples: int, n_repeats: int) -> GradientReport:
    parameters = (machine.fields, machine.couplings)

    def flat(loss: Tensor) -> NDArray[np.float64]:
        found = torch.autograd.grad(loss, parameters)
        return np.concatenate([part.numpy(force=True).ravel() for part in found]).astype(np.float64)

    exact = flat(-machine.log_likelihood(data).mean())
    menu: Mapping[str, tuple[Callable[[], Tensor], int]] = {
        "two-phase": (
            lambda: maximum_likelihood(machine, data, n_chains=n_samples, n_samples=n_samples),
            n_samples**2,
        ),
        "cd-1": (lambda: contrastive_divergence(machine, data, 1), len(data)),
        "cd-10": (lambda: contrastive_divergence(machine, data, 10), len(data)),
    }
    rows = [
        _row(name, np.stack([flat(loss()) for _ in range(n_repeats)]), exact, draws, 0)
        for name, (loss, draws) in menu.items()
    ]
    return GradientReport(exact, n_repeats, tuple(rows))


def _row(
    estimator: str, estimates: NDArray[np.float64], exact: NDArray[np.float64], draws: int, evaluations: int
) -> EstimatorError:
    repeats, size = estimates.shape
    if repeats <= size + 1:
        raise InvalidModelError(f"{repeats} repeats cannot show the bias of {size} numbers; take {size + 2} or more")
    scale = float(np.linalg.norm(exact))
    if scale == 0:
        raise InvalidModelError("the exact gradient is zero everywhere; probe a case where it is not")
    deviation = estimates.mean(axis=0) - exact
    variance = float(estimates.var(axis=0, ddof=1).sum())
    return EstimatorError(
        estimator=estimator,
        bias=float(np.linalg.norm(deviation)) / scale,
        noise_floor=math.sqrt(variance / repeats) / scale,
        p_value=_p_of_no_bias(estimates - exact, scale),
        variance=variance / scale**2,
        draws=draws,
        evaluations=evaluations,
    )


def _p_of_no_bias(errors: NDArray[np.float64], scale: float) -> float:
    """Hotelling's T^2 that the errors have mean zero; directions without any spread must be right to rounding."""
    from scipy.stats import f as f_law

    repeats, _ = errors.shape
    mean = errors.mean(axis=0)
    spread, directions = np.linalg.eigh(np.cov(errors.T).reshape(len(mean), -1))
    along = directions.T @ mean
    moving = spread > (EXACT_TOLERANCE * scale) ** 2
    if float(np.linalg.norm(along[~moving])) > 3 * EXACT_TOLERANCE * scale:
        return 0.0
    rank = int(moving.sum())
    if rank == 0:
        return 1.0
    statistic = repeats * float((along[moving] ** 2 / spread[moving]).sum())
    return float(f_law.sf(statistic * (repeats - rank) / (rank * (repeats - 1)), rank, repeats - rank))
