"""A switch between draws and their expectations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_active: ContextVar[bool] = ContextVar("glauber_torch_deterministic", default=False)


@contextmanager
def deterministic() -> Iterator[None]:
    """Within it every layer of glauber.torch returns the expectation of what it would draw, and no device is asked.

    Bits become their probabilities, thermodynamic attention becomes softmax attention, dropout the identity and noise
    zero. Of a whole network that is the mean-field value, not the mean of its outputs. Holds for the current thread
    (context) only, and may be nested.
    """
    token = _active.set(True)
    try:
        yield
    finally:
        _active.reset(token)


def is_deterministic() -> bool:
    """Whether the code runs within `deterministic()`."""
    return _active.get()
