"""W7: `glauber.solve` and the peers' annealers at equal time on one core: `make bench-solve`.

    python -m benchmarks.solvers [--seconds 20] [--seeds 10] [--peer-seeds 10] [--gset FOLDER] [--only G22 SK]

Every solver gets the same wall-clock seconds for each seed and stops when it reaches the target; glauber has ten seeds,
the peers may have fewer. Peers anneal again
and again with their own default temperatures, 100 sweeps at first and twice as many each time up to 6,400; the first
conversion of the problem is not counted against them. Energies are recounted from the problem. Where no target is
known, the best value that anybody found in this run stands for it, and every seed runs its full time. They take turns.
Writes solvers.json, solvers.md and solvers.png.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import glauber as gl
import numpy as np

from benchmarks.instances import Problem, gset, made
from benchmarks.machine import provenance, write
from benchmarks.one_core import pin
from benchmarks.solver_report import report_solvers

FIRST_SWEEPS, MOST_SWEEPS = 100, 6400
READ_SECONDS = 0.1
"""A call of a peer makes as many reads as fit into about this time, so that it can stop soon after a hit."""


@dataclass(frozen=True)
class Attempt:
    """One solver, one seed.

    Attributes:
        energy: the best found, recounted.
        seconds: used.
        seconds_to_target: None if it was not reached.
    """

    energy: float
    seconds: float
    seconds_to_target: float | None


Solve = Callable[[float | None, float, int], Attempt]
"""(target, seconds, seed) -> what came of it."""


def glauber_solver(model: gl.IsingModel) -> Solve:
    """`gl.solve` as a user calls it."""

    def solve(target: float | None, seconds: float, seed: int) -> Attempt:
        found = gl.solve(model, device="sim://ideal", budget=gl.Budget(seconds=seconds), target=target, seed=seed)
        energy = float(model.energies(found.spins))
        return Attempt(energy, found.seconds, found.seconds_to_target)

    return solve


def annealer(model: gl.IsingModel, anneal: Callable[[int, int, int], Any]) -> Solve:
    """A peer's annealer with restarts, on the clock."""

    def solve(target: float | None, seconds: float, seed: int) -> Attempt:
        began, best, sweeps, reads, calls = time.perf_counter(), np.inf, FIRST_SWEEPS, 1, 0
        while True:
            now = time.perf_counter()
            best = min(best, float(model.energies(anneal(reads, sweeps, seed * 1_000_003 + calls)).min()))
            calls += 1
            used = time.perf_counter() - began
            if target is not None and best <= target:
                return Attempt(best, used, used)
            a_read = (time.perf_counter() - now) / reads
            sweeps, a_read = (2 * sweeps, 2 * a_read) if sweeps < MOST_SWEEPS else (sweeps, a_read)
            if used + a_read > seconds:
                return Attempt(best, used, None)
            reads = max(1, int(min(READ_SECONDS, seconds - used) / a_read))

    return solve


def solvers(model: gl.IsingModel) -> tuple[dict[str, Solve], dict[str, str]]:
    """Our own and the peers', and who is missing."""
    found, missing = {"glauber": glauber_solver(model)}, {}
    for name in ("dwave_peer", "openjij_peer"):
        try:
            peer = importlib.import_module(f"benchmarks.peers.{name}").Solver(model)
        except ImportError as error:
            missing[name] = str(error)
            continue
        found[peer.name] = annealer(model, peer.anneal)
    return found, missing


def summary(attempts: list[Attempt], target: float) -> dict[str, Any]:
    """Mean, best, hits of a target, and the times of those that hit."""
    energies = [one.energy for one in attempts]
    times = [one.seconds_to_target for one in attempts if one.seconds_to_target is not None]
    return {
        "best": min(energies),
        "mean": float(np.mean(energies)),
        "hits": sum(energy <= target for energy in energies),
        "median_seconds_to_target": float(np.median(times)) if times else None,
        "attempts": [asdict(one) for one in attempts],
    }


def solved(problem: Problem, seconds: float, seeds: int, peer_seeds: int) -> tuple[dict[str, Any], dict[str, str]]:
    """A problem's part of the results."""
    ways, missing = solvers(problem.model)
    attempts: dict[str, list[Attempt]] = {name: [] for name in ways}
    for seed in range(1, seeds + 1):
        for name, solve in ways.items():
            if name == "glauber" or seed <= peer_seeds:
                attempts[name].append(solve(problem.target, seconds, seed))
    best = min(one.energy for tries in attempts.values() for one in tries)
    # of real weights the same state may be recounted in another order
    target = problem.target if problem.target is not None else best + 1e-9 * abs(best)
    rows = {name: summary(tries, target) for name, tries in attempts.items()}
    print(f"\n{problem.name}, target {target:.10g} ({problem.source})")
    for name, row in rows.items():
        when = row["median_seconds_to_target"]
        print(
            f"  {name:20} best {row['best']:.10g}  mean {row['mean']:.10g}  hits {row['hits']}/{len(row['attempts'])}"
            f"{'' if when is None else f'  median {when:.3g} s'}",
            flush=True,
        )
    found = {
        "name": problem.name,
        "n": problem.model.n_sites,
        "edges": problem.model.n_edges,
        "target": target,
        "source": problem.source,
        "solvers": rows,
    }
    return found, missing


def main() -> None:
    """Solve, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solvers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each solver, problem and seed")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--peer-seeds", type=int, default=10, help="fewer for the peers, to save time")
    parser.add_argument("--gset", type=Path, help="folder of Gset files (default: GLAUBER_GSET)")
    parser.add_argument("--only", nargs="*", help="beginnings of problem names, such as G22 SK")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--core", type=int, help="number of the core to run on (default: the last one)")
    options = parser.parse_args()
    core, began = pin(options.core), time.perf_counter()
    folder = options.gset or (Path(os.environ["GLAUBER_GSET"]) if "GLAUBER_GSET" in os.environ else None)
    if folder is None:
        print("no Gset files: give their folder by --gset or in GLAUBER_GSET; only generated problems are solved")
    results, missing = [], {}
    for problem in (*gset(folder), *made()):
        if options.only and not any(problem.name.split(" ")[0] == one for one in options.only):
            continue
        found, absent = solved(problem, options.seconds, options.seeds, options.peer_seeds)
        results.append(found)
        missing.update(absent)
    found = {
        **provenance(("glauber", "numpy", "dwave-samplers", "openjij")),
        "core": core,
        "seconds": options.seconds,
        "seeds": options.seeds,
        "peer_seeds": min(options.seeds, options.peer_seeds),
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "missing": missing,
        "problems": results,
    }
    write(options.output / "solvers.json", found)
    print(f"\nwritten: {', '.join(map(str, report_solvers(found, options.output)))}; {found['minutes']} minutes")


if __name__ == "__main__":
    main()
