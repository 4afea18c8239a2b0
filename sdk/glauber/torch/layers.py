"""Layers that draw on a device: bits, p-bits, dropout and noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import glauber
from glauber.checks import whole_number
from glauber.errors import InvalidModelError
from glauber.torch.deterministic import is_deterministic
from glauber.torch.estimators import Estimator, expected_cost, straight_through
from glauber.torch.sampler import Sampler, as_sampler

GOLDEN = (math.sqrt(5) - 1) / 2
"""Multiples of it, modulo 1, fill the unit interval evenly (Weyl 1916)."""


class DrawingModule(nn.Module):
    """A module with a sampler, whose place in its sequence of seeds goes into the module's state_dict.

    Args:
        device: an open device, or the sampler of another layer, to share its seeds and its books.

    Attributes:
        sampler: where the draws come from.
    """

    def __init__(self, device: glauber.Device | Sampler) -> None:
        super().__init__()
        self.sampler = as_sampler(device)

    def get_extra_state(self) -> dict[str, Any]:
        """See Sampler.state_dict; for torch."""
        return self.sampler.state_dict()

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """See Sampler.load_state_dict; for torch."""
        self.sampler.load_state_dict(state)


class BinaryLayer(DrawingModule):
    """Bits b, 1 with probability sigma(logit), with a straight-through gradient: one device job a call.

    Args:
        device: see DrawingModule.
        n_samples: draws of which the mean is passed on: 1 for bits, more for values in between.

    Attributes:
        share: part of the units, 0 to 1, that draw; the others pass on their probability. Which ones is the same in
            every call, and those of a smaller share are among those of a larger one. PbitSchedule sets it.
    """

    def __init__(self, device: glauber.Device | Sampler, n_samples: int = 1) -> None:
        super().__init__(device)
        self.n_samples = whole_number("n_samples", n_samples, 1)
        self.share = 1.0

    def forward(self, logits: Tensor) -> Tensor:
        """Bits, or means of bits, of the shape and dtype of `logits`."""
        probability = torch.sigmoid(logits)
        if is_deterministic() or self.share <= 0:
            return probability
        drawing = drawing_units(logits.shape[-1], self.share, logits.device) if self.share < 1 else None
        asked = logits if drawing is None else logits[..., drawing]
        drawn = straight_through(asked, self.sampler.bits(asked, self.n_samples).mean(0))
        if drawing is None:
            return drawn
        return probability.index_copy(-1, drawing.nonzero()[:, 0], drawn)

    def expected_cost(
        self,
        logits: Tensor,
        cost: Callable[[Tensor], Tensor],
        *,
        estimator: Estimator = "straight-through",
        n_samples: int = 2,
    ) -> Tensor:
        """E[cost(bits)] with a gradient by another estimator; see glauber.torch.expected_cost. All units draw."""
        return expected_cost(logits, cost, sampler=self.sampler, estimator=estimator, n_samples=n_samples)

    def get_extra_state(self) -> dict[str, Any]:
        """The sampler's state, and the share; for torch."""
        return {**super().get_extra_state(), "share": self.share}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """The inverse; for torch."""
        super().set_extra_state(state)
        self.share = float(state["share"])

    def extra_repr(self) -> str:
        """For printing a model."""
        return f"n_samples={self.n_samples}, share={self.share:g}, device={self.sampler.device.address}"


def drawing_units(n_units: int, share: float, device: torch.device | None = None) -> Tensor:
    """Which of n_units are in a share, Boolean (n_units,): round(share n_units) of them, evenly spread and nested."""
    place = torch.arange(1, n_units + 1, dtype=torch.float64, device=device) * GOLDEN % 1
    rank = torch.empty(n_units, dtype=torch.int64, device=device)
    rank[place.argsort()] = torch.arange(n_units, device=device)
    return rank < round(share * n_units)


class PbitLinear(nn.Module):
    """A layer of p-bits: spins s = -1 or +1 with P(s = +1) = 1 / (1 + exp(-2 beta I)), I = W x + b.

    That is the p-bit's own law, sgn(tanh(beta I) + uniform noise) (Camsari et al. 2017, eq. 1); E[s] = tanh(beta I).

    Args:
        in_features: inputs.
        out_features: p-bits.
        device: an open device, or a sampler.
        bias: whether there is a b.
        beta: inverse temperature.
        n_samples: draws of which the mean is passed on.

    Attributes:
        linear: W and b.
        bits: the BinaryLayer that draws; its `share` is that of PbitSchedule.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        device: glauber.Device | Sampler,
        *,
        bias: bool = True,
        beta: float = 1.0,
        n_samples: int = 1,
    ) -> None:
        super().__init__()
        if not (math.isfinite(beta) and beta > 0):
            raise InvalidModelError(f"beta must be a number above 0, not {beta!r}")
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.bits = BinaryLayer(device, n_samples)
        self.beta = float(beta)

    def forward(self, x: Tensor) -> Tensor:
        """Spins, or means of spins: shape (..., in_features) to (..., out_features)."""
        spins: Tensor = 2 * self.bits(2 * self.beta * self.linear(x)) - 1
        return spins

    def expected_cost(
        self,
        x: Tensor,
        cost: Callable[[Tensor], Tensor],
        *,
        estimator: Estimator = "straight-through",
        n_samples: int = 2,
    ) -> Tensor:
        """E[cost(spins)], shape (...), with a gradient by another estimator; see glauber.torch.expected_cost."""
        return self.bits.expected_cost(
            2 * self.beta * self.linear(x), lambda bits: cost(2 * bits - 1), estimator=estimator, n_samples=n_samples
        )


class Dropout(DrawingModule):
    """Dropout by the device's own noise: as torch.nn.Dropout, with a p-bit for each element.

    Args:
        p: probability of an element to be zeroed; the others are multiplied by 1 / (1 - p).
        device: see DrawingModule.
    """

    def __init__(self, p: float, device: glauber.Device | Sampler) -> None:
        super().__init__(device)
        if not 0 <= p < 1:
            raise InvalidModelError(f"p must be at least 0 and below 1, not {p!r}")
        self.p = float(p)

    def forward(self, x: Tensor) -> Tensor:
        """The input with elements dropped while training; unchanged in eval mode and within `deterministic()`."""
        if not self.training or is_deterministic() or self.p == 0:
            return x
        keep = self.sampler.bits(torch.full_like(x, math.log((1 - self.p) / self.p), requires_grad=False))[0]
        return x * keep / (1 - self.p)

    def extra_repr(self) -> str:
        """For printing a model."""
        return f"p={self.p:g}, device={self.sampler.device.address}"


class Noise(DrawingModule):
    """Gaussian noise out of p-bits: each normal number is a sum of fair spins, over the root of their number.

    Mean 0 and variance 1 are exact, and no number is above sqrt(n_bits) in size. Against a normal law the excess
    kurtosis is -2 / n_bits, and the distribution function is off by at most 0.4 / sqrt(n_bits), half a step of the sum.

    Args:
        device: see DrawingModule.
        scale: standard deviation that `forward` adds.
        covariance: of the last axis, shape (n, n), for structured noise; None for independent numbers.
        n_bits: p-bits for each number.

    Raises:
        InvalidModelError: the covariance is not symmetric and positive definite.
    """

    root: Tensor | None

    def __init__(
        self,
        device: glauber.Device | Sampler,
        scale: float = 1.0,
        *,
        covariance: Tensor | None = None,
        n_bits: int = 32,
    ) -> None:
        super().__init__(device)
        if not (math.isfinite(scale) and scale >= 0):
            raise InvalidModelError(f"scale must be a number not below 0, not {scale!r}")
        self.scale = float(scale)
        self.n_bits = whole_number("n_bits", n_bits, 1)
        root = None
        if covariance is not None:
            square = covariance.dim() == 2 and covariance.shape[0] == covariance.shape[1]
            if not square or not torch.allclose(covariance, covariance.T):
                raise InvalidModelError("the covariance must be a symmetric matrix")
            root, failed = torch.linalg.cholesky_ex(covariance)
            if failed:
                raise InvalidModelError("the covariance must be positive definite; add a small multiple of 1")
        self.register_buffer("root", root)

    def like(self, x: Tensor) -> Tensor:
        """Noise of the shape, dtype and place of `x`, with unit variance or the covariance asked for."""
        if is_deterministic():
            return torch.zeros_like(x)
        if self.root is not None and x.shape[-1:] != self.root.shape[:1]:
            raise InvalidModelError(f"the covariance is of {len(self.root)} numbers, the last axis has {x.shape[-1]}")
        up = self.sampler.bits(torch.zeros_like(x, requires_grad=False), self.n_bits).sum(0, dtype=torch.float64)
        normal = ((2 * up - self.n_bits) / math.sqrt(self.n_bits)).to(x.dtype)
        return normal if self.root is None else normal @ self.root.T.to(normal.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """`x` plus scale times noise; within `deterministic()` unchanged."""
        return x + self.scale * self.like(x)

    def diffuse(self, x: Tensor, kept: Tensor | float) -> tuple[Tensor, Tensor]:
        """A forward diffusion step, sqrt(kept) x + sqrt(1 - kept) noise (Ho et al. 2020, eq. 4), and the noise.

        Args:
            x: any shape.
            kept: the share of the variance that stays, 0 to 1; broadcast from the left, such as one for each row.
        """
        share = torch.as_tensor(kept, dtype=x.dtype, device=x.device)
        if not bool(((share >= 0) & (share <= 1)).all()):
            raise InvalidModelError("kept must lie between 0 and 1")
        share = share.reshape(*share.shape, *[1] * (x.dim() - share.dim()))
        noise = self.like(x)
        return share.sqrt() * x + (1 - share).sqrt() * noise, noise

    def extra_repr(self) -> str:
        """For printing a model."""
        return f"scale={self.scale:g}, n_bits={self.n_bits}, device={self.sampler.device.address}"
