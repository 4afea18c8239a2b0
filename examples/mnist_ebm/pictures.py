"""Pictures of samples, of chains on their way downhill: from arrays, whatever the model."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import matplotlib.colors
import numpy as np
from glauber.errors import InvalidModelError
from numpy.typing import NDArray
from PIL import Image

from examples.mnist_ebm.data import Images

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

Floats = NDArray[np.float64]

FRAMES = 60
"""Of an animation, at most."""
GIF_BYTES = 1_000_000
"""Size of an animation, at most: it loses frames until it is smaller."""
FRAME_MS = 80
LAST_FRAME_MS = 2000
CELLS = 40
"""Of the heat map, along each axis."""


def tiles(images: Images, columns: int, n_levels: int) -> Floats:
    """Images (n, side, side) in rows of so many, as brightness 0 to 1, with frames; the last row may be short."""
    n, side = len(images), images.shape[1]
    rows = -(-n // columns)
    framed = np.full((rows * columns, side + 2, side + 2), 0.35)
    framed[:n, 1:-1, 1:-1] = images / (n_levels - 1)
    framed = framed.reshape(rows, columns, side + 2, side + 2).transpose(0, 2, 1, 3)
    return framed.reshape(rows * (side + 2), columns * (side + 2))


def draw_samples(path: Path, rows: Mapping[str, Images], n_levels: int, title: str = "") -> None:
    """Rows of images, each with its name at the left: models, or digits (see by_digit).

    Raises:
        InvalidModelError: no row, or rows of different lengths.
    """
    if not rows or len({len(images) for images in rows.values()}) != 1:
        raise InvalidModelError("a grid needs rows, all of the same number of images: cut them to the shortest")
    every = np.concatenate(list(rows.values()))
    columns, side = len(every) // len(rows), every.shape[1]
    figure, ax = plt.subplots(figsize=(0.55 * columns + 1.2, 0.55 * len(rows) + 0.4), layout="constrained")
    ax.imshow(tiles(every, columns, n_levels), cmap="gray", vmin=0, vmax=1)
    ax.set_xticks([])
    ax.set_yticks((side + 2) * (np.arange(len(rows)) + 0.5), list(rows), fontsize=9)
    ax.tick_params(length=0)
    if title:
        ax.set_title(title, fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def by_digit(images: Images, labels: NDArray[np.integer], columns: int = 12) -> dict[str, Images]:
    """The first images of each digit, as rows of draw_samples; a digit with too few is left out."""
    found = {str(digit): images[labels == digit][:columns] for digit in range(10)}
    return {name: some for name, some in found.items() if len(some) == columns}


# Landscape


def principal_plane(real: Images) -> tuple[Floats, Floats, float]:
    """The two axes along which real images vary most.

    Returns:
        Mean image (side^2,), axes (2, side^2), and the share of the variance that they hold.
    """
    flat = real.reshape(len(real), -1).astype(np.float64)
    mean = flat.mean(0)
    _, values, axes = np.linalg.svd(flat - mean, full_matrices=False)
    return mean, axes[:2], float((values[:2] ** 2).sum() / (values**2).sum())


def draw_landscape(
    path: Path,
    real: Images,
    real_energies: Floats,
    chains: Images,
    energies: Floats,
    unit: str = "nats",
    shown: int = 3,
) -> None:
    """Chains on the plane of the real images' principal components, over the mean energy of the states seen there.

    The plane holds a small share of the variance (in the title), and the energy at a point of it is that of the images
    that happen to be projected there: real ones and the chains' states. Cells without any stay white.

    Args:
        path: of the picture.
        real: images (n, side, side).
        real_energies: of them (n,).
        chains: states (n_frames, n, side, side).
        energies: of them (n_frames, n).
        unit: of the energy.
        shown: chains drawn as lines.

    Raises:
        InvalidModelError: energies of other shapes.
    """
    if real_energies.shape != real.shape[:1] or energies.shape != chains.shape[:2]:
        raise InvalidModelError(
            f"energies must have the shapes {real.shape[:1]} and {chains.shape[:2]}, one each image, not"
            f" {real_energies.shape} and {energies.shape}"
        )
    mean, axes, share = principal_plane(real)
    seen = np.concatenate([real.reshape(len(real), -1), chains.reshape(-1, real[0].size)])
    x, y = ((seen - mean) @ axes.T).T
    weights = np.concatenate([real_energies, energies.ravel()])
    counts, x_edges, y_edges = np.histogram2d(x, y, CELLS)
    sums, _, _ = np.histogram2d(x, y, [x_edges, y_edges], weights=weights)
    heat = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    figure, ax = plt.subplots(figsize=(7.5, 6), layout="constrained")
    mesh = ax.pcolormesh(x_edges, y_edges, heat.T, cmap="viridis", rasterized=True)
    figure.colorbar(mesh, label=f"mean energy in {unit}")
    ax.scatter(x[: len(real)], y[: len(real)], s=2, color="white", alpha=0.5, label="real images")
    paths = ((chains.reshape(*chains.shape[:2], -1) - mean) @ axes.T)[:, :shown]
    for k in range(paths.shape[1]):
        ax.plot(*paths[:, k].T, lw=1, color=f"C{k + 1}", label=f"chain {k + 1}")
    ax.scatter(paths[0, :, 0], paths[0, :, 1], s=25, color="black", zorder=3, label="first state")
    ends = paths[-1]
    ax.scatter(ends[:, 0], ends[:, 1], s=60, marker="*", color="tab:orange", edgecolor="black", zorder=3, label="end")
    ax.set_xlabel("first principal component of real images")
    ax.set_ylabel("second")
    ax.set_title(f"the plane holds {100 * share:.0f} % of the real images' variance", fontsize=10)
    ax.legend(fontsize=8, facecolor="lightgray")
    figure.savefig(path, dpi=110)
    plt.close(figure)


# Animation


def animate(
    path: Path,
    states: Images,
    energies: Floats,
    sweeps: Sequence[int],
    n_levels: int,
    unit: str = "nats",
    columns: int = 5,
) -> None:
    """A GIF from noise to digits, beside it the energy as it falls: the mean over chains and each chain.

    Frames are chosen evenly: FRAMES at most, and fewer where the file would be larger than GIF_BYTES.

    Args:
        path: of the GIF.
        states: levels (n_frames, n, side, side).
        energies: (n_frames, n).
        sweeps: done at each frame, from 1 on.
        n_levels: of the states.
        unit: of the energy.
        columns: chains side by side.

    Raises:
        InvalidModelError: energies of another shape, or fewer than two frames.
    """
    if energies.shape != states.shape[:2] or len(states) < 2 or len(sweeps) != len(states):
        raise InvalidModelError(
            f"two frames are needed at least, and energies (n_frames, n) for states (n_frames, n, side, side) after so"
            f" many sweeps: states are {states.shape}, energies {energies.shape}, sweeps {len(sweeps)}"
        )
    chosen = np.unique(np.linspace(0, len(states) - 1, FRAMES).round().astype(int))
    drawn = _frames(states, energies, sweeps, chosen, n_levels, unit, columns)
    while True:
        buffer = io.BytesIO()
        lasting = [FRAME_MS * len(chosen) // len(drawn)] * (len(drawn) - 1) + [LAST_FRAME_MS]
        drawn[0].save(buffer, "GIF", save_all=True, append_images=drawn[1:], duration=lasting, loop=0, optimize=True)
        if buffer.tell() <= GIF_BYTES or len(drawn) == 2:
            break
        drawn = drawn[:-1:2] + drawn[-1:]  # the first and the last stay
    path.write_bytes(buffer.getvalue())


def _frames(
    states: Images,
    energies: Floats,
    sweeps: Sequence[int],
    chosen: NDArray[np.integer],
    n_levels: int,
    unit: str,
    columns: int,
) -> list[Image.Image]:
    rows = -(-states.shape[1] // columns)
    figure = Figure(figsize=(0.75 * columns + 4, max(2.4, 0.75 * rows + 0.5)), dpi=80, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[0.75 * columns, 3.6])
    picture = left.imshow(tiles(states[0], columns, n_levels), cmap="gray", vmin=0, vmax=1)
    left.set_axis_off()
    at = np.asarray(sweeps)
    right.plot(at, energies, lw=0.5, color="lightgray")
    right.plot(at, energies.mean(1), lw=1.5, color="tab:blue")
    (point,) = right.plot(at[:1], [energies[0].mean()], "o", color="tab:red")
    right.set_xscale("log")
    right.set_xlabel("sweeps from noise")
    right.set_ylabel(f"energy in {unit}")
    palette = _palette()
    found = []
    for k in chosen:
        picture.set_data(tiles(states[k], columns, n_levels))
        point.set_data([at[k]], [energies[k].mean()])
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        found.append(Image.open(buffer).convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE))
    return found


def _palette() -> Image.Image:
    """Greys and the curve's two colours: one chosen by frequency would lose the curve among noise."""
    greys = np.repeat(np.linspace(0, 255, 24).round().astype(np.uint8), 3)
    hues = [round(255 * part) for name in ("tab:blue", "tab:red") for part in matplotlib.colors.to_rgb(name)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*greys.tolist(), *hues])
    return palette
