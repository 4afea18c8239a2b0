"""Gradients of an expectation over bits that a device draws: a menu, each with its bias stated.

For bits b with P(b_i = 1) = sigma(a_i) and a cost f(b), all of them estimate d E[f(b)] / d a, and the ordinary gradient
of E[f] with respect to whatever else f depends on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from glauber.checks import whole_number
from glauber.errors import InvalidModelError
from glauber.torch.deterministic import is_deterministic
from glauber.torch.sampler import Sampler

Estimator = Literal["straight-through", "reinforce", "arm", "rao-blackwell"]
"""How the gradient with respect to the logits is estimated.

- "straight-through" (Bengio et al. 2013, with the derivative of sigma): f'(b) p (1 - p). Biased unless f is linear in
  each of its bits over [0, 1]; the bias does not fall with n_samples. One evaluation of f a draw, the least variance.
- "reinforce" (Williams 1992) with the mean cost of the other draws as baseline: (f(b) - baseline) (b - p). Unbiased;
  variance grows with the number of bits. Needs two draws or more; one evaluation each.
- "arm" (Yin and Zhou 2019) with the uniform number integrated out (Dong, Mnih and Tucker 2020): differences of f
  between antithetic pairs. Unbiased; two evaluations a draw.
- "rao-blackwell" (local expectation gradients, Titsias and Lazaro-Gredilla 2015): each bit summed out exactly with the
  others as drawn, p (1 - p) (f(b_i = 1) - f(b_i = 0)). Unbiased; exact for a single bit, or an f that is a sum of
  functions of single bits; n_bits + 1 evaluations a draw.
"""
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)

MAX_PAIR_LOGIT = 30.0
"""Logit of "the pair differs" where p is 1/2 exactly and it always does; wrong by 1e-13 in probability."""


def check_estimator(estimator: str) -> None:
    """Refuse what is not on the menu."""
    if estimator not in ESTIMATORS:
        raise InvalidModelError(f"estimator must be one of {', '.join(ESTIMATORS)}, not {estimator!r}")


def straight_through(logits: Tensor, drawn: Tensor) -> Tensor:
    """The values of `drawn` with the gradient of sigma(logits), summed over leading axes that `logits` has not."""
    if not (torch.is_grad_enabled() and logits.requires_grad):
        return drawn
    soft = torch.sigmoid(logits)
    return drawn + (soft - soft.detach())


def expected_cost(
    logits: Tensor,
    cost: Callable[[Tensor], Tensor],
    *,
    sampler: Sampler,
    estimator: Estimator = "straight-through",
    n_samples: int = 2,
) -> Tensor:
    """E[cost(b)] over device-drawn bits, by Monte Carlo, with a gradient by `estimator`; one device job.

    Args:
        logits: shape (*batch, n_bits).
        cost: from bits of shape (n, *batch, n_bits), of the dtype of `logits`, to costs of shape (n, *batch); rows must
            not depend on each other. Called with other n than n_samples by "arm" and "rao-blackwell".
        sampler: where the bits come from.
        estimator: see Estimator.
        n_samples: draws of each bit; pairs for "arm".

    Returns:
        Shape (*batch,). Within `deterministic()` the cost of the probabilities themselves.

    Raises:
        InvalidModelError: an unknown estimator, a cost of another shape, one draw for "reinforce".
    """
    check_estimator(estimator)
    n_samples = whole_number("n_samples", n_samples, 1)
    if logits.dim() < 1:
        raise InvalidModelError("logits need a last axis of bits")

    def costs(bits: Tensor) -> Tensor:
        values = cost(bits)
        if values.shape != bits.shape[:-1]:
            raise InvalidModelError(
                f"the cost of bits of shape {tuple(bits.shape)} has shape {tuple(values.shape)};"
                f" it must be {tuple(bits.shape[:-1])}, one for each draw and batch row"
            )
        return values

    if is_deterministic():
        return costs(torch.sigmoid(logits)[None])[0]
    if estimator == "straight-through":
        return costs(straight_through(logits, sampler.bits(logits, n_samples))).mean(0)
    if estimator == "reinforce":
        return _reinforce(logits, costs, sampler, n_samples)
    if estimator == "arm":
        return _arm(logits, costs, sampler, n_samples)
    return _rao_blackwell(logits, costs, sampler, n_samples)


def _with_gradient(value: Tensor, logits: Tensor, gradient: Tensor) -> Tensor:
    """`value` (*batch,), whose derivative with respect to logits (*batch, n_bits) is `gradient` beside its own."""
    pull = (gradient.detach() * logits).sum(-1)
    return value + (pull - pull.detach())


def _reinforce(logits: Tensor, cost: Callable[[Tensor], Tensor], sampler: Sampler, n_samples: int) -> Tensor:
    if n_samples < 2:
        raise InvalidModelError('"reinforce" takes the other draws as its baseline, so n_samples must be 2 or more')
    bits = sampler.bits(logits, n_samples)
    values = cost(bits)
    others = (values.sum(0) - values) / (n_samples - 1)
    advantage = (values - others)[..., None]
    return _with_gradient(values.mean(0), logits, (advantage * (bits - torch.sigmoid(logits))).mean(0))


def _arm(logits: Tensor, cost: Callable[[Tensor], Tensor], sampler: Sampler, n_samples: int) -> Tensor:
    # Antithetic b1 = [1 - u < p], b2 = [u < p] differ with probability 2 min(p, 1 - p), either way with the same;
    # else both are the likelier value. So a pair is two independent bits, which any device can draw.
    with torch.no_grad():
        size = logits.abs()  # 2 min(p, 1 - p) is 2 sigma(-size), and what is left of 1 is tanh(size / 2)
        differ_logit = math.log(2) + functional.logsigmoid(-size) - torch.log(torch.tanh(size / 2))
        differ_logit = differ_logit.clamp(max=MAX_PAIR_LOGIT)
        drawn = sampler.bits(torch.stack([differ_logit, torch.zeros_like(logits)]), n_samples)
        differ, coin = drawn[:, 0], drawn[:, 1]
        likelier = (logits > 0).to(logits.dtype)
        first = differ * coin + (1 - differ) * likelier
        second = differ * (1 - coin) + (1 - differ) * likelier
    a, b = cost(torch.cat([first, second])).chunk(2)
    half = (a - b)[..., None] / 2
    gradient = half * (first - second) * torch.sigmoid(logits.abs())
    return _with_gradient((a + b).mean(0) / 2, logits, gradient.mean(0))


def _rao_blackwell(logits: Tensor, cost: Callable[[Tensor], Tensor], sampler: Sampler, n_samples: int) -> Tensor:
    bits = sampler.bits(logits, n_samples)
    values = cost(bits)
    n_bits = logits.shape[-1]
    with torch.no_grad():
        flips = torch.eye(n_bits, dtype=bits.dtype, device=bits.device)
        flipped = (bits[None] - flips.reshape(n_bits, *[1] * (bits.dim() - 1), n_bits)).abs()
        others = cost(flipped.reshape(-1, *bits.shape[1:])).reshape(n_bits, *values.shape)
        slope = (values.detach()[None] - others) * (2 * bits - 1).movedim(-1, 0)
        p = torch.sigmoid(logits)
        gradient = p * (1 - p) * slope.mean(1).movedim(0, -1)
    return _with_gradient(values.mean(0), logits, gradient)


def log_probability(logits: Tensor, bits: Tensor) -> Tensor:
    """Log P(bits) = sum_i b_i a_i - log(1 + exp(a_i)) over the last axis."""
    return (bits * logits - functional.softplus(logits)).sum(-1)
