"""The picture: real digits, samples per class, completions, training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from examples.digits.data import N_CLASSES, N_PIXELS, Digits, Floats, to_spins
from examples.digits.train import Point

COLUMNS = 12


def tiles(images: Floats, rows: int, columns: int) -> Floats:
    """Images (rows * columns, 64) side by side with a border, one picture."""
    framed = np.pad(images.reshape(rows, columns, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=0.3)
    return framed.transpose(0, 2, 1, 3).reshape(10 * rows, 10 * columns)


def _show(axes: Axes, images: Floats, names: Sequence[str], title: str) -> None:
    """Rows of images, each with its name on the left."""
    rows = len(names)
    axes.imshow(tiles(images, rows, len(images) // rows), cmap="gray", vmin=-1, vmax=1)
    axes.set_title(title, fontsize=11)
    axes.set_xticks([])
    axes.set_yticks(10 * np.arange(rows) + 4.5, names, fontsize=9)
    axes.tick_params(length=0)


def draw(
    path: Path,
    data: Digits,
    samples: Floats,
    completions: Mapping[str, Floats],
    curves: Mapping[str, tuple[Point, ...]],
    summary: str,
) -> None:
    """Write the report as PNG.

    Args:
        path: of the picture.
        data: for the real digits.
        samples: generated digits, COLUMNS of each class in turn, shape (10 * COLUMNS, 64).
        completions: rows of the completion panel by title, each (n, 64).
        curves: training curves by name.
        summary: a line or two of figures.
    """
    figure = plt.figure(figsize=(15, 9), layout="constrained")
    grid = figure.add_gridspec(12, 3)
    digits = [str(digit) for digit in range(N_CLASSES)]
    pixels = to_spins(data.test_grey)
    real = np.concatenate([pixels[data.test_labels == digit][:COLUMNS] for digit in range(N_CLASSES)])
    _show(figure.add_subplot(grid[:7, 0]), real, digits, "real digits, held out")
    _show(figure.add_subplot(grid[:7, 1]), samples, digits, "drawn by the device, label units clamped")
    panel = np.concatenate(list(completions.values())).reshape(-1, N_PIXELS)
    _show(figure.add_subplot(grid[:4, 2]), panel, list(completions), "lower half hidden, completed by the device")
    likelihood, accuracy = figure.add_subplot(grid[7:, 0]), figure.add_subplot(grid[7:, 1])
    for colour, (name, curve) in zip(("tab:blue", "tab:orange"), curves.items(), strict=False):
        updates = [point.update for point in curve]
        likelihood.plot(updates, [point.train_pseudo for point in curve], color=colour, label=f"{name}, training")
        likelihood.plot(updates, [point.test_pseudo for point in curve], "--", color=colour, label=f"{name}, held out")
        accuracy.plot(updates, [100 * point.accuracy for point in curve], color=colour, label=name)
    likelihood.set_title("pseudo-log-likelihood (nats per digit and label)", fontsize=11)
    accuracy.set_title("classification by free energy, held out (%)", fontsize=11)
    accuracy.set_ylim(80, 100)
    for axes in (likelihood, accuracy):
        axes.set_xlabel("updates (on the device: one job each)")
        axes.legend(fontsize=8, loc="lower right")
        axes.grid(alpha=0.3)
    text = figure.add_subplot(grid[5:, 2])
    text.axis("off")
    text.text(0, 1, summary, va="top", fontsize=10.5, family="monospace", linespacing=1.7)
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=110)
    plt.close(figure)
    temporary.replace(path)


def lines(figures: Mapping[str, Any]) -> str:
    """The figures that the picture and the terminal show."""
    accuracy, jobs = figures["accuracy_mean"], figures["device_jobs"]
    joules = figures["joules"]
    energy = "not published" if joules is None else f"{joules:.3g} J\n{'':15}({figures['joules_basis']})"
    likelihood = figures["log_likelihood"]
    rows = [
        ("device", figures["device"]),
        ("updates", f"{figures['updates']} a seed, seeds {', '.join(map(str, figures['seeds']))}"),
        ("accuracy", f"{100 * accuracy['device']:.1f} % on the device, mean of seeds"),
    ]
    if accuracy["numpy"] is not None:
        rows.append(("", f"{100 * accuracy['numpy']:.1f} % the same in float NumPy"))
    rows += [
        ("log-likelihood", f"{likelihood['test']:.2f} +- {likelihood['standard_error']:.2f} nats"),
        ("", "(AIS, held out, pixels and labels)"),
        ("jobs", f"{jobs['jobs']}, {jobs['samples']} states"),
        ("training", f"{figures['seconds']['training']:.0f} s on this computer"),
        ("chip's energy", energy),
    ]
    return "\n".join(f"{name:15}{value}" for name, value in rows)
