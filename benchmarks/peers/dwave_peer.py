"""dwave-samplers' simulated annealer, held at one temperature, in both of its acceptance rules; and as a solver.

Its C++ keeps the energy change of every flip and skips the random number where a flip is hopeless. Timed is what it
reports itself for sampling, without the conversion of the problem.
"""

from __future__ import annotations

from typing import Any, Literal

import dimod
import glauber as gl
import numpy as np
from dwave.samplers import SimulatedAnnealingSampler
from numpy.typing import NDArray

from benchmarks.contender import Contender, UnsuitedError
from benchmarks.workloads import Workload

Rule = Literal["Gibbs", "Metropolis"]


def bqm_of(model: gl.IsingModel) -> Any:
    """The problem for dimod, whose energies have plus signs where ours have minus."""
    i, j = model.edges.T
    quadratic = (i, j, -model.couplings)
    return dimod.BinaryQuadraticModel.from_numpy_vectors(-model.fields, quadratic, model.offset, dimod.SPIN)


def in_order(samples: Any, n: int) -> NDArray[np.int8]:
    """States of a sample set with its variables in the order 0 .. n - 1."""
    states = np.empty((len(samples.record.sample), n), dtype=np.int8)
    states[:, np.array(list(samples.variables))] = samples.record.sample
    return states


def contenders(workload: Workload) -> list[Contender]:
    """Both rules."""
    if not isinstance(workload.model, gl.IsingModel):
        raise UnsuitedError("it has no Potts models")
    rules: tuple[Rule, ...] = ("Gibbs", "Metropolis")
    return [
        Contender(f"dwave-samplers {rule}", "dwave-samplers", rule, "float64", "xorshift128+", _runner(workload, rule))
        for rule in rules
    ]


def _runner(workload: Workload, rule: Rule) -> Any:
    bqm, n = bqm_of(workload.model), workload.model.n_sites
    sampler = SimulatedAnnealingSampler()

    def run(start: NDArray[Any], sweeps: int, seed: int) -> tuple[float, NDArray[Any]]:
        samples = sampler.sample(
            bqm,
            num_reads=len(start),
            num_sweeps=sweeps,
            num_sweeps_per_beta=sweeps,
            beta_schedule_type="custom",  # the default schedule would anneal
            beta_schedule=[workload.beta],
            proposal_acceptance_criteria=rule,
            initial_states=(start, list(range(n))),
            seed=2**30 + seed % 2**30,  # small seeds give its generator a poor state
        )
        return samples.info["timing"]["sampling_ns"] * 1e-9, in_order(samples, n)

    return run


class Solver:
    """Anneals with the annealer's own default temperatures."""

    name = "dwave-samplers SA"
    package = "dwave-samplers"

    def __init__(self, model: gl.IsingModel) -> None:
        self._bqm, self._n = bqm_of(model), model.n_sites
        self._sampler = SimulatedAnnealingSampler()

    def anneal(self, reads: int, sweeps: int, seed: int) -> NDArray[np.int8]:
        """Final states of so many anneals."""
        samples = self._sampler.sample(self._bqm, num_reads=reads, num_sweeps=sweeps, seed=2**30 + seed % 2**30)
        return in_order(samples, self._n)
