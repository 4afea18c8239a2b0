"""What one sampler looks like to the harness. Peers and glauber itself give lists of these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

Run = Callable[[NDArray[Any], int, int], tuple[float, NDArray[Any]]]
"""(start states (chains, n_sites), sweeps, seed) -> (seconds of sampling alone, final states)."""


@dataclass(frozen=True)
class Contender:
    """One way of sampling one workload on one core.

    Attributes:
        name: of the package and the way it is used.
        package: distribution name, for its version.
        dynamics: Metropolis relaxes faster per sweep than Gibbs; both have the same law.
        precision: of weights and thresholds.
        generator: of random numbers.
        run: does it.
        takes_start: False if it can only start from its own random states; its energies are then not compared.
        shares_start: True if all its chains start from the first given state, and may be fewer than were given.
    """

    name: str
    package: str
    dynamics: Literal["Gibbs", "Metropolis"]
    precision: str
    generator: str
    run: Run
    takes_start: bool = True
    shares_start: bool = False


class UnsuitedError(Exception):
    """This peer is left out of a workload on purpose; the message says why, and the report repeats it."""
