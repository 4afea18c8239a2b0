"""The picture: real digits, samples per class, completions, training curves."""

from __future__ import annotations

from collections.abc import Mapping
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


def _show(axes: Axes, images: Floats, rows: int, title: str) -> None:
    axes.imshow(tiles(images, rows, len(images) // rows), cmap="gray", vmin=-1, vmax=1)
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])


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
    figure, axes = plt.subplots(2, 3, figsize=(14, 9.2), gridspec_kw={"height_ratios": [1.6, 1]})
    pixels = to_spins(data.test_grey)
    real = np.concatenate([pixels[data.test_labels == digit][:COLUMNS] for digit in range(N_CLASSES)])
    _show(axes[0, 0], real, N_CLASSES, "real digits, held out")
    _show(axes[0, 1], samples, N_CLASSES, "drawn by the device, label units clamped to 0 ... 9")
    panel = np.concatenate(list(completions.values())).reshape(-1, N_PIXELS)
    _show(axes[0, 2], panel, len(completions), "half-hidden digits completed")
    axes[0, 2].set_xlabel("rows: " + "; ".join(completions), fontsize=8)
    for name, curve in curves.items():
        updates = [point.update for point in curve]
        axes[1, 0].plot(updates, [point.train_pseudo for point in curve], label=f"{name}, training")
        axes[1, 0].plot(updates, [point.test_pseudo for point in curve], "--", label=f"{name}, held out")
        axes[1, 1].plot(updates, [100 * point.accuracy for point in curve], label=name)
    axes[1, 0].set(title="pseudo-log-likelihood (nats per digit and label)", xlabel="updates (one job each)")
    axes[1, 1].set(title="classification by free energy, held out (%)", xlabel="updates (one job each)", ylim=(80, 100))
    for each in axes[1, :2]:
        each.legend(fontsize=7)
        each.grid(alpha=0.3)
        each.title.set_fontsize(10)
    axes[1, 2].axis("off")
    axes[1, 2].text(0, 1, summary, va="top", fontsize=10, family="monospace", linespacing=1.5)
    figure.tight_layout()
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=110)
    plt.close(figure)
    temporary.replace(path)


def lines(figures: Mapping[str, Any]) -> str:
    """The figures that the picture and the terminal show."""
    accuracy, jobs = figures["accuracy_mean"], figures["device_jobs"]
    joules = figures["joules"]
    energy = "not published" if joules is None else f"{joules:.3g} J ({figures['joules_basis']})"
    likelihood = figures["log_likelihood"]
    text = [
        f"device        {figures['device']}",
        f"updates       {figures['updates']} a seed, seeds {', '.join(map(str, figures['seeds']))}",
        f"accuracy      {100 * accuracy['device']:.1f} % on the device",
    ]
    if accuracy["numpy"] is not None:
        text.append(f"              {100 * accuracy['numpy']:.1f} % in float NumPy")
    text += [
        f"log-likelihood {likelihood['test']:.2f} +- {likelihood['standard_error']:.2f} nats",
        "              (AIS, held out, pixels and label)",
        f"jobs, states  {jobs['jobs']}, {jobs['samples']}",
        f"training      {figures['seconds']['training']:.1f} s on this computer",
        f"chip's energy {energy}",
    ]
    return "\n".join(text)
