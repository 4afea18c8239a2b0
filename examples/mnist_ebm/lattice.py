"""The square lattice of pixels: its edges, the energy of a Potts model on it said slowly, and its exact log Z."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import glauber as gl
import numpy as np
from glauber.errors import InvalidModelError
from numpy.typing import NDArray

Neighbours = Literal[4, 8]
STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Rows and columns from an edge's first pixel to its second: right, down, and the two diagonals."""
MAX_ROW_STATES = 2048
"""States of one row of pixels that the transfer matrix goes through: 2048 squared are 32 MiB of doubles."""

STATES_AT_ONCE = 512
"""Of which energies are summed: tens of thousands would take gigabytes."""


@dataclass(frozen=True)
class Lattice:
    """Pixels and the pairs of them that interact; open sides. Pixel (row, column) is site row * side + column.

    Attributes:
        side: pixels along a side.
        neighbours: 4, or 8 with the diagonals.
        edges: pairs of sites i < j, int32 (n_edges, 2), direction by direction.
        direction: of each edge, its number in STEPS, int64 (n_edges,).
    """

    side: int
    neighbours: Neighbours
    edges: NDArray[np.int32]
    direction: NDArray[np.int64]

    @property
    def n_sites(self) -> int:
        """How many pixels."""
        return self.side**2

    @property
    def n_directions(self) -> int:
        """2 or 4."""
        return self.neighbours // 2


def make_lattice(side: int, neighbours: Neighbours = 4) -> Lattice:
    """The lattice of `side` x `side` pixels.

    Raises:
        InvalidModelError: fewer than 2 pixels a side, or neither 4 nor 8 neighbours.
    """
    if isinstance(side, bool) or not isinstance(side, int) or side < 2:
        raise InvalidModelError(f"side must be a whole number of pixels, 2 or more, not {side!r}")
    if neighbours not in (4, 8):
        raise InvalidModelError(f"a pixel has 4 neighbours, or 8 with the diagonals, not {neighbours!r}")
    at = np.arange(side**2).reshape(side, side)
    edges, direction = [], []
    for number, (down, right) in enumerate(STEPS[: neighbours // 2]):
        rows, columns = slice(0, side - down), slice(max(0, -right), side - max(0, right))
        first = at[rows, columns]
        edges.append(np.stack([first.ravel(), first.ravel() + down * side + right], axis=1))
        direction.append(np.full(len(edges[-1]), number))
    return Lattice(side, neighbours, np.concatenate(edges).astype(np.int32), np.concatenate(direction))


def plain_energy(model: gl.PottsModel, state: NDArray[Any]) -> float:
    """E(s) = - sum_i h_i[s_i] - sum_edges J_ij[s_i, s_j] of one state (n_sites,), term by term."""
    tables = model.edge_tables()
    energy = 0.0
    for site in range(model.n_sites):
        energy -= float(model.fields[site, state[site]])
    for edge, (i, j) in enumerate(model.edges.tolist()):
        energy -= float(tables[edge, state[i], state[j]])
    return energy


def fast_energies(model: gl.PottsModel, states: NDArray[Any]) -> NDArray[np.float64]:
    """Energies of states (..., n_sites), as `model.energies`: a flat look-up for each sum, and few states at a time."""
    flat = states.reshape(-1, model.n_sites)
    energies = np.empty(len(flat))
    q, tables = model.n_states, model.edge_tables().ravel() if model.couplings.ndim > 1 else None
    for start in range(0, len(flat), STATES_AT_ONCE):
        part = flat[start : start + STATES_AT_ONCE].astype(np.int64)
        own = model.fields.ravel().take(part + q * np.arange(model.n_sites)).sum(axis=1)
        first, second = part[:, model.edges[:, 0]], part[:, model.edges[:, 1]]
        if tables is None:
            pairs = (first == second) @ model.couplings
        else:
            pairs = tables.take(q * first + second + q * q * np.arange(model.n_edges)).sum(axis=1)
        energies[start : start + len(part)] = -own - pairs
    return energies.reshape(states.shape[:-1])


def in_p_bits(model: gl.PottsModel) -> gl.IsingModel:
    """The same law of two levels in spins: level 0 is -1, level 1 is +1.

    Raises:
        InvalidModelError: another number of levels.
    """
    if model.n_states != 2:
        raise InvalidModelError(f"a p-bit has two states, a site of this model {model.n_states}")
    tables = model.edge_tables()
    low, high = tables[:, 0], tables[:, 1]  # of the first pixel's level
    fields = (model.fields[:, 1] - model.fields[:, 0]) / 2
    np.add.at(fields, model.edges[:, 0], (high - low).sum(axis=1) / 4)
    np.add.at(fields, model.edges[:, 1], (tables[:, :, 1] - tables[:, :, 0]).sum(axis=1) / 4)
    couplings = (low[:, 0] + high[:, 1] - low[:, 1] - high[:, 0]) / 4
    return gl.IsingModel(fields, model.edges, couplings, model.offset - model.fields.sum() / 2 - tables.sum() / 4)


def in_copies(model: gl.PottsModel, betas: NDArray[np.float64]) -> gl.PottsModel:
    """Copies of a model side by side without couplings between them, copy k times betas[k]: a ladder of temperatures.

    Its law at beta = 1 is the product of the laws of `model` at each of the betas.
    """
    k, scale = len(betas), betas.reshape(-1, *[1] * model.couplings.ndim)
    edges = model.edges[None] + model.n_sites * np.arange(k)[:, None, None]
    return gl.PottsModel(
        (betas[:, None, None] * model.fields).reshape(-1, model.n_states),
        edges.reshape(-1, 2),
        (scale * model.couplings).reshape(-1, *model.couplings.shape[1:]),
    )


def exact_log_partition(model: gl.PottsModel, side: int) -> float:
    """Log Z of a model whose edges join pixels of one row, or of a row and the next, by a transfer matrix over rows.

    The sum over all images is a product of matrices between the n_states^side states of neighbouring rows.

    Raises:
        InvalidModelError: a row has more than MAX_ROW_STATES states, sites are no square, or an edge spans more rows.
    """
    q = model.n_states
    if model.n_sites != side**2:
        raise InvalidModelError(f"{model.n_sites} sites are not {side} x {side} pixels")
    if not can_be_summed(side, q):
        raise InvalidModelError(
            f"a row of {side} pixels with {q} levels has {q}^{side} states; the transfer matrix takes"
            f" {MAX_ROW_STATES}; estimate log Z by annealed importance sampling"
        )
    row, column = np.divmod(model.edges.astype(np.int64), side)
    if ((row[:, 1] - row[:, 0]) > 1).any():
        raise InvalidModelError("the transfer matrix needs edges within a row, or from a row to the next")
    tables = model.edge_tables()
    digits = np.array(np.unravel_index(np.arange(q**side), (q,) * side))  # level of each pixel, (side, n_row_states)
    log_z = np.zeros(q**side)
    for k in range(side):
        if k:
            between = np.zeros((q**side, q**side))
            for edge in np.flatnonzero((row[:, 0] == k - 1) & (row[:, 1] == k)):
                above, below = column[edge]
                between += tables[edge][digits[above]][:, digits[below]]
            between += log_z[:, None]
            top = between.max(axis=0)
            log_z = top + np.log(np.exp(between - top).sum(axis=0))
        for pixel in range(side):
            log_z = log_z + model.fields[k * side + pixel][digits[pixel]]
        for edge in np.flatnonzero((row == k).all(axis=1)):
            left, right = column[edge]
            log_z = log_z + tables[edge][digits[left], digits[right]]
    top = float(log_z.max())
    return top + math.log(float(np.exp(log_z - top).sum()))


def can_be_summed(side: int, n_levels: int) -> bool:
    """Whether exact_log_partition takes images of this size."""
    return side * math.log(n_levels) <= math.log(MAX_ROW_STATES) + 1e-9
