"""Updates per nanosecond of each kernel on one core, by workload, kernel and instruction set.

    python -m benchmarks.kernels [--seconds 0.5] [--json benchmarks/results/kernels.json]

Rates are medians of runs of at least 50 ms with a run-time seed; nothing is read back between sweeps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import glauber as gl
import networkx as nx
import numpy as np
from glauber.catalogue import load_spec
from glauber.compile import PottsProgram, compile_program, make_run, step_of
from glauber_simulator import core
from glauber_simulator.driver import with_parameters

from benchmarks.machine import provenance, write


def torus(*shape: int) -> tuple[int, Any]:
    """Sites and edges of a lattice with periodic sides."""
    at = np.arange(int(np.prod(shape))).reshape(shape)
    edges = [np.stack([at.ravel(), np.roll(at, -1, axis).ravel()], axis=1) for axis in range(len(shape))]
    return at.size, np.concatenate(edges)


def ferromagnet() -> gl.IsingModel:
    """W1: 2-D, 256 x 256."""
    n, edges = torus(256, 256)
    return gl.IsingModel(np.zeros(n), edges, np.ones(len(edges)))


def glass() -> gl.IsingModel:
    """W2: 3-D +-J, 16^3."""
    n, edges = torus(16, 16, 16)
    return gl.IsingModel(np.zeros(n), edges, np.random.default_rng(1).choice([-1.0, 1.0], len(edges)))


def random_regular() -> gl.IsingModel:
    """W3: 6-regular, 10,000 spins, Gaussian."""
    edges = np.array(nx.random_regular_graph(6, 10_000, seed=1).edges)
    return gl.IsingModel(np.zeros(10_000), edges, np.random.default_rng(1).normal(size=len(edges)))


def sparse_maxcut() -> gl.IsingModel:
    """2,000 spins of mean degree 20, couplings -1."""
    edges = np.array(nx.gnm_random_graph(2000, 19_990, seed=1).edges)
    return gl.IsingModel(np.zeros(2000), edges, -np.ones(len(edges)))


def dense(n: int) -> gl.IsingModel:
    """W4, W4s: SK."""
    i, j = np.triu_indices(n, 1)
    couplings = np.random.default_rng(1).normal(size=len(i)) / np.sqrt(n)
    return gl.IsingModel(np.zeros(n), np.stack([i, j], axis=1), couplings)


def rbm() -> gl.IsingModel:
    """W6: 784 + 500."""
    i, j = np.meshgrid(np.arange(784), 784 + np.arange(500), indexing="ij")
    rng = np.random.default_rng(1)
    edges = np.stack([i.ravel(), j.ravel()], axis=1)
    return gl.IsingModel(rng.normal(size=1284), edges, 0.05 * rng.normal(size=len(edges)))


def potts() -> gl.PottsModel:
    """W5: q = 4, 28 x 28, open sides."""
    at = np.arange(784).reshape(28, 28)
    right, down = (at[:, :-1], at[:, 1:]), (at[:-1], at[1:])
    edges = np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in (right, down)])
    return gl.PottsModel(np.zeros((784, 4)), edges, np.ones(len(edges)))


def loose() -> gl.IsingModel:
    """100,000 p-bits without edges."""
    return gl.IsingModel(np.random.default_rng(1).normal(size=100_000), np.zeros((0, 2), np.int32), [])


WORKLOADS: list[tuple[str, Callable[[], Any], float, int, int]] = [
    # name, model, beta, chains, weight bits
    ("W1 2-D ferromagnet 256 x 256", ferromagnet, 0.4406868, 64, 16),
    ("W1 2-D ferromagnet 256 x 256", ferromagnet, 0.4406868, 1, 16),
    ("W2 3-D +-J 16^3", glass, 1.0, 64, 16),
    ("W3 Gaussian 6-regular, n = 10,000", random_regular, 1.0, 64, 16),
    ("G22-like, n = 2,000, degree 20", sparse_maxcut, 1.0, 64, 16),
    ("W4 SK 1000", lambda: dense(1000), 1.0, 64, 8),
    ("W4 SK 1000", lambda: dense(1000), 1.0, 64, 16),
    ("W4s SK 100", lambda: dense(100), 1.0, 10, 8),
    ("W5 Potts q = 4, 28 x 28", potts, 1.0, 1, 16),
    ("W5 Potts q = 4, 28 x 28", potts, 1.0, 64, 16),
    ("W6 RBM 784 + 500", rbm, 1.0, 64, 8),
    ("W6 RBM 784 + 500", rbm, 1.0, 64, 16),
    ("100,000 p-bits without edges", loose, 1.0, 1, 16),
]


def rate(model: Any, beta: float, chains: int, bits: int, isa: str, seconds: float) -> dict[str, Any]:
    """Kernel and updates per nanosecond on one thread."""
    spec = with_parameters(load_spec("ideal"), {"weight_bits": str(bits)})
    program = compile_program(model, step_of(model, spec))
    schedule = gl.SamplingSchedule(n_samples=1, n_chains=chains, beta=beta)
    run = replace(make_run(program, schedule, seed=time.time_ns() % 2**63, observe={"last"}), isa=isa, threads=1)
    session: core.IsingSession | core.PottsSession
    if isinstance(program, PottsProgram):
        session = core.PottsSession(core.PottsNet(program), run, 1)
    else:
        session = core.IsingSession(core.IsingNet(program), run, 1)
    sweep, sweeps = 1, 1
    rates: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(rates) < 3:
        start = time.perf_counter()
        session.advance(sweep, sweeps, 0)
        elapsed = time.perf_counter() - start
        sweep += sweeps
        if elapsed < 0.05:
            sweeps *= 2
        else:
            rates.append(model.n_sites * chains * sweeps / elapsed / 1e9)
    return {"kernel": session.facts["kernel"], "updates_per_ns": float(np.median(rates))}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each figure")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    rows = []
    print(f"{'':36}{'chains':>7}{'bits':>5}  updates/ns by instruction set, one core")
    for name, make, beta, chains, bits in WORKLOADS:
        model = make()
        found = {isa: rate(model, beta, chains, bits, isa, arguments.seconds) for isa in core.AVAILABLE_ISA}
        rows.append({"workload": name, "chains": chains, "weight_bits": bits, "rates": found})
        figures = "  ".join(f"{isa} {row['updates_per_ns']:.3f}" for isa, row in found.items())
        print(f"{name:36}{chains:7}{bits:5}  {figures}  ({found[core.BEST_ISA]['kernel']})", flush=True)
    if arguments.json is not None:
        write(arguments.json, {**provenance(("glauber", "numpy")), "rows": rows})
        print(f"\nwritten: {arguments.json}")


if __name__ == "__main__":
    main()
