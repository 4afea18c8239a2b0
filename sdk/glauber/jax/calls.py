"""How a compiled JAX program calls a device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from glauber.device import Device
from glauber.errors import InvalidModelError

ON_JAX = ("jax://", "thrml://")


def check_device(device: Device) -> None:
    """Refuse what is no device, or one that would wait for the very program that waits for it.

    Raises:
        InvalidModelError: saying which.
    """
    if not isinstance(device, Device):
        raise InvalidModelError(
            f"a glauber.Device is needed, as gl.open_device returns it, not {type(device).__name__}"
        )
    if device.address.startswith(ON_JAX):
        raise InvalidModelError(
            f"{device.address} computes with JAX itself, which JAX forbids what a compiled program calls back: both may"
            " wait for each other. Submit jobs to it outside, or use sim://ideal, which draws the same bits as jax://cpu"
        )


def words_of(key: Any) -> Any:
    """Two random words of a JAX key, new style or old."""
    return jax.random.bits(key, (2,), jnp.uint32)


def seed_of(words: NDArray[np.uint32]) -> int:
    """A job's seed of the words of all calls that it answers, (..., 2)."""
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(words).tobytes(), digest_size=8).digest(), "little")


def call(function: Callable[..., NDArray[Any]], shape: tuple[int, ...], dtype: Any, *arguments: Any) -> Any:
    """`function` of NumPy arrays from inside a compiled program, once for a whole `vmap`.

    Under `vmap` the function gets all arguments with the mapped axes in front, and returns its result so.
    """

    def on_host(*arrays: Any) -> NDArray[Any]:
        return np.asarray(function(*(np.asarray(array) for array in arrays)), dtype=dtype)

    return jax.pure_callback(on_host, jax.ShapeDtypeStruct(shape, dtype), *arguments, vmap_method="broadcast_all")


def float_array(name: str, values: Any) -> Any:
    """As a JAX array of floats.

    Raises:
        InvalidModelError: it has another type.
    """
    array = jnp.asarray(values)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InvalidModelError(f"{name} must be floats, not {array.dtype}: gradients flow through them")
    return array
