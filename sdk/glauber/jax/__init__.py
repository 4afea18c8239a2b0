"""Devices inside JAX programs, under `jit`, `vmap` and `grad`: draws, Ising moments, and Langevin sampling.

    draws.py      bits and categories of a device, with straight-through gradients
    ising.py      IsingSampler: spins, moments and the gradient of log Z
    langevin.py   continuous states of any energy function, on JAX itself

The device may be any `glauber.Device`, the C core of sim://ideal included. It is called back from the compiled program,
so that a call is one job, and so is a whole `vmap` of it.
"""

from __future__ import annotations

from glauber.errors import missing_extra

try:
    import jax as _jax  # noqa: F401
except ImportError as error:
    raise missing_extra("jax", "jax", "glauber.jax") from error

from glauber.jax.draws import bits, categorical
from glauber.jax.ising import IsingSampler
from glauber.jax.langevin import LangevinSamples, langevin

__all__ = ["IsingSampler", "LangevinSamples", "bits", "categorical", "langevin"]
