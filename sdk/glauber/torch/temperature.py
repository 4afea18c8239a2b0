"""The device's own temperature as a nuisance parameter, learned from the samples that training draws anyway."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from glauber.diagnostics import beta_by_pseudolikelihood
from glauber.errors import InvalidModelError
from glauber.samples import SampleSet


class DeviceTemperature:
    """How much colder or hotter a device samples than it is asked to: factor = true beta / asked beta.

    Every job's samples give an estimate by pseudolikelihood (Besag 1975) with a standard error; the factor is their
    mean with weights 1 / error^2 that fade by `memory` a job, so that it follows a drift. A machine that has one asks
    for beta / factor. Set `machine.temperature = DeviceTemperature()` for hardware-in-the-loop training.

    Pseudolikelihood needs states near equilibrium of the model that was run: with one sweep a job from data
    (contrastive divergence) the estimate leans to the data; use persistent chains. Of an embedded machine, whose groups
    of p-bits break, no temperature can be read off.

    Args:
        memory: weight of the past after each job; 0.99 is about the last hundred jobs.

    Attributes:
        factor: true beta over asked beta; 1 as long as nothing was observed.
        standard_error: of `factor`; infinite as long as nothing was observed.
    """

    def __init__(self, memory: float = 0.99) -> None:
        if not 0 <= memory <= 1:
            raise InvalidModelError(f"memory must lie between 0 and 1, not {memory!r}")
        self.memory = memory
        self._weight = 0.0
        self._sum = 0.0
        self._squares = 0.0

    @property
    def factor(self) -> float:
        """True beta over asked beta."""
        return self._sum / self._weight if self._weight > 0 else 1.0

    @property
    def standard_error(self) -> float:
        """Of `factor`, of independent jobs; too small where persistent chains hardly move between jobs."""
        return math.sqrt(self._squares) / self._weight if self._weight > 0 else math.inf

    def asked(self, beta: float) -> float:
        """What to ask of the device to have `beta`."""
        return beta / self.factor

    def observe(self, result: SampleSet) -> None:
        """Take a job's samples into account.

        One without samples at a single beta, without couplings, or of an embedded machine says nothing.

        All chains and samples count as draws of one law.
        """
        beta, model = result.provenance.beta, result.model
        if result.packed is None or beta is None or beta == 0 or not model.edges.size:
            return
        if result.provenance.embedding is not None:
            return
        states = result.states
        chains, draws = states.shape[:2]
        series = states.reshape(1, chains * draws, -1)
        clamped = np.zeros((1, model.n_sites), dtype=bool) if result.clamped is None else result.clamped
        fields = model.fields[None] if result.fields is None else result.fields
        if len(clamped) > 1 or len(fields) > 1:  # a chain has its own, so it is a series of its own
            series = states
        found = beta_by_pseudolikelihood(model, series, fields, ~clamped)
        if found is None:
            return
        weight = (beta / found.standard_error) ** 2
        # a weight w m^age has the variance 1 / w, so the mean's variance is sum w m^(2 age) / (sum w m^age)^2
        self._squares = self.memory**2 * self._squares + weight
        self._weight = self.memory * self._weight + weight
        self._sum = self.memory * self._sum + weight * found.value / beta

    def state_dict(self) -> dict[str, float]:
        """For checkpoints."""
        return {"weight": self._weight, "sum": self._sum, "squares": self._squares}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """The inverse of state_dict."""
        self._weight, self._sum, self._squares = (float(state[name]) for name in ("weight", "sum", "squares"))
