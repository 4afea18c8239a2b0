"""Updates per nanosecond of each kernel on one core, by workload, kernel and instruction set.

    python -m benchmarks.kernels [--seconds 0.5] [--json benchmarks/results/kernels.json]

Rates are medians of runs of at least 50 ms with a run-time seed. Nothing is read back between sweeps, but in the last
two rows: there every sweep is added to the moments or kept as a sample.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import glauber as gl
import numpy as np
from glauber.compile import make_run
from glauber.request import Observable
from glauber_simulator import core

from benchmarks.glauber_sampler import net_of, program_of, session
from benchmarks.machine import provenance, write
from benchmarks.workloads import LOOSE, SPARSE_MAXCUT, WORKLOADS, Workload


def rate(
    model: Any,
    beta: float,
    chains: int,
    bits: int,
    isa: str,
    seconds: float,
    threads: int = 1,
    observe: Observable = "last",
) -> dict[str, Any]:
    """Kernel and updates per nanosecond; what is observed is taken after every sweep, unless it is the last state."""
    program = program_of(model, bits)
    schedule = gl.SamplingSchedule(n_samples=1, n_chains=chains, beta=beta)
    run = replace(make_run(program, schedule, seed=time.time_ns() % 2**63, observe={observe}), isa=isa, threads=threads)
    running = session(program, net_of(program), run, threads)
    sweep, sweeps = 1, 1
    rates: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(rates) < 3:
        start = time.perf_counter()
        running.advance(sweep, sweeps, 0 if observe == "last" else 1)
        elapsed = time.perf_counter() - start
        sweep += sweeps
        if elapsed < 0.05:
            sweeps *= 2
        else:
            rates.append(model.n_sites * chains * sweeps / elapsed / 1e9)
    return {"kernel": running.facts["kernel"], "updates_per_ns": float(np.median(rates))}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each figure")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    rows = []
    print(f"{'':36}{'chains':>7}{'bits':>5}  updates/ns by instruction set, one core")
    cases: list[tuple[Workload, int, Observable]] = [
        *((work, bits, "last") for work in (*WORKLOADS, SPARSE_MAXCUT, LOOSE) for bits in work.weight_bits),
        (WORKLOADS[0], 16, "moments"),
        (WORKLOADS[0], 16, "samples"),
    ]
    for work, bits, observe in cases:
        name, chains = f"{work.key.split(',')[0]} {work.title}", work.chains
        name += f", {observe}" * (observe != "last")
        found = {
            isa: rate(work.model, work.beta, chains, bits, isa, arguments.seconds, observe=observe)
            for isa in core.AVAILABLE_ISA
        }
        rows.append({"workload": name, "chains": chains, "weight_bits": bits, "rates": found})
        figures = "  ".join(f"{isa} {row['updates_per_ns']:.3f}" for isa, row in found.items())
        print(f"{name:36}{chains:7}{bits:5}  {figures}  ({found[core.BEST_ISA]['kernel']})", flush=True)
    if arguments.json is not None:
        write(arguments.json, {**provenance(("glauber", "numpy")), "rows": rows})
        print(f"\nwritten: {arguments.json}")


if __name__ == "__main__":
    main()
