"""What some schedules find beside their states: rates of exchange, a population's free energy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glauber.errors import InvalidModelError


@dataclass(frozen=True, slots=True)
class Exchanges:
    """How often neighbouring temperatures of a tempered job exchanged states.

    Attributes:
        betas: inverse temperatures, ascending, float64 (n_temperatures,).
        tried: exchanges tried between temperatures k and k + 1, over all ladders, int64 (n_temperatures - 1,).
        made: those that were accepted.
    """

    betas: NDArray[np.float64]
    tried: NDArray[np.int64]
    made: NDArray[np.int64]

    @property
    def rates(self) -> NDArray[np.float64]:
        """Accepted share by pair; NaN where none was tried."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.made / self.tried)


@dataclass(frozen=True, slots=True)
class Population:
    """What population annealing found beside its states.

    Of the model that the device held after quantisation, with its offset and the job's own fields.

    Attributes:
        betas: inverse temperatures, ascending, float64 (n_temperatures,).
        log_ratios: ln Z(beta_k) / Z(beta_0): sums of ln of the population's mean weights, float64 (n_temperatures,).
        log_states: ln of the number of states, free spins times ln 2: ln Z at beta = 0.
        families: the chain of the start that each chain descends from, int32 (n_chains,).
    """

    betas: NDArray[np.float64]
    log_ratios: NDArray[np.float64]
    log_states: float
    families: NDArray[np.int32]

    @property
    def log_partition(self) -> NDArray[np.float64]:
        """Ln Z at each beta, float64 (n_temperatures,).

        Raises:
            InvalidModelError: the population did not start at beta = 0, so only ratios are known.
        """
        if self.betas[0] != 0:
            raise InvalidModelError(
                f"the population started at beta = {self.betas[0]:g}, where ln Z is not known; start at 0, or use"
                " log_ratios"
            )
        return self.log_states + self.log_ratios

    @property
    def n_families(self) -> int:
        """Chains of the start that still have descendants; with few left the population is too small."""
        return len(np.unique(self.families))

    @property
    def mean_square_family(self) -> float:
        """Sum over families of (size / n_chains)^2, times n_chains: 1 if all survive, n_chains if one does.

        The standard error of ln Z is about sqrt(mean_square_family / n_chains) or less (Wang, Machta, Katzgraber 2015).
        """
        sizes = np.unique(self.families, return_counts=True)[1]
        return float((sizes.astype(np.float64) ** 2).sum() / len(self.families))
