"""States from which the timed runs start, so that short runs already have the energies of long ones."""

from __future__ import annotations

from typing import Any

import glauber as gl
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from benchmarks.workloads import Workload

POOL = 64
"""Start states for each workload; each round draws as many as there are chains."""


def pool(workload: Workload) -> NDArray[Any]:
    """The start states, (POOL, n_sites)."""
    if workload.warmup is None:
        return swendsen_wang(workload.model, workload.beta, POOL)
    schedule = gl.SamplingSchedule(n_samples=1, n_chains=POOL, n_warmup=workload.warmup - 1, beta=workload.beta)
    with gl.open_device("sim://ideal?seed=1") as device:
        return np.asarray(device.submit(workload.model, schedule, observe={"last"}).result().last)


def swendsen_wang(
    model: gl.IsingModel, beta: float, count: int, *, first: int = 100, between: int = 5, seed: int = 1
) -> NDArray[np.int8]:
    """Equilibrium states of a ferromagnet by cluster moves.

    They decorrelate in a few steps even at its critical point, where single flips take 100,000 sweeps and more.
    Aligned neighbours are joined with probability 1 - exp(-2 beta J), and every cluster gets a random sign (Swendsen
    and Wang, Phys. Rev. Lett. 58, 86, 1987).
    """
    rng = np.random.default_rng(seed)
    n, (i, j) = model.n_sites, model.edges.T
    join = 1 - np.exp(-2 * beta * model.couplings)
    spins = np.ones(n, dtype=np.int8)
    states = []
    for step in range(first + between * count):
        bond = (spins[i] == spins[j]) & (rng.random(len(i)) < join)
        graph = coo_array((np.ones(int(bond.sum()), dtype=np.int8), (i[bond], j[bond])), (n, n))
        clusters, label = connected_components(graph, directed=False)
        spins = rng.choice(np.array([-1, 1], dtype=np.int8), clusters)[label]
        if step >= first and (step - first) % between == between - 1:
            states.append(spins)
    return np.array(states)
