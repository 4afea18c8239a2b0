"""glauber and its peers side by side, on one core, in one run: `make bench`.

    python -m benchmarks.samplers [--rounds 5] [--seconds 0.3] [--only W1 W2] [--output benchmarks/results]

For each workload every contender warms up (compiling and caches are not timed) and finds out how many sweeps take
`--seconds`. Then the rounds: glauber, peer, peer, ..., again and again, each from the same start states with a seed
drawn from the system at run time. Only sweeps are timed, by the peer's own clock where it has one. The final energies
are recounted here and compared with glauber's: a peer that was misused, at another temperature say, would show.
Writes samplers.json, samplers.md and samplers.png. Exits with 1 if energies disagree.
"""

from __future__ import annotations

import argparse
import importlib
import secrets
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import edge_free, glauber_sampler, starts
from benchmarks.contender import Contender, UnsuitedError
from benchmarks.machine import provenance, write
from benchmarks.one_core import pin
from benchmarks.peers import PEERS
from benchmarks.report import report_samplers
from benchmarks.rounds import Timing, best_peer, row
from benchmarks.workloads import WORKLOADS, Workload

PACKAGES = ("glauber", "numpy", "scipy", "numba", "dwave-samplers", "openjij", "thrml", "jax", "ferrotherm", "torch")


def load_peers() -> tuple[dict[str, Any], dict[str, str]]:
    """The peers' modules, and why others are missing."""
    found, missing = {}, {}
    for name in PEERS:
        try:
            found[name] = importlib.import_module(f"benchmarks.peers.{name}")
        except ImportError as error:
            missing[name] = str(error)
    return found, missing


def gather(workload: Workload, peers: dict[str, Any]) -> tuple[list[Contender], dict[str, str]]:
    """Everybody who runs a workload, glauber first, and why others do not."""
    contenders, left_out = glauber_sampler.contenders(workload), {}
    for name, module in peers.items():
        try:
            contenders += module.contenders(workload)
        except UnsuitedError as error:
            left_out[name] = str(error)
    return contenders, left_out


def calibrated(contender: Contender, start: Any, seconds: float) -> int:
    """Sweeps that take about so many seconds; the first, untimed run is also the warm-up.

    Some peers prepare the problem on the clock; what does not grow with sweeps is kept to a tenth of a run, unless that
    made it longer than ten times `seconds`.
    """
    contender.run(start, 1, 1)
    first, _ = contender.run(start, 1, 2)
    sweeps, taken = 1, first
    while (taken < seconds / 4 or taken < 2 * first) and sweeps < 10**7:
        sweeps = max(2 * sweeps, round(sweeps * min(16.0, seconds / 2 / max(taken, 1e-9))))
        taken, _ = contender.run(start, sweeps, 2)
    a_sweep = (taken - first) / (sweeps - 1) if sweeps > 1 else taken
    fixed = max(0.0, first - a_sweep)
    return max(1, round(min(max(seconds, 9 * fixed), 10 * seconds) / a_sweep))


def measure(
    workload: Workload, contenders: list[Contender], pool: Any, rounds: int, seconds: float, seeds: list[int]
) -> list[Timing]:
    """Interleaved rounds."""
    model, chains = workload.model, workload.chains
    timings = [Timing(one, calibrated(one, pool[:chains], seconds)) for one in contenders]
    draw = np.random.default_rng(1)
    for _ in range(rounds):
        start = pool[draw.permutation(len(pool))[:chains]]
        for timing in timings:
            seed = secrets.randbits(63)
            seeds.append(seed)
            taken, states = timing.contender.run(start, timing.sweeps, seed)
            timing.seconds.append(taken)
            timing.energies.append(model.energies(states) / model.n_sites)
    return timings


def result(workload: Workload, timings: list[Timing], left_out: dict[str, str]) -> dict[str, Any]:
    """A workload's part of the results; ratios are to glauber's first form."""
    per_sweep = workload.model.n_sites * workload.chains
    ours, peers = timings[0], [t for t in timings if t.contender.package != "glauber"]
    return {
        "key": workload.key,
        "title": workload.title,
        "n": workload.model.n_sites,
        "degree": round(workload.degree, 2),
        "couplings": workload.couplings,
        "beta": workload.beta,
        "chains": workload.chains,
        "start": workload.start,
        "best_peer": best_peer({t.contender.name: t.rates(per_sweep) for t in peers}),
        "contenders": [row(t, ours, per_sweep, version(t.contender.package)) for t in timings],
        "left_out": left_out,
    }


def main(arguments: Iterable[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.samplers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each timed run")
    parser.add_argument("--only", nargs="*", help="keys of workloads, such as W1")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--core", type=int, help="number of the core to run on (default: the last one)")
    options = parser.parse_args(None if arguments is None else list(arguments))
    core, began = pin(options.core), time.perf_counter()
    peers, missing = load_peers()
    for name, why in missing.items():
        print(f"MISSING {name}: {why}")
    seeds: list[int] = []
    results, wrong = [], []
    for workload in WORKLOADS:
        if options.only and workload.key not in options.only:
            continue
        contenders, left_out = gather(workload, peers)
        timings = measure(workload, contenders, starts.pool(workload), options.rounds, options.seconds, seeds)
        results.append(result(workload, timings, left_out))
        print(f"\n{workload.key}: {workload.title}, {workload.chains} chains")
        for line in results[-1]["contenders"]:
            checked = {None: "", True: "energies agree", False: "ENERGIES DISAGREE"}[line["energies_agree"]]
            print(
                f"  {line['name']:28}{line['updates_per_ns']:10.4f} updates/ns  glauber x"
                f"{line['glauber_is_faster']:<8.3g}{line['dynamics']:11}{checked}",
                flush=True,
            )
            if line["energies_agree"] is False:
                wrong.append(f"{workload.key}: {line['name']} (p = {line['energy_p_value']:.1e})")
    found = {
        **provenance(PACKAGES),
        "core": core,
        "rounds": options.rounds,
        "seconds_per_run": options.seconds,
        "minutes": 0.0,
        "missing": missing,
        "workloads": results,
        "edge_free": [] if options.only and "loose" not in options.only else edge_free.measure(options.rounds),
        "seeds": seeds,
    }
    found["minutes"] = round((time.perf_counter() - began) / 60, 1)
    write(options.output / "samplers.json", found)
    print(f"\nwritten: {', '.join(map(str, report_samplers(found, options.output)))}; {found['minutes']} minutes")
    for name in wrong:
        print(f"ENERGIES DISAGREE with {name}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
