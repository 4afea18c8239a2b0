"""RESULTS.md and the picture, from figures and states alone."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from examples.digits.report import tiles
from examples.intervals import interval

COLUMNS = 20


def markdown(figures: dict[str, Any]) -> str:
    """The results as a page."""
    rows = figures["rows"]
    models = [name for name in rows[0] if isinstance(rows[0][name], dict) and "parameters" in rows[0][name]]
    lines = [
        "# Results",
        "",
        f"Command: `{figures['command'].strip()}`, {datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, device"
        f" `{figures['device']}`. The chain has {figures['steps']} machines of {figures['hidden']} hidden units;"
        f" {figures['updates']} minibatches for each model; {figures['images']} test images, 64 binary pixels each.",
        "",
        "log p of a test image in nats (higher is better): mean and 95 % interval over seeds, and each seed with its"
        " standard error over images. log Z of the single machines is by annealed importance sampling. The chain's is a"
        f" bound from below by importance sampling over {figures['paths']} noise paths an image.",
        "",
        "| model | parameters | log p | each seed | seconds to train |",
        "|---|---|---|---|---|",
    ]
    for name in models:
        found = [row[name] for row in rows]
        each = ", ".join(f"{one['nats']:.2f} ± {one['standard_error']:.2f}" for one in found)
        shown = "chain" if name == "chain" else name
        lines.append(
            f"| {shown} | {found[0]['parameters']:,} | {interval([one['nats'] for one in found], 2)} | {each} |"
            f" {np.mean([one['training_seconds'] for one in found]):.0f} |"
        )
    gains = [row["chain less one machine of its size"] for row in rows]
    lines += [
        "",
        "The chain less one machine of its size, image by image: "
        + ", ".join(f"{gain['nats']:+.2f} ± {gain['standard_error']:.2f}" for gain in gains)
        + " nats.",
        "",
    ]
    return "\n".join(lines)


def draw(path: Path, pictures: dict[str, Any]) -> None:
    """Real digits, one machine's, and the chain's from noise to digits."""
    chain = pictures["path"]
    shown = [("real digits", pictures["data"]), ("one machine, 1000 sweeps", pictures["one machine"])]
    shown += [(f"chain, after {k} of {len(chain) - 1} machines", states) for k, states in enumerate(chain)]
    figure, axes = plt.subplots(len(shown), 1, figsize=(10, 1.75 * len(shown)), layout="constrained")
    for ax, (name, states) in zip(axes, shown, strict=True):
        n = len(states) // COLUMNS
        ax.imshow(tiles(np.asarray(states[: n * COLUMNS]), n, COLUMNS), cmap="gray", vmin=-1, vmax=1)
        ax.set_title(name, fontsize=10)
        ax.set_axis_off()
    figure.savefig(path, dpi=110)
    plt.close(figure)
