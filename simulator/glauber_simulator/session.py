"""What the two bodies of the machine, the C core and the reference, have in common: a run in progress."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from glauber.driver import Events, Resamplings
from glauber.samples import Moments
from numpy.typing import NDArray


class Session(Protocol):
    """A run in progress; it holds the state between calls."""

    @property
    def facts(self) -> dict[str, str]:
        """What the result should say about how it was computed."""
        ...

    def advance(self, first_sweep: int, n_sweeps: int, every: int) -> NDArray[np.unsignedinteger]:
        """Do n_sweeps sweeps, the first of which has the number first_sweep, and keep every `every`-th state.

        Returns:
            The kept states as `driver.Batch.samples` has them; shape (n_chains, 0, ...) with every = 0.
        """
        ...

    def state(self) -> NDArray[np.unsignedinteger]:
        """The present state as `driver.Batch.state` has it."""
        ...

    def moments(self) -> Moments | None:
        """Sums over the kept states so far, if the run asks for them."""
        ...

    def exchanges(self) -> NDArray[np.int64] | None:
        """Of the last `advance`, as `driver.Batch.exchanges` has them."""
        ...

    def resamplings(self) -> Resamplings | None:
        """Of the last `advance`, as `driver.Batch.resamplings` has them."""
        ...

    def events(self) -> Events | None:
        """Of the last `advance`, as `driver.Batch.events` has them."""
        ...


def potts_dtype(n_states: int) -> type[np.unsignedinteger]:
    """The smallest unsigned type that holds a Potts state."""
    return np.uint8 if n_states <= 2**8 else np.uint16 if n_states <= 2**16 else np.uint32
