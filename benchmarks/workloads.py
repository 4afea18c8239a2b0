"""What is measured: models by name, each with its temperature and number of chains. Random coefficients have seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import glauber as gl
import networkx as nx
import numpy as np
from glauber.compile.order import colours_of
from numpy.typing import NDArray

BETA_CRITICAL = 0.4406868
"""ln(1 + sqrt 2) / 2, of the square lattice."""


def torus(*shape: int) -> tuple[int, NDArray[np.int64]]:
    """Sites and edges of a lattice with periodic sides."""
    at = np.arange(int(np.prod(shape))).reshape(shape)
    edges = [np.stack([at.ravel(), np.roll(at, -1, axis).ravel()], axis=1) for axis in range(len(shape))]
    return at.size, np.concatenate(edges)


def colour_blocks(model: Any) -> list[NDArray[np.int64]]:
    """The sites of each colour; sites of one colour have no edge between them. What block samplers need."""
    colours = colours_of(model.n_sites, model.edges)
    return [np.flatnonzero(colours == colour) for colour in range(int(colours.max()) + 1)]


def ferromagnet(side: int = 256) -> gl.IsingModel:
    """W1: 2-D."""
    n, edges = torus(side, side)
    return gl.IsingModel(np.zeros(n), edges, np.ones(len(edges)))


def glass() -> gl.IsingModel:
    """W2: 3-D +-J, 16^3."""
    n, edges = torus(16, 16, 16)
    return gl.IsingModel(np.zeros(n), edges, np.random.default_rng(1).choice([-1.0, 1.0], len(edges)))


def random_regular(n: int = 10_000, degree: int = 6) -> gl.IsingModel:
    """W3: random regular, Gaussian."""
    edges = np.array(nx.random_regular_graph(degree, n, seed=1).edges)
    return gl.IsingModel(np.zeros(n), edges, np.random.default_rng(1).normal(size=len(edges)))


def sparse_maxcut() -> gl.IsingModel:
    """2,000 spins of mean degree 20, couplings -1."""
    edges = np.array(nx.gnm_random_graph(2000, 19_990, seed=1).edges)
    return gl.IsingModel(np.zeros(2000), edges, -np.ones(len(edges)))


def dense(n: int) -> gl.IsingModel:
    """W4, W4s: SK."""
    i, j = np.triu_indices(n, 1)
    couplings = np.random.default_rng(1).normal(size=len(i)) / np.sqrt(n)
    return gl.IsingModel(np.zeros(n), np.stack([i, j], axis=1), couplings)


def potts() -> gl.PottsModel:
    """W5: q = 4, 28 x 28, open sides."""
    at = np.arange(784).reshape(28, 28)
    right, down = (at[:, :-1], at[:, 1:]), (at[:-1], at[1:])
    edges = np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in (right, down)])
    return gl.PottsModel(np.zeros((784, 4)), edges, np.ones(len(edges)))


VISIBLE, HIDDEN = 784, 500


def rbm() -> gl.IsingModel:
    """W6: 784 + 500."""
    i, j = np.meshgrid(np.arange(VISIBLE), VISIBLE + np.arange(HIDDEN), indexing="ij")
    rng = np.random.default_rng(1)
    edges = np.stack([i.ravel(), j.ravel()], axis=1)
    return gl.IsingModel(rng.normal(size=VISIBLE + HIDDEN), edges, 0.05 * rng.normal(size=len(edges)))


def loose() -> gl.IsingModel:
    """100,000 p-bits without edges."""
    return gl.IsingModel(np.random.default_rng(1).normal(size=100_000), np.zeros((0, 2), np.int32), [])


def loose_dits() -> gl.PottsModel:
    """4,096 p-dits of 512 states without edges."""
    return gl.PottsModel(np.random.default_rng(1).normal(size=(4096, 512)), np.zeros((0, 2), np.int32), [])


@dataclass(frozen=True)
class Workload:
    """A model to sample at one temperature.

    Attributes:
        key: short and unique.
        title: for tables.
        make: builds the model.
        couplings: what kind, in words.
        beta: inverse temperature.
        chains: independent chains.
        weight_bits: of glauber's integer weights, the one to quote first; peers compute in floating point.
        warmup: sweeps of glauber from random states, after which the timed runs start; None: start from equilibrium, by
            cluster moves.
    """

    key: str
    title: str
    make: Callable[[], gl.IsingModel | gl.PottsModel]
    couplings: str
    beta: float
    chains: int
    weight_bits: tuple[int, ...] = (16,)
    warmup: int | None = 5000

    @property
    def start(self) -> str:
        """Where the timed runs start, in words."""
        if self.warmup is None:
            return "equilibrium, by Swendsen-Wang cluster moves"
        return f"{self.warmup:,} sweeps of glauber from random states"

    @cached_property
    def model(self) -> Any:
        """The model, made once."""
        return self.make()

    @property
    def degree(self) -> float:
        """Mean number of neighbours."""
        return float(2 * self.model.n_edges / self.model.n_sites)


WORKLOADS = (
    Workload("W1", "2-D ferromagnet 256 x 256", ferromagnet, "+1", BETA_CRITICAL, 64, warmup=None),
    Workload("W1, one chain", "2-D ferromagnet 256 x 256", ferromagnet, "+1", BETA_CRITICAL, 1, warmup=None),
    Workload("W2", "3-D glass 16^3", glass, "+-1", 1.0, 64, warmup=200_000),  # a glass goes on relaxing for long
    Workload("W3", "random 6-regular", random_regular, "Gaussian", 1.0, 64),
    Workload("W4", "SK 1000", lambda: dense(1000), "Gaussian", 1.0, 64, (8, 16)),
    Workload("W4s", "SK 100", lambda: dense(100), "Gaussian", 1.0, 10, (8, 16)),
    Workload("W5, one chain", "Potts q = 4, 28 x 28", potts, "+1, equal states", 1.0, 1),
    Workload("W5", "Potts q = 4, 28 x 28", potts, "+1, equal states", 1.0, 64),
    Workload("W6", "RBM 784 + 500", rbm, "Gaussian, fields", 1.0, 64, (8, 16)),
)
SPARSE_MAXCUT = Workload("G22-like", "n = 2,000, degree 20", sparse_maxcut, "-1", 1.0, 64)
LOOSE = Workload("loose", "100,000 p-bits without edges", loose, "none", 1.0, 1)
