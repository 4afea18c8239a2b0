"""One device beside a pool of workers: `python -m benchmarks.pool [--output benchmarks/results]`.

Each workload runs as sim://ideal in this process on one thread, and as dask:// on one and on two local workers of one
thread each, in turns, in one run; the results must be the same bits. A ratio is the median of the rounds' ratios. Then
what a batch costs beside its sweeps, and whether moments come faster joined by a tree of tasks or one by one.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import distributed
import glauber as gl
import numpy as np
from glauber_drivers.pool_local import local_pool

from benchmarks.machine import provenance, write

ROUNDS = 3
PLACES = ("sim://ideal, 1 thread", "dask://, 1 worker", "dask://, 2 workers")


def torus(side: int) -> gl.IsingModel:
    """+-J on a square lattice that closes on itself."""
    at = np.arange(side * side).reshape(side, side)
    edges = np.concatenate([np.stack([at.ravel(), np.roll(at, 1, axis).ravel()], axis=1) for axis in (0, 1)])
    return gl.IsingModel(np.zeros(side * side), edges, np.random.default_rng(1).choice([-1.0, 1.0], len(edges)))


def dense(n: int) -> gl.IsingModel:
    """All pairs, eight-bit couplings."""
    edges = np.stack(np.triu_indices(n, 1), axis=1)
    couplings = np.random.default_rng(2).integers(-127, 128, len(edges)) / 127
    return gl.IsingModel(np.zeros(n), edges, couplings / np.sqrt(n))


def workloads() -> dict[str, tuple[gl.IsingModel, Any, set[Any]]]:
    """Model, schedule and what is returned, a few seconds each on one core."""
    sampling, ladder = gl.SamplingSchedule, np.geomspace(0.1, 1.5, 16).tolist()
    square = torus(64)
    return {
        "torus 64x64, 1,024 chains, last state": (
            square,
            sampling(n_samples=1, n_chains=1024, n_warmup=3000, beta=0.8),
            {"last"},
        ),
        "torus 64x64, 1,024 chains, moments each 100 sweeps": (
            square,
            sampling(n_samples=30, n_chains=1024, sweeps_per_sample=100, beta=0.8),
            {"moments", "last"},
        ),
        "torus 64x64, 1,024 chains, a sample each 10 sweeps": (
            square,
            sampling(n_samples=300, n_chains=1024, sweeps_per_sample=10, beta=0.8),
            {"samples"},
        ),
        "torus 64x64, 1,024 chains, each sweep a sample": (
            square,
            sampling(n_samples=600, n_chains=1024, beta=0.8),
            {"samples"},
        ),
        "torus 64x64, 2 chains, last state": (
            square,
            sampling(n_samples=1, n_chains=2, n_warmup=1_500_000, beta=0.8),
            {"last"},
        ),
        "dense 512, 128 chains, last state": (
            dense(512),
            sampling(n_samples=1, n_chains=128, n_warmup=7000, beta=0.8),
            {"last"},
        ),
        "tempering 64x64, 16 temperatures x 16": (
            square,
            gl.TemperingSchedule(betas=ladder, n_ladders=16, n_samples=1, n_warmup=600),
            {"last"},
        ),
        "ring of 64, 64 chains, 1 sweep": (
            gl.IsingModel.from_edges([(i, (i + 1) % 64, 1.0) for i in range(64)]),
            sampling(n_samples=1, n_chains=64),
            {"last"},
        ),
    }


def measure(devices: list[gl.Device], model: gl.IsingModel, schedule: Any, observe: set[Any]) -> dict[str, Any]:
    """Seconds at each place and the ratios to the first, after one round that is not counted."""
    rounds = []
    for turn in range(ROUNDS + 1):
        seconds, results = [], []
        for device in devices:
            arguments: dict[str, Any] = {"seed": turn, "observe": observe, "threads": 1}
            began = time.perf_counter()
            found = device.submit(model, schedule, **arguments).result()
            took = time.perf_counter() - began
            seconds.append(took)
            results.append(found)
        for other in results[1:]:
            np.testing.assert_array_equal(other.last_packed, results[0].last_packed)
            if observe == {"samples"}:
                np.testing.assert_array_equal(other.packed, results[0].packed)
        if turn:
            rounds.append(seconds)
    table = np.array(rounds)
    return {
        "seconds": np.median(table, axis=0).tolist(),
        "speed": np.median(table[:, :1] / table, axis=0).tolist(),
        "rounds": table.tolist(),
    }


def zeros(n_bytes: int, number: int) -> Any:
    """Moments of a share, as a worker holds them; `number` keeps tasks apart."""
    return np.full((32, n_bytes // 256), number, dtype=np.int64)


def joined(a: Any, b: Any) -> Any:
    """Two neighbours as one."""
    return np.concatenate([a, b])


def trees(scheduler: str, parts: int, n_bytes: int) -> dict[str, Any]:
    """Seconds to have the moments of all parts here: one by one, and joined on the workers by pairs."""
    plain, tree = [], []
    connect: Any = distributed.Client
    with connect(scheduler, set_as_default=False) as client:
        for turn in range(2 * ROUNDS + 2):
            held = [client.submit(zeros, n_bytes, k, pure=False) for k in range(parts)]
            for each in held:
                each.result()
            began = time.perf_counter()
            if turn % 2:
                np.concatenate(client.gather(held))
                plain.append(time.perf_counter() - began)
                continue
            while len(held) > 1:
                held = [client.submit(joined, *held[k : k + 2], pure=False) for k in range(0, len(held), 2)]
            held[0].result()
            tree.append(time.perf_counter() - began)
    return {
        "parts": parts,
        "bytes_each": n_bytes,
        "one by one": float(np.median(plain[1:])),
        "tree": float(np.median(tree[1:])),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pool", description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for pool.json and pool.md; nothing is written without")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        devices = [stack.enter_context(gl.open_device("sim://ideal"))]
        scheduler = ""
        for workers in (1, 2):
            pool = stack.enter_context(local_pool(workers, 1, 0, dashboard=False))
            scheduler = pool.address.removeprefix("dask://").partition("?")[0]
            devices.append(stack.enter_context(gl.open_device(pool.address)))
        for name, (model, schedule, observe) in workloads().items():
            rows.append({"workload": name, **measure(devices, model, schedule, observe)})
            print(rows[-1], flush=True)
        moments = [trees(scheduler, 8, n_bytes) for n_bytes in (1 << 16, 1 << 23)]
    lines = [f"| workload | {' | '.join(f'{place}, s' for place in PLACES)} | speed, 1 worker | 2 workers |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        cells = [f"{seconds:.3g}" for seconds in row["seconds"]] + [f"{speed:.2f}" for speed in row["speed"][1:]]
        lines.append(f"| {row['workload']} | {' | '.join(cells)} |")
    lines += ["", "| moments of 8 shares on 2 workers | one by one, ms | joined by a tree, ms |", "|---|---|---|"]
    for found in moments:
        each = f"{found['bytes_each'] / 2**20:g} MiB each"
        lines.append(f"| {each} | {1e3 * found['one by one']:.3g} | {1e3 * found['tree']:.3g} |")
    print("\n".join(lines))
    if options.output is not None:
        head = provenance(("glauber", "numpy", "dask", "distributed"))
        write(
            options.output / "pool.json",
            {**head, "places": PLACES, "n_rounds": ROUNDS, "rows": rows, "moments": moments},
        )
        first = f"{head['cpu']}, {head['cores']} cores (shared), {head['date'][:10]}, `{head['command']}`"
        (options.output / "pool.md").write_text(f"{first}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
