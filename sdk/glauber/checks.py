"""Numbers as they come from users: refused with a name and a reason, or turned into what the rest may trust."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glauber.errors import InvalidModelError

MAX_SITES = 2**27
"""A gigabyte of fields; far beyond it only a typing error lies."""


def real_numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """A float64 copy of real numbers of any shape.

    Raises:
        InvalidModelError: text, complex numbers, ragged lists, or integers beyond the range of a double.
    """
    try:
        given = np.asarray(values)
        if given.size and given.dtype.kind not in "iufb":
            given = np.array(values, dtype=object)
            if not all(isinstance(x, int | float | np.number) and not isinstance(x, complex) for x in given.ravel()):
                raise TypeError(f"{given.ravel()[0]!r} is not a real number")
        return np.array(given, dtype=np.float64, order="C")
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidModelError(f"{name} must be real numbers in a regular array: {error}") from error


def finite_array(name: str, values: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A read-only float64 copy of `values`, refused unless it has `shape` and is finite."""
    array = real_numbers(name, values)
    if array.shape != shape:
        raise InvalidModelError(f"{name} has shape {array.shape}, but shape {shape} is needed")
    if not np.isfinite(array).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InvalidModelError(f"{name}{list(at)} is {array[at]}; every coefficient must be finite")
    array.setflags(write=False)
    return array


def whole_number(name: str, value: object, smallest: int, largest: int = MAX_SITES) -> int:
    """An integer, numpy's included, as a Python int.

    Raises:
        InvalidModelError: it is none, a Boolean, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not smallest <= int(value) <= largest:
        raise InvalidModelError(f"{name} must be an integer from {smallest} to {largest}, not {value!r}")
    return int(value)
