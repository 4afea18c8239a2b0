"""The picture: total variation before and after, and one law state by state."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from examples.calibrate_a_chip.models import Comparison, Floats


def draw(path: Path, compared: Comparison, law: Floats, raw: Floats, corrected: Floats, summary: str) -> None:
    """Write it as PNG.

    Args:
        path: of the picture.
        compared: of all patches.
        law: exact probabilities of the first patch's states, (256,).
        raw: as drawn without a calibration.
        corrected: as drawn with it, wrong readings taken out.
        summary: a line of figures.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    place = np.arange(len(compared.raw))
    for shift, colour, name, values in (
        (-0.2, "tab:orange", "as it is", compared.raw),
        (0.2, "tab:blue", "calibrated", compared.corrected),
    ):
        left.bar(place + shift, values, 0.38, yerr=compared.u, color=colour, label=name, capsize=3)
    left.plot(place, compared.floor, "k_", markersize=24, label="chance alone")
    left.set_yscale("log")
    left.set_ylim(0.5 * min(compared.floor), 2.5 * max(compared.raw))
    left.set_xticks(place, [str(k + 1) for k in place])
    left.set_xlabel("random model of 8 p-bits (number)")
    left.set_ylabel("total variation from the exact law (1)")
    left.legend(ncols=3, fontsize=8)
    order = np.argsort(law)[::-1]
    for colour, name, drawn in (("tab:orange", "as it is", raw), ("tab:blue", "calibrated", corrected)):
        right.loglog(law[order], np.maximum(drawn[order], 1e-6), ".", color=colour, markersize=4, label=name)
    ends = [law.min(), law.max()]
    right.loglog(ends, ends, "k-", linewidth=0.8)
    right.set_xlabel("exact probability of a state of model 1 (1)")
    right.set_ylabel("drawn (1)")
    right.set_ylim(bottom=0.5 * law.min())
    right.legend(fontsize=8)
    figure.suptitle(summary, fontsize=10)
    figure.savefig(path, dpi=90)
    plt.close(figure)
