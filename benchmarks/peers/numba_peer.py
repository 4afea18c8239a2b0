"""A plain loop over sites, compiled by numba: what a user writes who wants speed without C."""

from __future__ import annotations

import math
import time
from typing import Any

import glauber as gl
import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

from benchmarks.contender import Contender, UnsuitedError
from benchmarks.workloads import Workload


@numba.njit(fastmath=True)
def _ising(s: Any, start: Any, neighbour: Any, weight: Any, field: Any, beta: float, sweeps: int, seed: int) -> None:
    np.random.seed(seed)
    for chain in range(s.shape[0]):
        for _ in range(sweeps):
            for i in range(s.shape[1]):
                h = field[i]
                for e in range(start[i], start[i + 1]):
                    h += weight[e] * s[chain, neighbour[e]]
                s[chain, i] = 1 if np.random.random() * (1.0 + math.exp(-2.0 * beta * h)) < 1.0 else -1


@numba.njit(fastmath=True)
def _potts(s: Any, start: Any, neighbour: Any, factor: Any, own: Any, sweeps: int, seed: int) -> None:
    """`factor` is exp(beta J) by edge, `own` exp(beta h) by site and state: the loop needs no exponential."""
    np.random.seed(seed)
    q = own.shape[1]
    w = np.empty(q)
    for chain in range(s.shape[0]):
        for _ in range(sweeps):
            for i in range(s.shape[1]):
                for k in range(q):
                    w[k] = own[i, k]
                for e in range(start[i], start[i + 1]):
                    w[s[chain, neighbour[e]]] *= factor[e]
                total = 0.0
                for k in range(q):
                    total += w[k]
                    w[k] = total
                u = np.random.random() * total
                k = 0
                while w[k] < u:
                    k += 1
                s[chain, i] = k


def contenders(workload: Workload) -> list[Contender]:
    """One; the sites in their own order."""
    model, beta = workload.model, workload.beta
    if workload.degree > 50:
        raise UnsuitedError("a loop over sparse rows is no match for dense models")
    i, j = model.edges.T
    both = (np.concatenate([i, j]), np.concatenate([j, i]))
    matrix = coo_array((np.tile(model.couplings, 2), both), (model.n_sites, model.n_sites)).tocsr()
    graph = (matrix.indptr, matrix.indices)
    factor, own = np.exp(beta * matrix.data), np.exp(beta * model.fields)

    def run(start: NDArray[Any], sweeps: int, seed: int) -> tuple[float, NDArray[Any]]:
        states = np.array(start, dtype=np.int8)
        began = time.perf_counter()
        if isinstance(model, gl.IsingModel):
            _ising(states, *graph, matrix.data, model.fields, beta, sweeps, seed % 2**32)
        else:
            _potts(states, *graph, factor, own, sweeps, seed % 2**32)
        return time.perf_counter() - began, states

    return [Contender("numba loop", "numba", "Gibbs", "float64", "Mersenne Twister", run)]
