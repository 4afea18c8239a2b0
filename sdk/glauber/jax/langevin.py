"""Overdamped Langevin dynamics of an energy function of continuous states, on JAX itself: no device has it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from glauber.errors import InvalidModelError
from glauber.jax.calls import float_array


class LangevinSamples(NamedTuple):
    """What `langevin` drew.

    Attributes:
        states: (n_samples, ...).
        acceptance: part of the proposals that were accepted, warm-up included; 1 without Metropolis' test.
    """

    states: Any
    acceptance: Any


def langevin(
    energy: Callable[[Any], Any],
    start: Any,
    key: Any,
    *,
    step: float,
    n_samples: int,
    n_warmup: int = 0,
    steps_per_sample: int = 1,
    beta: float = 1.0,
    adjusted: bool = True,
) -> LangevinSamples:
    """Samples of P(x) ~ exp(-beta E(x)) by the Metropolis-adjusted Langevin algorithm (Roberts and Tweedie 1996).

    A step proposes x' = x - beta step grad E(x) + sqrt(2 step) z with z normal, and accepts it with probability
    min(1, P(x') q(x | x') / (P(x) q(x' | x))), q the density of proposals; so the law is exact for every step size.
    Accepting about 57 % is most efficient in many dimensions (Roberts and Rosenthal 1998). Pure: use it under `jit`
    (with the counts static) and `vmap` for more chains.

    Args:
        energy: E of a state, a scalar, differentiable.
        start: the first state, floats of any shape.
        key: a JAX random key.
        step: > 0, in the squared unit of x.
        n_samples: states kept.
        n_warmup: steps before the first kept one.
        steps_per_sample: steps from one kept state to the next.
        beta: inverse temperature.
        adjusted: False accepts everything, as a physical Langevin machine does; the law is then wrong by O(step).

    Raises:
        InvalidModelError: a count, step or beta out of range, or a start that is not floats.
    """
    if min(n_samples, steps_per_sample) < 1 or n_warmup < 0:
        raise InvalidModelError("n_samples and steps_per_sample begin at 1, n_warmup at 0")
    if not (step > 0 and math.isfinite(step) and beta >= 0 and math.isfinite(beta)):
        raise InvalidModelError(f"step must be above 0 and beta not below, both finite; got {step:g} and {beta:g}")
    x = float_array("start", start)
    value_and_slope = jax.value_and_grad(energy)

    def transition(carry: Any, key: Any) -> tuple[Any, None]:
        x, value, slope, accepted = carry
        noise_key, accept_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, x.shape, x.dtype)
        new = x - beta * step * slope + math.sqrt(2 * step) * noise
        new_value, new_slope = value_and_slope(new)
        if adjusted:
            back = (x - new + beta * step * new_slope) / math.sqrt(2 * step)
            log_ratio = beta * (value - new_value) + (jnp.sum(noise**2) - jnp.sum(back**2)) / 2
            take = jnp.log(jax.random.uniform(accept_key, (), x.dtype)) < log_ratio  # a NaN is refused
        else:
            take = jnp.bool_(True)
        kept = jax.tree.map(lambda a, b: jnp.where(take, a, b), (new, new_value, new_slope), (x, value, slope))
        return (*kept, accepted + take), None

    def sample(carry: Any, key: Any) -> tuple[Any, Any]:
        carry, _ = jax.lax.scan(transition, carry, jax.random.split(key, steps_per_sample))
        return carry, carry[0]

    warm_key, key = jax.random.split(key)
    carry = (x, *value_and_slope(x), jnp.int32(0))
    carry, _ = jax.lax.scan(transition, carry, jax.random.split(warm_key, n_warmup))
    carry, states = jax.lax.scan(sample, carry, jax.random.split(key, n_samples))
    return LangevinSamples(states, carry[3] / (n_warmup + n_samples * steps_per_sample))
