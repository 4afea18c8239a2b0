"""Submit to result of a 64-spin, one-sweep job, beside dimod with dwave-samplers' annealer on the same problem.

    python -m benchmarks.job_overhead [--rounds 2000] [--json benchmarks/results/job_overhead.json]

The two take turns of 50 calls in one run, as a training loop would make them, so that a busy machine slows both alike
and each finds its own code in the caches. Each call of either makes a new random state of the same king's-graph problem
in one sweep. "cold" is glauber's first job of a graph it has not seen: colouring and compiling included.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import dimod
import glauber as gl
import numpy as np
from dwave.samplers import SimulatedAnnealingSampler
from glauber.topology import King

from benchmarks.machine import provenance, write

TURN = 50
"""Calls in a row."""


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p90 and p99 in microseconds."""
    p50, p90, p99 = np.percentile(np.array(seconds) * 1e6, (50, 90, 99)).tolist()
    return {"p50_us": p50, "p90_us": p90, "p99_us": p99}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.job_overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000, help="calls of each")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    rng = np.random.default_rng(1)
    edges = King(rows=8, cols=8).edges()
    couplings = rng.choice([-1.0, 1.0], len(edges))
    model = gl.IsingModel(np.zeros(64), edges, couplings)
    bqm = dimod.BinaryQuadraticModel.from_ising(
        {}, {(int(i), int(j)): -J for (i, j), J in zip(edges, couplings, strict=True)}
    )
    schedule = gl.SamplingSchedule(n_samples=1)
    peer = SimulatedAnnealingSampler()
    times: dict[str, list[float]] = {"glauber": [], "dwave-samplers": [], "glauber cold": []}
    with gl.open_device("sim://ideal?seed=1") as device:
        device.submit(model, schedule).result()
        peer.sample(bqm, num_reads=1, num_sweeps=1)
        for turn in range(0, arguments.rounds, TURN):
            for k in range(turn, turn + TURN):
                began = time.perf_counter()
                device.submit(model, schedule, seed=k).result()
                times["glauber"].append(time.perf_counter() - began)
            for k in range(turn, turn + TURN):
                began = time.perf_counter()
                peer.sample(bqm, num_reads=1, num_sweeps=1, seed=k)
                times["dwave-samplers"].append(time.perf_counter() - began)
            for k in range(3):  # a graph of its own: one edge less, another each time
                one = (turn // TURN * 3 + k) % len(edges)
                fresh = gl.IsingModel(np.zeros(64), np.delete(edges, one, axis=0), np.delete(couplings, one))
                began = time.perf_counter()
                device.submit(fresh, schedule, seed=k).result()
                times["glauber cold"].append(time.perf_counter() - began)
    result = {
        "what": "submit to result, 64 spins on a king's graph (210 edges), one sweep, one chain, in process",
        **provenance(("glauber", "dimod", "dwave-samplers", "numpy")),
        "rounds": arguments.rounds,
        "times": {name: percentiles(values) for name, values in times.items()},
    }
    print(f"{result['what']}\n{result['cpu']}, {result['cores']} cores, {result['date']}\n")
    print(f"{'':16}{'p50':>10}{'p90':>10}{'p99':>10}  microseconds")
    for name, values in times.items():
        row = percentiles(values)
        print(f"{name:16}{row['p50_us']:10.0f}{row['p90_us']:10.0f}{row['p99_us']:10.0f}")
    if arguments.json is not None:
        write(arguments.json, result)
        print(f"\nwritten: {arguments.json}")


if __name__ == "__main__":
    main()
