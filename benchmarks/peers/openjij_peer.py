"""OpenJij's simulated annealing, held at one temperature; its dense form for dense models; and as a solver.

Seeds are its own: with one given, every read is the same run. Timed is what it reports itself for the sweeps. Reads run
one after another, so their number changes no rate, but handing back many large states takes it far longer than sampling
them: large models get fewer reads, and the time is multiplied.
"""

from __future__ import annotations

from typing import Any

import glauber as gl
import numpy as np
import openjij
from numpy.typing import NDArray

from benchmarks.contender import Contender, UnsuitedError
from benchmarks.peers.dwave_peer import in_order
from benchmarks.workloads import Workload

DENSE_DEGREE = 50
SPINS_HANDED_BACK = 100_000


def _bqm(model: gl.IsingModel, sparse: bool) -> Any:
    fields = {i: -h for i, h in enumerate(model.fields.tolist())}
    edges = zip(model.edges.tolist(), model.couplings.tolist(), strict=True)
    return openjij.BinaryQuadraticModel.from_ising(fields, {(i, j): -J for (i, j), J in edges}, sparse=sparse)


def contenders(workload: Workload) -> list[Contender]:
    """The form that fits the model's density."""
    model = workload.model
    if not isinstance(model, gl.IsingModel):
        raise UnsuitedError("it has no Potts models")
    sparse = workload.degree <= DENSE_DEGREE
    bqm, sampler = _bqm(model, sparse), openjij.SASampler()

    def run(start: NDArray[Any], sweeps: int, seed: int) -> tuple[float, NDArray[Any]]:
        reads = max(1, min(len(start), SPINS_HANDED_BACK // model.n_sites))
        samples = sampler.sample(
            bqm,
            num_reads=reads,
            schedule=[[workload.beta, sweeps]],
            sparse=sparse,
            initial_state=start[0].tolist(),
        )
        seconds = float(np.sum(samples.info["list_exec_times"])) * 1e-6
        return seconds * len(start) / reads, in_order(samples, model.n_sites)

    name = f"OpenJij SA, {'sparse' if sparse else 'dense'}"
    return [Contender(name, "openjij", "Metropolis", "float64", "xorshift", run, shares_start=True)]


class Solver:
    """Anneals with the annealer's own default temperatures."""

    name = "OpenJij SA"
    package = "openjij"

    def __init__(self, model: gl.IsingModel) -> None:
        self._sparse = 2 * model.n_edges <= DENSE_DEGREE * model.n_sites
        self._bqm, self._n = _bqm(model, self._sparse), model.n_sites
        self._sampler = openjij.SASampler()

    def anneal(self, reads: int, sweeps: int, seed: int) -> NDArray[np.int8]:
        """Final states of so many anneals."""
        samples = self._sampler.sample(self._bqm, num_reads=reads, num_sweeps=sweeps, sparse=self._sparse)
        return in_order(samples, self._n)
