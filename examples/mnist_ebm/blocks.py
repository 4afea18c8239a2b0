"""Which pixels are updated together: colourings, their check and picture, and what the choice does to mixing.

A device updates colour after colour, and takes the colours from the model's graph: two where it has no odd cycle, else
greedily, the sites of most neighbours first. Couplings of 0 change no probability but belong to the graph, so a grid of
4 neighbours with diagonals of 0 is updated in four blocks, with the law that it has in two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from glauber.compile.order import colours_of
from glauber.errors import InvalidModelError
from glauber.model import PottsModel
from glauber.schedule import SamplingSchedule
from glauber.torch import Sampler
from numpy.typing import NDArray

from examples.mnist_ebm.convergence import AutocorrelationTime, Report, autocorrelation_time
from examples.mnist_ebm.lattice import Lattice, fast_energies, make_lattice

matplotlib.use("Agg")
import matplotlib.pyplot as plt

N_PIXELS = 3
"""Pixels that are followed one by one: those that vary most."""


def colouring(side: int, n_colours: int) -> NDArray[np.int64]:
    """The colour of each pixel, (n_sites,): 2, a chessboard, which 4 neighbours need; or 4, squares of 2 x 2.

    Raises:
        InvalidModelError: another number of colours.
    """
    row, column = np.divmod(np.arange(side**2), side)
    if n_colours == 2:
        return np.asarray((row + column) % 2)
    if n_colours == 4:
        return np.asarray(2 * (row % 2) + column % 2)
    raise InvalidModelError(f"there are colourings of 2 and of 4 blocks, not of {n_colours!r}")


def check_colouring(lattice: Lattice, colour: NDArray[np.integer[Any]]) -> None:
    """Refuse blocks that cannot be updated at once.

    Raises:
        InvalidModelError: a pixel has no colour, or two of one colour interact; they are named.
    """
    if colour.shape != (lattice.n_sites,):
        raise InvalidModelError(f"a colouring has one colour a pixel, shape {(lattice.n_sites,)}, not {colour.shape}")
    inner = np.flatnonzero(colour[lattice.edges[:, 0]] == colour[lattice.edges[:, 1]])
    if len(inner):
        i, j = lattice.edges[inner[0]].tolist()
        (a, b), (c, d) = divmod(i, lattice.side), divmod(j, lattice.side)
        raise InvalidModelError(
            f"{len(inner)} edges lie within a block, such as that of pixel ({a}, {b}) and pixel ({c}, {d}), both of"
            f" colour {int(colour[i])}: they would be updated at once, each from the other's old level; take another"
            f" colouring, such as colouring({lattice.side}, 4)"
        )


def device_colouring(model: PottsModel) -> NDArray[np.int64]:
    """The colours in whose order a device updates a model's sites."""
    return np.asarray(colours_of(model.n_sites, model.edges), dtype=np.int64)


def in_four_blocks(model: PottsModel, lattice: Lattice) -> PottsModel:
    """A grid of 4 neighbours with diagonals of coupling 0: the same law, updated in four blocks."""
    whole = make_lattice(lattice.side, 8)
    diagonal = whole.edges[whole.direction >= 2]
    couplings = model.couplings if model.couplings.ndim != 2 else model.edge_tables()
    nothing = np.zeros((len(diagonal), *couplings.shape[1:]))
    edges = np.concatenate([model.edges, diagonal])
    return PottsModel(model.fields, edges, np.concatenate([couplings, nothing]), model.allowed, model.offset)


@dataclass(frozen=True)
class ColouringEffect:
    """What two and four blocks do to the mixing of one model.

    Attributes:
        blocks: pixels in each block, by number of blocks.
        times: tau_int by number of blocks and observable: "energy", "share of level 0", and levels of the pixels that
            vary most.
        n_chains: chains.
        n_samples: states of each, a sweep apart.
    """

    blocks: dict[str, list[int]]
    times: dict[str, dict[str, AutocorrelationTime]]
    n_chains: int
    n_samples: int

    def z(self, observable: str) -> float:
        """The difference of the two means in standard errors: both samplers have one law."""
        two, four = self.times["2"][observable], self.times["4"][observable]
        return (two.mean - four.mean) / float(np.hypot(two.mean_error, four.mean_error))


def colouring_effect(
    model: PottsModel,
    lattice: Lattice,
    sampler: Sampler,
    *,
    n_chains: int = 64,
    n_samples: int = 2000,
    n_warmup: int = 2000,
    report: Report | None = None,
) -> ColouringEffect:
    """Sample a grid of 4 neighbours on the device in two and in four blocks, and compare.

    Raises:
        InvalidModelError: a grid of 8 neighbours, which two blocks cannot sample.
    """
    if lattice.neighbours != 4:
        raise InvalidModelError("a grid of 8 neighbours needs four blocks, so there is nothing to compare")
    schedule = SamplingSchedule(n_samples=n_samples, n_chains=n_chains, n_warmup=n_warmup)
    blocks, times = {}, {}
    pixels: NDArray[np.intp] | None = None
    for done, (name, form) in enumerate((("2", model), ("4", in_four_blocks(model, lattice)))):
        if report is not None:
            report(done / 2, f"sampling in {name} blocks")
        colour = device_colouring(form)
        check_colouring(lattice, colour)
        blocks[name] = np.bincount(colour).tolist()
        states = sampler.run(form, schedule, on_overflow="scale").states
        if pixels is None:
            pixels = np.argsort(states[:, -1].var(axis=0))[::-1][:N_PIXELS]
        series: dict[str, NDArray[Any]] = {
            "energy": fast_energies(form, states),
            "share of level 0": (states == 0).mean(axis=2),
        }
        for site in pixels.tolist():
            series["level of pixel ({}, {})".format(*divmod(site, lattice.side))] = states[:, :, site]
        times[name] = {observable: autocorrelation_time(values) for observable, values in series.items()}
    if report is not None:
        report(1.0, "both sampled")
    return ColouringEffect(blocks, times, n_chains, n_samples)


def block_updates(
    model: PottsModel, colour: NDArray[np.integer[Any]], sampler: Sampler, n_sweeps: int
) -> NDArray[np.int64]:
    """One chain from noise, looked at after each block: while the device sweeps, the others' pixels are held.

    Returns:
        States (n_sweeps * n_colours + 1, n_sites), the first random.
    """
    n_colours = int(colour.max()) + 1
    schedule = SamplingSchedule(n_samples=1, n_chains=1)
    noise = PottsModel(np.zeros_like(model.fields), np.empty((0, 2), dtype=np.int64), np.empty(0))
    states = [sampler.run(noise, schedule, observe="last").last[0].astype(np.int64)]
    for update in range(n_sweeps * n_colours):
        free = colour == update % n_colours
        held = np.where(free, -1, states[-1])
        found = sampler.run(model, schedule, clamp=held, initial=states[-1], on_overflow="scale", observe="last")
        states.append(found.last[0].astype(np.int64))
    return np.stack(states)


def draw_updates(path: Path, states: NDArray[np.integer[Any]], n_colours: int, n_levels: int) -> None:
    """A chain after each block update, pixels that it changed in red; states as of block_updates."""
    side = round(states.shape[1] ** 0.5)
    figure, axes = plt.subplots(1, len(states), figsize=(1.9 * len(states), 2.4), layout="constrained")
    for number, (ax, after) in enumerate(zip(axes, states, strict=True)):
        picture = np.repeat(after[:, None] / (n_levels - 1), 3, axis=1)
        if number:
            changed = after != states[number - 1]
            picture[changed] = 0.6 * np.array([1.0, 0.2, 0.1]) + 0.4 * picture[changed]
            sweep, block = divmod(number - 1, n_colours)
            ax.set_title(f"sweep {sweep + 1}, block {block + 1}:\n{int(changed.sum())} pixels change", fontsize=8)
        else:
            ax.set_title("noise", fontsize=8)
        ax.imshow(picture.reshape(side, side, 3))
        ax.set_xticks([])
        ax.set_yticks([])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_colourings(path: Path, colourings: Mapping[str, NDArray[np.integer[Any]]]) -> None:
    """Pictures of colourings by name, side by side."""
    figure, axes = plt.subplots(1, len(colourings), figsize=(4.2 * len(colourings), 4.5), layout="constrained")
    for ax, (name, colour) in zip(np.atleast_1d(axes), colourings.items(), strict=True):
        side = round(len(colour) ** 0.5)
        sizes = np.bincount(colour)
        ax.imshow(colour.reshape(side, side), cmap=plt.get_cmap("tab10"), vmin=-0.5, vmax=9.5)
        ax.set_title(f"{name}: {' + '.join(map(str, sizes.tolist()))} pixels", fontsize=10)
        ax.set_xticks([])
        ax.set_yticks([])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_effect(path: Path, effect: ColouringEffect) -> None:
    """tau_int of each observable in two and in four blocks."""
    names = list(effect.times["2"])
    figure, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for shift, blocks in ((-0.2, "2"), (0.2, "4")):
        times = [effect.times[blocks][name] for name in names]
        ax.bar(
            np.arange(len(names)) + shift,
            [time.sweeps for time in times],
            0.38,
            yerr=[2 * time.standard_error for time in times],
            capsize=3,
            label=f"{blocks} blocks",
        )
    ax.set_xticks(range(len(names)), names, fontsize=8)
    ax.set_ylabel("tau_int [sweeps]")
    ax.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
