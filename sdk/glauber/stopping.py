"""Running until there are enough effective samples, at sample counts that follow from the samples alone.

Where a batch ends depends on the clock, so a job that stopped at "the first batch with enough" would stop elsewhere
each time. Here the run is done in stretches whose ends follow from the samples before them, so the same seed stops at
the same sample on every machine that can go on from a state, also after a crash; and the samples are the first ones of
the job without this budget. Elsewhere the run ends with the batch in which there are enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glauber.checkpoint import resumed
from glauber.compile import Run
from glauber.diagnostics import effective_samples, mean_states
from glauber.driver import Batch, Driver
from glauber.model import Model

FIRST_DRAWS = 16
"""No chain is judged by fewer draws."""
GROWTH = (1.1, 2.0)
"""The next look is at so many times the draws, at least and at most; in between where the ESS should suffice."""
MARGIN = 1.05
"""Of the number of draws that should suffice: the estimate errs, and a look costs something too."""


class EssWatch:
    """Looks whether a job has its effective samples.

    Args:
        target: effective samples over all chains.
        model: the user's model.
        n_chains: of the job.

    Attributes:
        reached: whether there are enough.
        next_look: samples per chain at which to look next.
    """

    def __init__(self, target: float, model: Model, n_chains: int) -> None:
        self._target, self._model = target, model
        self._energies: list[NDArray[np.float64]] = []
        self._means: list[NDArray[np.float64]] = []
        self._n = 0
        self.reached = False
        self.next_look = max(FIRST_DRAWS, math.ceil(target / n_chains))

    def take(self, states: NDArray[np.integer[Any]], energies: NDArray[np.float64]) -> None:
        """More draws: states (n_chains, k, n_sites) of the model and their energies (n_chains, k)."""
        self._energies.append(energies)
        self._means.append(mean_states(self._model, states))
        self._n += states.shape[1]
        while self._n >= self.next_look and not self.reached:
            self._look()

    def _look(self) -> None:
        """Judge the first `next_look` draws of each chain, whatever came beyond them."""
        draws = self.next_look
        if len(self._energies) > 1:
            self._energies = [np.concatenate(self._energies, axis=1)]
            self._means = [np.concatenate(self._means, axis=1)]
        ess = effective_samples(self._energies[0][:, :draws], self._means[0][:, :draws])
        self.reached = ess is not None and ess >= self._target
        wanted = GROWTH[1] if ess is None else MARGIN * self._target / ess
        self.next_look = math.ceil(draws * min(GROWTH[1], max(GROWTH[0], wanted)))


def run_in_stretches(driver: Driver, run: Run, watch: EssWatch, *, resumable: bool) -> Iterator[Batch]:
    """The batches of a run until the watch, which is told of each batch by who takes them, has enough.

    Args:
        driver: the machine.
        run: the whole run, or the rest of one.
        watch: says where to stop and look.
        resumable: the machine can go on from a state; otherwise the run is one stretch.
    """
    while not watch.reached:
        stretch = replace(run, n_samples=min(run.n_samples, watch.next_look)) if resumable else run
        last: Batch | None = None
        for batch in driver.run(stretch):
            last = replace(batch, resident=None)  # it would hold this stretch only
            yield last
            if watch.reached and not resumable:
                return
        if last is None or last.next_sweep <= stretch.n_sweeps or stretch.n_samples == run.n_samples:
            return  # the end, of the run or of what the machine would do
        run = resumed(run, last)
