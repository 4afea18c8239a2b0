"""Independent bits and categories drawn by a device inside a JAX program."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from glauber.device import Device
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.jax.calls import call, check_device, float_array, seed_of, words_of
from glauber.model import IsingModel, PottsModel
from glauber.schedule import SamplingSchedule

_ONCE = SamplingSchedule(n_samples=1)


def bits(device: Device, logits: Any, key: Any) -> Any:
    """Bits with P(1) = sigmoid(logit), one p-bit each.

    A call is one job of as many p-bits as there are logits, on a device with room for them; so is a whole `vmap`, whose
    rows are independent even where they share a key. The gradient is straight through: that of the mean,
    sigmoid'(logit), which is exact for a loss that is linear in the bits.

    Args:
        device: any but jax:// and thrml://.
        logits: floats of any shape, finite.
        key: a JAX random key; the same key and logits give the same bits on a deterministic device.

    Returns:
        0 or 1, of the shape and type of `logits`.

    Raises:
        InvalidModelError: `device` or `logits` is none. What the device refuses comes out of JAX as a runtime error
            with its message.
    """
    check_device(device)
    return _bits(device, float_array("logits", logits), words_of(key))


def _draw_bits(device: Device, logits: NDArray[Any], words: NDArray[np.uint32]) -> NDArray[Any]:
    model = IsingModel(np.zeros(logits.size), np.zeros((0, 2), np.int32), np.zeros(0))
    # P(+1) = sigmoid(2 beta h)
    fields = logits.astype(np.float64).ravel() / 2
    result = device.submit(model, _ONCE, fields=fields, seed=seed_of(words), observe="last").result()
    return (result.last[0] > 0).reshape(logits.shape)


def _bits_primal(device: Device, logits: Any, words: Any) -> Any:
    if logits.size == 0:
        return logits
    return call(partial(_draw_bits, device), logits.shape, logits.dtype, logits, words)


def _bits_forward(device: Device, logits: Any, words: Any) -> tuple[Any, Any]:
    return _bits(device, logits, words), logits


def _bits_backward(device: Device, logits: Any, gradient: Any) -> tuple[Any, None]:
    p = jax.nn.sigmoid(logits)
    return gradient * p * (1 - p), None


_bits: Any = jax.custom_vjp(_bits_primal, nondiff_argnums=(0,))
_bits.defvjp(_bits_forward, _bits_backward)


def categorical(device: Device, logits: Any, key: Any) -> Any:
    """Categories with P(k) = softmax(logits)_k, one p-dit each, as one-hot vectors.

    Jobs, keys and errors as for `bits`. The gradient is straight through: that of the mean, softmax(logits).

    Args:
        device: one with p-dits of so many states.
        logits: floats (..., n_states), finite.
        key: a JAX random key.

    Returns:
        0 or 1, of the shape and type of `logits`, one 1 in each row.

    Raises:
        InvalidModelError: `logits` has no last axis of two states at least.
        ModelNotSupportedError: the device has no p-dits of so many states.
    """
    check_device(device)
    array = float_array("logits", logits)
    if array.ndim == 0 or array.shape[-1] < 2:
        raise InvalidModelError(f"logits must have shape (..., n_states) with two states at least, not {array.shape}")
    most = device.spec.capabilities.potts_states
    if array.shape[-1] > most:
        has = f"p-dits of up to {most} states" if most else "p-bits only"
        raise ModelNotSupportedError(
            f"{array.shape[-1]} states were asked of {device.address}, which has {has}; sim://ideal has 65,536"
        )
    return _categorical(device, array, words_of(key))


def _draw_categories(device: Device, logits: NDArray[Any], words: NDArray[np.uint32]) -> NDArray[Any]:
    q = logits.shape[-1]
    fields = logits.astype(np.float64).reshape(-1, q)
    model = PottsModel(np.zeros(fields.shape), np.zeros((0, 2), np.int32), np.zeros(0))
    result = device.submit(model, _ONCE, fields=fields[None], seed=seed_of(words), observe="last").result()
    return np.asarray(result.last[0][:, None] == np.arange(q)).reshape(logits.shape)


def _categorical_primal(device: Device, logits: Any, words: Any) -> Any:
    if logits.size == 0:
        return logits
    return call(partial(_draw_categories, device), logits.shape, logits.dtype, logits, words)


def _categorical_forward(device: Device, logits: Any, words: Any) -> tuple[Any, Any]:
    return _categorical(device, logits, words), logits


def _categorical_backward(device: Device, logits: Any, gradient: Any) -> tuple[Any, None]:
    p = jax.nn.softmax(logits)
    return p * (gradient - jnp.sum(gradient * p, axis=-1, keepdims=True)), None


_categorical: Any = jax.custom_vjp(_categorical_primal, nondiff_argnums=(0,))
_categorical.defvjp(_categorical_forward, _categorical_backward)
