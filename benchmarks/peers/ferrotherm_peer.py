"""ferrotherm's chromatic Gibbs sweeps in Rust, on one thread; one chain, which is what a simulation of it holds."""

from __future__ import annotations

import time
from typing import Any

import ferrotherm
import numpy as np
from numpy.typing import NDArray

from benchmarks.contender import Contender, UnsuitedError
from benchmarks.workloads import Workload


def contenders(workload: Workload) -> list[Contender]:
    """One, for the square ferromagnet with a single chain."""
    if workload.key != "W1, one chain":
        raise UnsuitedError("it is measured on one chain only, as its simulations hold one")
    side = round(workload.model.n_sites**0.5)

    def run(start: NDArray[Any], sweeps: int, seed: int) -> tuple[float, NDArray[Any]]:
        simulation = ferrotherm.lattice2d(side, 1.0, beta=workload.beta, seed=seed % 2**63)
        simulation.sweep(1)
        began = time.perf_counter()
        simulation.sweep(sweeps)
        return time.perf_counter() - began, np.array(simulation.numpy(), dtype=np.int8)[None]

    return [Contender("ferrotherm", "ferrotherm", "Gibbs", "float64", "its own", run, takes_start=False)]
