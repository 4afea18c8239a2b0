"""Attention by p-dits: each query draws keys, in place of a softmax over them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

import glauber
from glauber.checks import whole_number
from glauber.errors import InvalidModelError
from glauber.torch.deterministic import is_deterministic
from glauber.torch.layers import DrawingModule
from glauber.torch.sampler import Sampler, checked_mask


class Attended(NamedTuple):
    """What attention returns when its error is asked for.

    Attributes:
        output: the mean over the draws.
        standard_error: of `output` against softmax attention, by the spread of the draws, in the same shape.
    """

    output: Tensor
    standard_error: Tensor


def attention_weights(
    query: Tensor,
    key: Tensor,
    *,
    sampler: Sampler,
    n_samples: int = 32,
    beta: float | None = None,
    allowed: Tensor | None = None,
) -> Tensor:
    """How often each query drew each key: one p-dit a query, P(k) = softmax(beta q . k), drawn n_samples times.

    One device job. The shares are an unbiased estimate of the softmax weights, up to the distance of the device's law
    from the asked one (Sampler.total_variation_bound), with an error that falls as n_samples^-1/2. Within
    `deterministic()` they are the softmax weights.

    The gradient is that of softmax (straight-through): exact for a loss linear in the weights, else with a bias of
    order 1 / n_samples.

    Args:
        query: shape (..., n_queries, d).
        key: shape (..., n_keys, d).
        sampler: where the p-dits come from.
        n_samples: draws of each query.
        beta: inverse temperature; None for 1 / sqrt(d).
        allowed: Boolean, broadcastable to the result; keys that are not allowed are never drawn.

    Returns:
        Multiples of 1 / n_samples, shape (..., n_queries, n_keys); each row adds up to 1.

    Raises:
        InvalidModelError: scores that are NaN, queries of no numbers, or a query that is allowed no key.
    """
    if query.dim() < 2 or key.dim() < 2 or query.shape[-1] != key.shape[-1] or query.shape[-1] == 0:
        raise InvalidModelError(
            f"queries (..., n_queries, d) and keys (..., n_keys, d) need one d above 0, not shapes {tuple(query.shape)}"
            f" and {tuple(key.shape)}"
        )
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if beta is None else beta)
    if allowed is not None:
        allowed = checked_mask(allowed, scores.shape)
    soft = None
    if is_deterministic() or (torch.is_grad_enabled() and scores.requires_grad):
        soft = torch.softmax(scores if allowed is None else scores.masked_fill(~allowed, -math.inf), dim=-1)
    if is_deterministic():
        assert soft is not None
        return soft
    drawn = sampler.categorical(scores, n_samples, allowed).reshape(n_samples, -1)
    share = torch.full((1, 1), 1 / n_samples, dtype=scores.dtype, device=scores.device)
    weights = torch.zeros_like(scores, requires_grad=False).reshape(drawn.shape[1], -1)
    weights = weights.scatter_add_(1, drawn.T, share.expand(drawn.shape[1], n_samples)).reshape(scores.shape)
    return weights if soft is None else weights + (soft - soft.detach())


def standard_error(weights: Tensor, value: Tensor, n_samples: int) -> Tensor:
    """Of `weights @ value` with drawn weights, from the spread of the drawn values; NaN for a single draw."""
    with torch.no_grad():
        if n_samples < 2:
            return torch.full_like(weights @ value, math.nan)
        value = value - value.mean(-2, keepdim=True)  # else what is common to all keys cancels with all its rounding
        spread = weights @ value**2 - (weights @ value) ** 2
        return (spread.clamp(min=0) / (n_samples - 1)).sqrt()


class ThermodynamicAttention(DrawingModule):
    """Multi-head attention whose weights are drawn, not computed: one device job for all heads, queries and batch rows.

    As torch.nn.MultiheadAttention with batch_first=True, self-attention where key and value are left out. In eval mode
    it draws as well; `deterministic()` makes it softmax attention.

    Args:
        d_model: width of queries and output.
        n_heads: heads; divides d_model.
        device: an open device, or a sampler.
        n_samples: draws of each query.
        beta: inverse temperature of the p-dits; None for 1 / sqrt(d_model / n_heads).
        bias: whether the four projections have one.

    Raises:
        InvalidModelError: n_heads does not divide d_model.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        device: glauber.Device | Sampler,
        *,
        n_samples: int = 32,
        beta: float | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__(device)
        if d_model % whole_number("n_heads", n_heads, 1):
            raise InvalidModelError(f"n_heads = {n_heads} does not divide d_model = {d_model}")
        if beta is not None and not (math.isfinite(beta) and beta > 0):
            raise InvalidModelError(f"beta must be a number above 0 or None, not {beta!r}")
        self.n_heads = n_heads
        self.n_samples = whole_number("n_samples", n_samples, 1)
        self.beta = beta
        self.query = nn.Linear(d_model, d_model, bias=bias)
        self.key = nn.Linear(d_model, d_model, bias=bias)
        self.value = nn.Linear(d_model, d_model, bias=bias)
        self.output = nn.Linear(d_model, d_model, bias=bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        causal: bool = False,
        padding: Tensor | None = None,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """Attend; shape (batch, n_queries, d_model).

        Args:
            query: shape (batch, n_queries, d_model).
            key: shape (batch, n_keys, d_model); None for the queries themselves.
            value: as key; None for the keys.
            causal: query i sees keys 0 to i only; needs as many queries as keys.
            padding: Boolean (batch, n_keys), True for keys that are padding, which no query sees.
            allowed: further mask, Boolean, broadcastable to (batch, n_heads, n_queries, n_keys).
        """
        weights, heads = self._attend(query, key, value, causal, padding, allowed)
        return self._project(weights @ heads)

    def with_error(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        causal: bool = False,
        padding: Tensor | None = None,
        allowed: Tensor | None = None,
    ) -> Attended:
        """As `forward`, with the standard error of each output from the finite number of draws.

        Queries and heads draw independently, so the squares of the heads' errors, taken after the output projection,
        add up. NaN for n_samples = 1, 0 within `deterministic()`.
        """
        weights, heads = self._attend(query, key, value, causal, padding, allowed)
        output = self._project(weights @ heads)
        if is_deterministic():
            return Attended(output, torch.zeros_like(output))
        with torch.no_grad():
            columns = self.output.weight.reshape(
                len(self.output.weight), self.n_heads, -1
            )  # (d_model, n_heads, d_head)
            projected = torch.einsum("...hkd,ohd->...hko", heads, columns)
            error = standard_error(weights, projected, self.n_samples)
        return Attended(output, error.square().sum(-3).sqrt())

    def _attend(
        self,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        causal: bool,
        padding: Tensor | None,
        allowed: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Weights (batch, n_heads, n_queries, n_keys) and values (batch, n_heads, n_keys, d_head)."""
        key = query if key is None else key
        value = key if value is None else value
        weights = attention_weights(
            self._split(self.query(query)),
            self._split(self.key(key)),
            sampler=self.sampler,
            n_samples=self.n_samples,
            beta=self.beta,
            allowed=self._mask(query, key, causal, padding, allowed),
        )
        return weights, self._split(self.value(value))

    def _project(self, heads: Tensor) -> Tensor:
        output: Tensor = self.output(heads.transpose(-3, -2).flatten(-2))
        return output

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.n_heads, -1).transpose(-3, -2)

    def _mask(
        self, query: Tensor, key: Tensor, causal: bool, padding: Tensor | None, allowed: Tensor | None
    ) -> Tensor | None:
        n_queries, n_keys = query.shape[-2], key.shape[-2]
        masks = [] if allowed is None else [allowed]
        if causal:
            if n_queries != n_keys:
                raise InvalidModelError(f"a causal mask needs as many queries as keys, not {n_queries} and {n_keys}")
            masks.append(torch.ones(n_queries, n_keys, dtype=torch.bool, device=query.device).tril())
        if padding is not None:
            if padding.shape != (*key.shape[:-2], n_keys) or padding.dtype != torch.bool:
                raise InvalidModelError(f"padding must be Boolean of shape {(*key.shape[:-2], n_keys)}")
            masks.append(~padding[..., None, None, :])
        result = None
        for mask in masks:
            result = mask if result is None else result & mask
        return result

    def extra_repr(self) -> str:
        """For printing a model."""
        return f"n_heads={self.n_heads}, n_samples={self.n_samples}, device={self.sampler.device.address}"
