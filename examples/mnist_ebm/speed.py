"""Milliseconds a Gibbs sweep of Potts grids: the device beside THRML and a plain loop, in interleaved rounds.

Compiling is reported apart and never part of a rate. Every run starts from states of the model's law, others in each
round, and all samplers must end with the same mean energy: one that is misused would show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import glauber as gl
import matplotlib
import numpy as np
from glauber.errors import GlauberError
from numpy.typing import NDArray
from scipy.stats import ttest_rel

from examples.mnist_ebm.lattice import make_lattice
from examples.mnist_ebm.samplers import Contender, in_plain_python, on_device, on_thrml

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Weights = Literal["tied", "per edge", "tables"]
N_LEVELS = 4
WARMUP = 500
"""Sweeps of the device from random states to those that runs start from; random weights mix in a few."""
ALPHA = 1e-5
"""Chance of a false alarm in one comparison of energies."""
CASES: tuple[tuple[Weights, int, int], ...] = (
    *(("tied", side, chains) for side in (14, 28, 56) for chains in (1, 64)),
    ("tied", 28, 512),
    *(("per edge", 28, chains) for chains in (1, 64)),
    *(("tables", 28, chains) for chains in (1, 64)),
)
"""Weights, pixels along a side, chains."""
OTHERS = ("cupy://0",)
Report = Callable[[float, str], None]


@dataclass(frozen=True)
class Row:
    """One sampler on one case.

    Attributes:
        weights: "tied", +0.8 across and -0.4 down; "per edge", normal numbers; "tables", of 8 neighbours. All with
            normal fields per pixel and level.
        side: pixels along a side.
        n_chains: chains.
        sampler: its name.
        milliseconds: for a sweep of all chains by the wall clock, median over rounds.
        cpu_milliseconds: the same of processor time, which other processes on the machine disturb less.
        low: least milliseconds of a round.
        high: most.
        preparation_seconds: compiling or programming, before the first sweep.
        sweeps: of a round.
        p_value: of the difference of its mean energy from the first sampler's, paired by start, the units being chains
            and rounds; None for the first. With one chain there are few units, so that it sees gross differences only.
    """

    weights: str
    side: int
    n_chains: int
    sampler: str
    milliseconds: float
    cpu_milliseconds: float
    low: float
    high: float
    preparation_seconds: float
    sweeps: int
    p_value: float | None

    @property
    def agrees(self) -> bool:
        """Whether its energies are those of the first sampler."""
        return self.p_value is None or self.p_value >= ALPHA


@dataclass(frozen=True)
class Speed:
    """What was measured.

    Attributes:
        rows: case by case.
        left_out: why samplers are missing.
        rounds: of each case.
    """

    rows: list[Row]
    left_out: dict[str, str]
    rounds: int

    @property
    def disagreeing(self) -> list[Row]:
        """Samplers whose energies are others; there should be none."""
        return [row for row in self.rows if not row.agrees]

    def overtakes(self, sampler: str) -> list[str]:
        """The cases in which a sampler, such as "THRML", takes less time than the first one."""
        first = {(row.weights, row.side, row.n_chains): row for row in reversed(self.rows)}
        return [
            f"{row.weights}, {row.side} x {row.side}, {row.n_chains} chains"
            for row in self.rows
            if row.sampler.startswith(sampler)
            and row.milliseconds < first[row.weights, row.side, row.n_chains].milliseconds
        ]


def make_grid(weights: Weights, side: int, seed: int = 1) -> gl.PottsModel:
    """A grid of 4 levels with random fields and such weights."""
    draw = np.random.default_rng(seed)
    lattice = make_lattice(side, 8 if weights == "tables" else 4)
    n_edges = len(lattice.edges)
    fields = draw.normal(size=(lattice.n_sites, N_LEVELS))
    if weights == "tied":
        return gl.PottsModel(fields, lattice.edges, np.array([0.8, -0.4])[lattice.direction])
    if weights == "per edge":
        return gl.PottsModel(fields, lattice.edges, 0.5 * draw.normal(size=n_edges))
    return gl.PottsModel(fields, lattice.edges, 0.3 * draw.normal(size=(n_edges, N_LEVELS, N_LEVELS)))


def measure_speed(
    device: gl.Device,
    *,
    others: Sequence[str] = OTHERS,
    cases: Sequence[tuple[Weights, int, int]] = CASES,
    rounds: int = 5,
    seconds: float = 0.3,
    report: Report | None = None,
) -> Speed:
    """Interleaved rounds of all samplers on all cases.

    Args:
        device: the first sampler; it also makes the states that runs start from.
        others: addresses of further devices; one that does not open is left out, with the reason.
        cases: what to run.
        rounds: of each case.
        seconds: that a run is to take about.
        report: told how far it is.
    """
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    with ExitStack() as opened:
        devices = [device]
        for address in others:
            try:
                devices.append(opened.enter_context(gl.open_device(address)))
            except GlauberError as error:
                left_out[address] = str(error)
        for done, (weights, side, n_chains) in enumerate(cases):
            if report is not None:
                report(done / len(cases), f"{weights}, {side} x {side}, {n_chains} chains")
            model = make_grid(weights, side)
            contenders = _contenders(model, n_chains, devices, left_out)
            rows += _case(model, contenders, (weights, side, n_chains), device, rounds, seconds)
    if report is not None:
        report(1.0, "all samplers measured")
    return Speed(rows, left_out, rounds)


def _contenders(
    model: gl.PottsModel, n_chains: int, devices: Sequence[gl.Device], left_out: dict[str, str]
) -> list[Contender]:
    """All who can, the first device first; why others cannot goes into `left_out`."""
    found = [on_device(devices[0], model, n_chains)]
    for device in devices[1:]:
        try:
            found.append(on_device(device, model, n_chains))
        except GlauberError as error:
            left_out[device.address] = str(error)
    try:
        found.append(on_thrml(model, n_chains))
    except GlauberError as error:
        left_out["THRML"] = str(error)
    return [*found, in_plain_python(model)]


def _case(
    model: gl.PottsModel,
    contenders: list[Contender],
    case: tuple[Weights, int, int],
    device: gl.Device,
    rounds: int,
    seconds: float,
) -> list[Row]:
    weights, side, n_chains = case
    schedule = gl.SamplingSchedule(n_samples=1, n_chains=rounds * n_chains, n_warmup=WARMUP)
    starts = device.submit(model, schedule, observe="last", seed=1).result().last.reshape(rounds, n_chains, -1)
    sweeps = [_calibrated(one, starts[0], seconds) for one in contenders]
    wall, cpu, made = (np.zeros((len(contenders), rounds)) for _ in range(3))
    energies = np.zeros((len(contenders), rounds, n_chains))
    for turn in range(rounds):
        for k, one in enumerate(contenders):
            found = one.run(starts[turn], sweeps[k], 1000 * turn + k + 2)
            wall[k, turn], cpu[k, turn], made[k, turn] = found.seconds, found.cpu_seconds, found.sweeps
            energies[k, turn] = model.energies(found.states)
    rows = []
    for k, one in enumerate(contenders):
        each = 1e3 * wall[k] / made[k]
        p_value = None if k == 0 else float(ttest_rel(energies[k].ravel(), energies[0].ravel()).pvalue)
        median, processor = float(np.median(each)), float(np.median(1e3 * cpu[k] / made[k]))
        took = (median, processor, float(each.min()), float(each.max()), one.preparation, int(made[k, 0]))
        rows.append(Row(weights, side, n_chains, one.name, *took, p_value))
    return rows


def _calibrated(one: Contender, start: NDArray[Any], seconds: float) -> int:
    """Sweeps that take about so many seconds; one that takes longer runs two, so that each pixel forgets its start."""
    sweeps = 2
    while True:
        found = one.run(start, sweeps, 1)
        if found.seconds > seconds / 3 or found.sweeps > 1_000_000:
            return max(2, math.ceil(found.sweeps * seconds / found.seconds))
        sweeps = 4 * found.sweeps


def table(speed: Speed) -> str:
    """The results as a Markdown table, with each sampler's time over the first one's."""
    lines = [
        "| weights | grid | chains | sampler | ms a sweep (least to most) | of processor time | to the device's"
        " | preparation, s | energies agree, p |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    first: Row | None = None
    for row in speed.rows:
        if row.p_value is None:
            first = row
        assert first is not None  # every case begins with the device
        agreement = "" if row.p_value is None else f"{'yes' if row.agrees else 'NO'}, {row.p_value:.2g}"
        lines.append(
            f"| {row.weights} | {row.side} x {row.side} | {row.n_chains} | {row.sampler} | {row.milliseconds:.4g}"
            f" ({row.low:.4g} to {row.high:.4g}) | {row.cpu_milliseconds:.4g} |"
            f" {row.milliseconds / first.milliseconds:.3g} | {row.preparation_seconds:.2g} | {agreement} |"
        )
    return "\n".join(lines)


def draw_speed(path: Path, speed: Speed) -> None:
    """Time for one pixel of one chain against the pixels of all chains; a lower line is a faster sampler."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.4), layout="constrained", sharey=True)
    names = list(dict.fromkeys(row.sampler for row in speed.rows))
    for ax, weights in zip(axes, ("tied", "per edge", "tables"), strict=True):
        for number, name in enumerate(names):
            rows = [row for row in speed.rows if row.weights == weights and row.sampler == name]
            rows.sort(key=lambda row: row.side**2 * row.n_chains)
            sites = np.array([row.side**2 * row.n_chains for row in rows])
            for values, style in (("milliseconds", "-"), ("cpu_milliseconds", ":")):
                times = np.array([getattr(row, values) for row in rows])
                ax.plot(sites, 1e6 * times / sites, f"o{style}", color=f"C{number}", markersize=4)
            ax.plot([], [], "o-", color=f"C{number}", label=name)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_title(weights, fontsize=10)
        ax.set_xlabel("pixels x chains")
    axes[0].set_ylabel("ns for one update (dotted: processor time)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(names), fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
