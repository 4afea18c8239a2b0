"""Jobs through a bad cable: `python -m benchmarks.soak [--jobs 10000] [--device firmware://host] [--processes 4]`.

Flips, drops and duplicates of 1e-3 per byte in total, in both directions, and links that break at random. A job is
right if its samples, last states and moments are those of sim://ideal, bit for bit; else it must end with a typed error
within its time limit. A wrong sample, another exception, or a job that hangs fails the run. Writes soak.json.
"""

from __future__ import annotations

import argparse
import collections
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import glauber as gl
import numpy as np
from glauber.testing import LinkFaults
from rich.progress import track

from benchmarks.machine import provenance, write

LIMIT_SECONDS = 60.0
"""A job that has not ended by then hangs."""
JOBS_A_DEVICE = 50
ERRORS_PER_BYTE = 1e-3
BREAKS_PER_BYTE = 2e-5

AnySchedule = gl.SamplingSchedule | gl.AnnealingSchedule


@dataclass
class Tally:
    """What became of jobs, what was done to them, and how long they took."""

    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: collections.Counter[str] = field(default_factory=collections.Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count another one in."""
        self.outcomes += other.outcomes
        self.faults += other.faults
        self.seconds += other.seconds
        self.wrong += other.wrong


def problem(rng: np.random.Generator) -> tuple[gl.IsingModel, AnySchedule, dict[str, Any]]:
    """A random small job."""
    n = int(rng.integers(2, 40))
    pairs = np.array([(i, j) for i in range(n) for j in range(i + 1, n)])
    edges = pairs[rng.random(len(pairs)) < min(1.0, 4 / n)]
    weights = rng.choice([-1.0, 1.0], len(edges)) if rng.random() < 0.5 else rng.normal(size=len(edges))
    model = gl.IsingModel(rng.normal(size=n) * (rng.random() < 0.5), edges.reshape(-1, 2), weights)
    chains = int(rng.choice([1, 3, 8, 40]))
    schedule: AnySchedule = gl.SamplingSchedule(
        n_samples=int(rng.integers(1, 40)),
        n_chains=chains,
        n_warmup=int(rng.integers(0, 30)),
        sweeps_per_sample=int(rng.integers(1, 4)),
        beta=float(rng.uniform(0.1, 2.0)),
    )
    if rng.random() < 0.2:
        schedule = gl.AnnealingSchedule(table=tuple(np.linspace(0.1, 3, int(rng.integers(2, 60)))), n_chains=chains)
    arguments: dict[str, Any] = {"observe": {"samples", "moments"} if rng.random() < 0.5 else {"samples"}}
    if rng.random() < 0.3:
        arguments["clamp"] = [(0, int(rng.choice([-1, 1])))]
    if rng.random() < 0.3:
        arguments["fields"] = rng.normal(size=(1, n))
    return model, schedule, arguments


def same(ours: gl.SampleSet, wanted: gl.SampleSet) -> bool:
    """Whether two results agree in every bit."""

    def arrays(result: gl.SampleSet) -> list[Any]:
        sums = result.moments
        return [result.packed, result.last, *(() if sums is None else (sums.sites, sums.edges))]

    pairs = zip(arrays(ours), arrays(wanted), strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


def one_job(device: gl.Device, simulator: gl.Device, rng: np.random.Generator, tally: Tally) -> None:
    """Run one job on both, and count what became of it."""
    model, schedule, arguments = problem(rng)
    seed = int(rng.integers(2**63))
    wanted = simulator.submit(model, schedule, seed=seed, **arguments).result(60)
    began = time.monotonic()
    try:
        result = device.submit(model, schedule, seed=seed, **arguments).result(LIMIT_SECONDS)
    except gl.errors.JobTimeoutError:
        tally.outcomes["hang"] += 1
        tally.wrong.append(f"seed {seed} hangs")
    except gl.errors.DeviceIOError as error:
        tally.outcomes[type(error).__name__] += 1
    except Exception as error:
        tally.outcomes["other exception"] += 1
        tally.wrong.append(f"seed {seed}: {error!r}")
    else:
        right = same(result, wanted)
        tally.outcomes["right" if right else "wrong"] += 1
        if not right:
            tally.wrong.append(f"seed {seed} is wrong")
    tally.seconds.append(time.monotonic() - began)


def some_jobs(address: str, jobs: int, seed: int) -> Tally:
    """Jobs on one device, opened through a bad cable."""
    rng, tally, third = np.random.default_rng(seed), Tally(), ERRORS_PER_BYTE / 3
    cable = LinkFaults(
        flips=third, drops=third, duplicates=third, disconnects=BREAKS_PER_BYTE, seed=int(rng.integers(2**31))
    )
    with gl.open_device("sim://ideal") as simulator:
        while True:
            try:
                device = gl.open_device(address, wrap=cable)
                break
            except gl.errors.DeviceIOError:
                tally.outcomes["devices that could not be opened at once"] += 1
        with device:
            for _ in range(jobs):
                one_job(device, simulator, rng, tally)
    tally.faults.update(vars(cable.counts))
    return tally


def soak(address: str, jobs: int, seed: int, processes: int) -> Tally:
    """Run so many jobs, several devices at a time: most of the time a job waits for what was lost."""
    parts = [min(JOBS_A_DEVICE, jobs - done) for done in range(0, jobs, JOBS_A_DEVICE)]
    tally = Tally()
    with ProcessPoolExecutor(processes) as pool:
        seeds = [1_000_000 * seed + k for k in range(len(parts))]
        results = pool.map(some_jobs, [address] * len(parts), parts, seeds)
        for part in track(results, description="soak", total=len(parts), transient=True):
            tally.add(part)
    return tally


def main() -> int:
    """Run, print, write; 1 if a job was wrong or hung."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--device", default="firmware://host")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="folder for soak.json; nothing is written without")
    options = parser.parse_args()
    tally = soak(options.device, options.jobs, options.seed, options.processes)
    quantiles = np.quantile(tally.seconds, [0.5, 0.99, 1.0])
    found = {
        "device": options.device,
        "jobs": options.jobs,
        "errors_per_byte": ERRORS_PER_BYTE,
        "breaks_per_byte": BREAKS_PER_BYTE,
        "limit_seconds": LIMIT_SECONDS,
        "outcomes": dict(tally.outcomes),
        "faults": dict(tally.faults),
        "seconds": dict(zip(("p50", "p99", "longest"), map(float, quantiles), strict=True)),
        "wrong": tally.wrong,
    }
    for name, value in found.items():
        print(f"{name}: {value}")
    if options.output is not None:
        write(options.output / "soak.json", {**provenance(("glauber", "numpy", "pyserial")), **found})
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
