"""W7: problems to solve, each with the value to reach where one is known.

Gset files are not part of the project; give their folder by --gset or in GLAUBER_GSET. Targets are the best cuts we
know of in the literature: Breakout Local Search (Benlic and Hao, Comput. Oper. Res. 40, 2013) and, for G55, G60, G70
and G81, later work that went beyond it (G81: arXiv:2505.18508).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import glauber as gl
import numpy as np
from glauber.testing import PlantedInstance, frustrated_loops, tile_planted_3d, wishart
from glauber.topology import King

from benchmarks.workloads import dense

BEST_CUTS = {
    "G1": 11624, "G2": 11620, "G11": 564, "G14": 3064, "G22": 13359, "G32": 1410, "G43": 6660,
    "G55": 10299, "G60": 14188, "G70": 9595, "G81": 14060,
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """An Ising model to minimise.

    Attributes:
        name: for tables.
        model: energies as IsingModel's; of a MaxCut problem minus the cut.
        target: the energy to reach: planted, or the best known; None where nobody knows.
        source: of the target.
    """

    name: str
    model: gl.IsingModel
    target: float | None
    source: str


def gset(folder: Path | None) -> Iterator[Problem]:
    """The MaxCut problems whose files are there, smallest first."""
    if folder is None:
        return
    for name, cut in sorted(BEST_CUTS.items(), key=lambda item: int(item[0][1:])):
        if (folder / name).exists():
            model = gl.read_model(folder / name)
            assert isinstance(model, gl.IsingModel)
            yield Problem(name, model, -float(cut), "best known cut")


def made() -> Iterator[Problem]:
    """Problems from generators: planted ones, and two kinds of real weights whose optimum nobody knows."""
    planted: list[PlantedInstance] = [
        tile_planted_3d(8, seed=1),
        tile_planted_3d(12, shares=(1, 1, 2), seed=1),
        wishart(64, 0.5, integer=True, seed=1),
        wishart(128, 0.75, seed=1),
        frustrated_loops(1024, King(rows=32, cols=32).edges(), 0.4, min_length=6, seed=1),
    ]
    for one in planted:
        # of real couplings the energy is known to rounding only
        slack = 0.0 if (one.model.couplings == np.rint(one.model.couplings)).all() else 1e-9 * abs(one.energy)
        yield Problem(one.name, one.model, one.energy + slack, "planted")
    yield Problem("SK 1000", dense(1000), None, "best of this run")
    yield Problem("QUBO 500, fields, real weights", random_qubo(500), None, "best of this run")


def random_qubo(n: int, density: float = 0.1) -> gl.IsingModel:
    """Real entries, uniform on (-1, 1), on the diagonal and on a share of the pairs."""
    rng = np.random.default_rng(1)
    matrix = np.triu(rng.uniform(-1, 1, (n, n)) * (rng.random((n, n)) < density), 1)
    return gl.IsingModel.from_qubo(matrix + np.diag(rng.uniform(-1, 1, n)))
