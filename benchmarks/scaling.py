"""How the cost of an update grows with spins, degree, chains, levels of the field and threads: `make bench-scaling`.

    python -m benchmarks.scaling [--seconds 0.3] [--output benchmarks/results]

One thread on one core but for the last; 64 chains but for the third. Rates are those of `benchmarks.kernels`: medians
of runs of at least 50 ms with a run-time seed. Writes scaling.json, scaling.md and scaling.png.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import glauber as gl
import networkx as nx
import numpy as np
from glauber_simulator import core
from matplotlib import pyplot as plt

from benchmarks.kernels import rate
from benchmarks.machine import provenance, write
from benchmarks.report import COLOURS, MARKERS, machine_line
from benchmarks.workloads import dense, ferromagnet, glass, random_regular

CHAINS = 64
Case = tuple[str, str, int, Any, int, int]
"""(panel, series, x, model, chains, threads)"""


def with_levels(largest: int) -> gl.IsingModel:
    """10,000 spins of degree 6 with integer weights of up to +-largest: the field has 12 largest + 1 levels."""
    edges = np.array(nx.random_regular_graph(6, 10_000, seed=1).edges)
    rng = np.random.default_rng(1)
    weights = rng.integers(1, largest + 1, len(edges)) * rng.choice([-1.0, 1.0], len(edges))
    return gl.IsingModel(np.zeros(10_000), edges, weights)


def plus_minus(degree: int) -> gl.IsingModel:
    """2,000 spins with couplings +-1."""
    edges = np.array(nx.random_regular_graph(degree, 2000, seed=1).edges)
    return gl.IsingModel(np.zeros(2000), edges, np.random.default_rng(1).choice([-1.0, 1.0], len(edges)))


def cases(threads: int) -> Iterator[Case]:
    """Every point, panel by panel."""
    for side in (16, 32, 64, 128, 256, 512, 1024):
        yield "spins", "square lattice, +1", side**2, ferromagnet(side), CHAINS, 1
    for n in (100, 300, 1000, 3000, 10_000, 30_000, 100_000):
        yield "spins", "6-regular, Gaussian", n, random_regular(n), CHAINS, 1
    for n in (32, 100, 300, 1000, 2000):
        yield "spins", "dense, Gaussian", n, dense(n), CHAINS, 1
    for degree in (3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128):
        yield "degree", "n = 2,000, +-1", degree, plus_minus(degree), CHAINS, 1
        yield "degree", "n = 2,000, Gaussian", degree, random_regular(2000, degree), CHAINS, 1
    for chains in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024):
        yield "chains", "3-D +-1, 16^3", chains, glass(), chains, 1
        yield "chains", "6-regular, Gaussian, n = 2,000", chains, random_regular(2000), chains, 1
    for largest in (1, 2, 3, 5, 10, 20, 50, 100, 1000, 10_000):
        yield "levels", "6-regular, integers", 12 * largest + 1, with_levels(largest), CHAINS, 1
    for count in range(1, threads + 1):
        yield "threads", "square lattice, +1, 256^2", count, ferromagnet(), CHAINS, count
        yield "threads", "6-regular, Gaussian, n = 10,000", count, random_regular(), CHAINS, count
        yield "threads", "dense, Gaussian, n = 1,000", count, dense(1000), CHAINS, count


AXES = {
    "spins": "spins",
    "degree": "neighbours of a spin",
    "chains": "chains",
    "levels": "levels of the field",
    "threads": "threads",
}


def table(found: dict[str, Any]) -> str:
    """A line a point."""
    lines = ["# How the cost of an update grows", "", machine_line(found), f"`{found['command']}`", ""]
    for panel, label in AXES.items():
        lines += [
            f"| {label} | model | chains | kernel | updates/ns | ns a sweep of one chain |",
            "|---|---|---|---|---|---|",
        ]
        for point in found["points"]:
            if point["panel"] == panel:
                sweep = point["n"] / point["updates_per_ns"]
                lines.append(
                    f"| {point['x']:,} | {point['series']} | {point['chains']} | {point['kernel']} |"
                    f" {point['updates_per_ns']:.3g} | {sweep:,.0f} |"
                )
        lines.append("")
    return "\n".join(lines)


def plot(found: dict[str, Any], path: Path) -> None:
    """A panel for each axis; another mark where another kernel takes over."""
    figure, panels = plt.subplots(2, 3, figsize=(13, 7.5), layout="constrained", sharey=True)
    kernels = list(dict.fromkeys(point["kernel"] for point in found["points"]))
    for axes, (panel, label) in zip(panels.ravel(), AXES.items(), strict=False):
        points = [point for point in found["points"] if point["panel"] == panel]
        for k, name in enumerate(dict.fromkeys(point["series"] for point in points)):
            own = [point for point in points if point["series"] == name]
            x, y = [point["x"] for point in own], [point["updates_per_ns"] for point in own]
            axes.plot(x, y, color=COLOURS[k], lw=1.2, label=name)
            for point in own:
                marker = MARKERS[kernels.index(point["kernel"]) % len(MARKERS)]
                axes.plot(point["x"], point["updates_per_ns"], marker, color=COLOURS[k], ms=5)
        axes.set_xlabel(label)
        axes.set_ylabel("updates/ns")
        axes.set_yscale("log")
        axes.set_yticks([0.05, 0.1, 0.2, 0.5, 1, 2, 5], ["0.05", "0.1", "0.2", "0.5", "1", "2", "5"])
        if panel == "threads":
            axes.set_xticks(sorted({point["x"] for point in points}))
        else:
            axes.set_xscale("log")
        axes.grid(which="major", color="0.9")
        axes.legend(frameon=False, fontsize=8)
    legend = panels.ravel()[-1]
    legend.axis("off")
    for k, kernel in enumerate(kernels):
        legend.plot([], [], MARKERS[k % len(MARKERS)], color="0.3", label=kernel)
    legend.legend(title="kernel", loc="center", frameon=False)
    figure.suptitle(f"{found['cpu']}, {found['isa']}, {found['date'][:10]}; one core but for threads", fontsize=10)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each point")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    allowed = os.sched_getaffinity(0)
    points = []
    for panel, series, x, model, chains, threads in cases(len(allowed)):
        os.sched_setaffinity(0, {max(allowed)} if threads == 1 else allowed)
        measured = rate(model, 1.0, chains, 16, core.BEST_ISA, options.seconds, threads)
        points.append(
            {
                "panel": panel,
                "series": series,
                "x": x,
                "n": model.n_sites,
                "chains": chains,
                "threads": threads,
                **measured,
            }
        )
        print(
            f"{panel:8}{series:32}{x:10,}  {measured['updates_per_ns']:.3f} updates/ns ({measured['kernel']})",
            flush=True,
        )
    os.sched_setaffinity(0, allowed)
    found = {**provenance(("glauber", "numpy")), "isa": core.BEST_ISA, "points": points}
    write(options.output / "scaling.json", found)
    (options.output / "scaling.md").write_text(table(found))
    plot(found, options.output / "scaling.png")
    print(f"\nwritten: scaling.json, scaling.md and scaling.png in {options.output}")


if __name__ == "__main__":
    main()
