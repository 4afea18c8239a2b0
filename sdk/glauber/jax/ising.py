"""Ising models whose coefficients are JAX arrays: spins and moments by a device, gradients by the law itself."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from glauber.device import Device
from glauber.errors import InvalidModelError
from glauber.jax.calls import call, check_device, float_array, seed_of, words_of
from glauber.job import Job
from glauber.model import IsingModel
from glauber.schedule import SamplingSchedule


class IsingSampler:
    """Draws from P(s) ~ exp(-beta E(s)), E(s) = - sum h_i s_i - sum J_ij s_i s_j, on one graph.

    All methods take h (n_sites,), J (n_edges,), a key, and optionally `clamp` (n_sites,): -1 or +1 where a spin is held
    and 0 where it is free. They may be used under `jit`, `grad` and `vmap`. A `vmap` is one job where J is the same in
    all rows and the device takes fields of each chain; otherwise one job a row, all of them queued at once. Rows are
    independent even where they share a key. What the device refuses comes out of JAX as a runtime error with its
    message.

    Args:
        device: any but jax:// and thrml://.
        n_sites: spins.
        edges: pairs (n_edges, 2), each once.
        schedule: how a job samples; its beta is the law's.

    Raises:
        InvalidModelError: `device`, `edges` or `schedule` is none.
    """

    def __init__(self, device: Device, n_sites: int, edges: ArrayLike, schedule: SamplingSchedule) -> None:
        check_device(device)
        if not isinstance(schedule, SamplingSchedule):
            raise InvalidModelError(
                f"an IsingSampler needs a SamplingSchedule, whose samples have one law, not {type(schedule).__name__}"
            )
        pairs = np.asarray(edges).reshape(-1, 2) if np.size(edges) == 0 else np.asarray(edges)
        graph = IsingModel(np.zeros(n_sites), pairs, np.zeros(len(pairs)))
        self.device, self.n_sites, self.schedule = device, graph.n_sites, schedule
        self.edges = graph.edges
        self._shape = (schedule.n_chains, schedule.n_samples, graph.n_sites)

    def spins(self, h: Any, J: Any, key: Any, clamp: Any = None) -> Any:
        """Spins -1 and +1, (n_chains, n_samples, n_sites), in the wider type of h and J, without a gradient."""
        return _spins(self, *self._checked(h, J, key, clamp))

    def moments(self, h: Any, J: Any, key: Any, clamp: Any = None) -> tuple[Any, Any]:
        """Means of s_i (n_sites,) and of s_i s_j (n_edges,) over the samples of one job.

        Their gradients are the law's, d<f>/dh_i = beta cov(f, s_i) and d<f>/dJ_ij = beta cov(f, s_i s_j), estimated
        from the same samples. Both moments and gradients have a sampling error, which falls with their number.

        Raises:
            InvalidModelError: the gradient is asked for, of one sample.
        """
        return _moments(self, *self._checked(h, J, key, clamp))

    def log_partition_surrogate(self, h: Any, J: Any, key: Any, clamp: Any = None) -> Any:
        """A scalar whose gradient is that of log Z: beta <s_i> by h_i, beta <s_i s_j> by J_ij.

        Its value is that of -beta <E>, not of log Z, which samples do not tell. So the negative log-likelihood of data
        v has the gradient of `log_partition_surrogate(h, J, k1) - log_partition_surrogate(h, J, k2, clamp=v)`: the
        negative and the positive phase.
        """
        h, J, words, clamp = self._checked(h, J, key, clamp)
        sites, pairs = _moments(self, h, J, words, clamp)
        sites, pairs = jax.lax.stop_gradient((sites, pairs))
        return self.schedule.beta * (jnp.dot(h, sites) + jnp.dot(J, pairs))

    def _checked(self, h: Any, J: Any, key: Any, clamp: Any) -> tuple[Any, Any, Any, Any]:
        h, J = float_array("h", h), float_array("J", J)
        held = jnp.zeros(self.n_sites, jnp.int8) if clamp is None else jnp.asarray(clamp)
        if held.dtype == bool:
            raise InvalidModelError("clamp must be -1, +1, or 0 for a free spin; of Booleans False would be free")
        asked = {"h": (h, self.n_sites), "J": (J, len(self.edges)), "clamp": (held, self.n_sites)}
        for name, (array, n) in asked.items():
            if array.shape != (n,):
                raise InvalidModelError(f"{name} must have shape {(n,)}, not {array.shape}; vmap maps over more")
        dtype = jnp.promote_types(h.dtype, J.dtype)  # so that neither is rounded
        return h.astype(dtype), J.astype(dtype), words_of(key), held

    def _draw(self, h: NDArray[Any], J: NDArray[Any], words: NDArray[Any], clamp: NDArray[Any]) -> NDArray[np.int8]:
        """Spins (..., n_chains, n_samples, n_sites) for rows of coefficients (..., n)."""
        rows = h.shape[:-1]
        fields, couplings = h.reshape(-1, self.n_sites).astype(float), J.reshape(-1, len(self.edges)).astype(float)
        if not np.isin(clamp, (-1, 0, 1)).all():
            raise InvalidModelError("clamp must be -1, +1, or 0 for a free spin, and nothing else")
        held, seeds = clamp.astype(np.int8).reshape(-1, self.n_sites), words.reshape(-1, 2)
        together = len(fields) == 1 or (
            self.device.spec.capabilities.chain_fields and bool((couplings == couplings[:1]).all())
        )
        parts = [slice(None)] if together else [slice(k, k + 1) for k in range(len(fields))]
        jobs: list[Job] = []
        try:
            for k, part in enumerate(parts):
                n_rows, chains = len(fields[part]), self.schedule.n_chains
                each = partial(np.repeat, repeats=chains, axis=0)
                free = not held[part].any()
                jobs.append(
                    self.device.submit(
                        IsingModel(np.zeros(self.n_sites), self.edges, couplings[part][0]),
                        self.schedule.model_copy(update={"n_chains": n_rows * chains}),
                        fields=fields[part][0] if n_rows == 1 else each(fields[part]),
                        clamp=None if free else each(held[part]),
                        seed=seed_of(np.append(seeds[part], np.uint32(k))),
                    )
                )
            spins = [job.result().spins.reshape(-1, *self._shape) for job in jobs]
        except BaseException:
            for job in jobs:  # the others' rows are for nobody now
                if not job.done():
                    job.ask_to_cancel()
            raise
        return np.concatenate(spins).reshape(*rows, *self._shape)


def _pairs(sampler: IsingSampler, spins: Any) -> Any:
    """Products over edges of spins (..., n_sites)."""
    return spins[..., sampler.edges[:, 0]] * spins[..., sampler.edges[:, 1]]


def _spins_primal(sampler: IsingSampler, h: Any, J: Any, words: Any, clamp: Any) -> Any:
    return call(sampler._draw, sampler._shape, h.dtype, h, J, words, clamp)


def _spins_forward(sampler: IsingSampler, h: Any, J: Any, words: Any, clamp: Any) -> tuple[Any, Any]:
    return _spins(sampler, h, J, words, clamp), None


def _spins_backward(sampler: IsingSampler, kept: Any, gradient: Any) -> tuple[None, None, None, None]:
    return None, None, None, None


_spins: Any = jax.custom_vjp(_spins_primal, nondiff_argnums=(0,))
_spins.defvjp(_spins_forward, _spins_backward)


def _moments_primal(sampler: IsingSampler, h: Any, J: Any, words: Any, clamp: Any) -> tuple[Any, Any]:
    return _moments_forward(sampler, h, J, words, clamp)[0]


def _moments_forward(sampler: IsingSampler, h: Any, J: Any, words: Any, clamp: Any) -> tuple[tuple[Any, Any], Any]:
    spins = _spins(sampler, h, J, words, clamp).reshape(-1, sampler.n_sites)
    return (spins.mean(axis=0), _pairs(sampler, spins).mean(axis=0)), spins


def _moments_backward(sampler: IsingSampler, spins: Any, gradient: tuple[Any, Any]) -> tuple[Any, Any, None, None]:
    if len(spins) < 2:
        raise InvalidModelError("one sample has no covariance; gradients of moments need two samples or more")
    sites, pairs = spins, _pairs(sampler, spins)
    value = sites @ gradient[0] + pairs @ gradient[1]
    centred = value - value.mean()
    scale = sampler.schedule.beta / (len(spins) - 1)
    return scale * centred @ sites, scale * centred @ pairs, None, None


_moments: Any = jax.custom_vjp(_moments_primal, nondiff_argnums=(0,))
_moments.defvjp(_moments_forward, _moments_backward)
