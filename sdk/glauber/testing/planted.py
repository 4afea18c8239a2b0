"""Instances with a known ground state, to measure solvers against: tiles, Wishart, frustrated loops.

Each is a sum of terms that one state minimises all at once, so that state is a ground state of the sum. It is planted
as all spins up and then hidden by a random gauge t: J_ij becomes J_ij t_i t_j and the planted state is t. Other states
may have the same energy, none has less. The same arguments and seed give the same instance.

Energies are those of IsingModel: E(s) = - sum_(i<j) J_ij s_i s_j. Fields are zero.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glauber.checks import finite_array, whole_number
from glauber.errors import InvalidModelError
from glauber.model import IsingModel
from glauber.request import check_seed

MAX_TRIES_PER_LOOP = 1000
"""Loops thrown away in a row before an instance is refused as too crowded."""

CUBE_EDGES = tuple((a, a | bit) for bit in (1, 2, 4) for a in range(8) if not a & bit)
"""Corners of the unit cube are numbers x + 2 y + 4 z; an edge joins two that differ in one bit."""

CUBE_CLASSES: dict[str, frozenset[tuple[int, int]]] = {
    "F22": frozenset({(0, 1), (2, 3)}),
    "F42": frozenset({(0, 1), (6, 7)}),
    "F6": frozenset({(0, 1), (2, 6), (5, 7)}),
}
"""The antiferromagnetic edges of a cube with 2, 4 and 6 frustrated faces; all up is a ground state of each."""


@dataclass(frozen=True, slots=True)
class PlantedInstance:
    """A model, a ground state of it, and the ground state's energy.

    Attributes:
        model: without fields.
        state: a ground state, int8 (n_sites,).
        energy: the least energy there is; exact for integer couplings, else to rounding.
        name: family and parameters.
    """

    model: IsingModel
    state: NDArray[np.int8]
    energy: float
    name: str


def _generator(seed: object) -> np.random.Generator:
    checked = check_seed(seed)
    if checked is None:
        raise InvalidModelError("a planted instance needs a seed: without one nobody could make it again")
    return np.random.default_rng(checked)


def _shares(name: str, values: Sequence[float], length: int) -> NDArray[np.float64]:
    """Probabilities in proportion to `values`."""
    shares = finite_array(name, values, (length,))
    if (shares < 0).any() or not shares.any():
        raise InvalidModelError(f"{name} must be {length} shares of at least 0, not all 0; got {list(shares)}")
    return np.asarray(shares / shares.sum())


def _planted(
    n: int, edges: NDArray[np.int64], couplings: NDArray[np.float64], energy: float, name: str, rng: np.random.Generator
) -> PlantedInstance:
    """The instance whose planted state is all up, after a random gauge."""
    gauge = rng.choice(np.array([-1, 1], dtype=np.int8), n)
    hidden = couplings * (gauge[edges[:, 0]] * gauge[edges[:, 1]])
    return PlantedInstance(IsingModel(np.zeros(n), edges, hidden), gauge, energy, name)


def _even_side(side: int) -> int:
    side = whole_number("side", side, 4, 4096)
    if side % 2:
        raise InvalidModelError(f"side must be even for the tiles to close over the periodic sides, not {side}")
    return side


def tile_planted_2d(side: int, *, shares: Sequence[float] = (1.0, 1.0, 1.0, 1.0), seed: int) -> PlantedInstance:
    """A periodic square lattice of side x side spins out of frustrated plaquettes (tile planting).

    The plaquettes whose corner has an even x + y, like the black squares of a chessboard, cover every edge exactly
    once. Each has one antiferromagnetic edge, J = -1, which is broken in the planted state. A plaquette of class C_k
    has k weak edges, |J| = 1, that one among them; the others are J = 2. Breaking any one weak edge is a ground state,
    so the class sets how degenerate the instance is. Couplings are integers; E = -sum J over the plaquettes.

    Source: Hamze, Jacob, Ochoa, Perera, Wang, Katzgraber, Phys. Rev. E 97, 043303 (2018); Perera, Hamze, Raymond,
    Weigel, Katzgraber, Phys. Rev. E 101, 023316 (2020).

    Args:
        side: even, at least 4.
        shares: of the classes C_1 to C_4, in any unit.
        seed: of the instance.

    Raises:
        InvalidModelError: an odd or small side, negative shares, a bad seed.
    """
    side, rng = _even_side(side), _generator(seed)
    probability = _shares("shares", shares, 4)
    x, y = (axis.ravel() for axis in np.indices((side, side)))
    x, y = x[(x + y) % 2 == 0], y[(x + y) % 2 == 0]
    corner = [(x + dx) % side * side + (y + dy) % side for dx, dy in ((0, 0), (0, 1), (1, 1), (1, 0))]
    edges = np.stack([np.stack([corner[k], corner[(k + 1) % 4]], axis=1) for k in range(4)], axis=1)
    rank = rng.permuted(np.tile(np.arange(4), (len(x), 1)), axis=1)  # an order of each plaquette's edges
    weak = rng.choice(np.arange(1, 5), len(x), p=probability)
    couplings = np.where(rank < weak[:, None], 1.0, 2.0)
    couplings[rank == 0] = -1.0
    name = f"tiles 2-D, {side}^2, shares {','.join(f'{p:g}' for p in probability)}"
    return _planted(side**2, edges.reshape(-1, 2), couplings.ravel(), -float(couplings.sum()), name, rng)


def tile_planted_3d(side: int, *, shares: Sequence[float] = (0.0, 0.0, 1.0), seed: int) -> PlantedInstance:
    """A periodic cubic lattice of side^3 spins out of frustrated cubes with J = +-1 (tile planting).

    The cubes whose corner has x, y and z all even or all odd cover every edge exactly once. A cube of class F22, F42 or
    F6 has 2, 4 or 6 frustrated faces and 2, 2 or 3 antiferromagnetic edges, turned and mirrored at random; breaking
    just those is as good as any state of the cube can do. E = -8 a cube of F22 or F42 and -6 a cube of F6.

    Source: Hamze, Jacob, Ochoa, Perera, Wang, Katzgraber, Phys. Rev. E 97, 043303 (2018).

    Args:
        side: even, at least 4.
        shares: of the classes F22, F42 and F6, in any unit.
        seed: of the instance.

    Raises:
        InvalidModelError: an odd or small side, negative shares, a bad seed.
    """
    side, rng = _even_side(side), _generator(seed)
    probability = _shares("shares", shares, 3)
    corners = np.stack([axis.ravel() for axis in np.indices((side, side, side))], axis=1)
    corners = corners[(corners % 2 == corners[:, :1] % 2).all(axis=1)]
    turned = [_turned(edges) for edges in CUBE_CLASSES.values()]
    kinds = rng.choice(3, len(corners), p=probability)
    ways = rng.integers(48, size=len(corners))
    couplings = np.array([turned[kind][way] for kind, way in zip(kinds, ways, strict=True)])
    number = np.empty((len(corners), 8), dtype=np.int64)
    for k in range(8):
        at = (corners + np.array([k & 1, k >> 1 & 1, k >> 2])) % side
        number[:, k] = (at[:, 0] * side + at[:, 1]) * side + at[:, 2]
    edges = number[:, np.array(CUBE_EDGES)]
    name = f"tiles 3-D, {side}^3, shares {','.join(f'{p:g}' for p in probability)}"
    return _planted(side**3, edges.reshape(-1, 2), couplings.ravel(), -float(couplings.sum()), name, rng)


def _turned(antiferromagnetic: frozenset[tuple[int, int]]) -> NDArray[np.float64]:
    """The couplings of a cube by CUBE_EDGES in all 48 orientations, (48, 12)."""
    ways = []
    for axes, mirror in itertools.product(itertools.permutations(range(3)), range(8)):
        place = [sum((k >> axis & 1) << new for new, axis in enumerate(axes)) ^ mirror for k in range(8)]
        moved = {tuple(sorted((place[a], place[b]))) for a, b in antiferromagnetic}
        ways.append([-1.0 if edge in moved else 1.0 for edge in CUBE_EDGES])
    return np.array(ways)


def wishart(n: int, alpha: float, *, integer: bool = False, seed: int) -> PlantedInstance:
    """A dense instance J = -W W^T / n without its diagonal, where the columns of W are orthogonal to the planted state.

    E(s) = (|W^T s|^2 - sum_i |w_i|^2) / (2 n), and the square is zero for the planted state. W has round(alpha n)
    columns, at least one: Gaussian, projected, of mean square 1. Small alpha has many states almost as low and hardly
    any slope towards the planted one; from about alpha = 1 on instances become easy.

    With `integer` the columns are random signs with as many plus as minus, which are orthogonal without projection, and
    J = -W W^T: integers of at most round(alpha n), for devices with few bits. (Hamze et al. project signs, which gives
    integers of the order n^2.)

    Source: Hamze, Raymond, Pattison, Biswas, Katzgraber, Phys. Rev. E 101, 052102 (2020).

    Args:
        n: spins; even for integers.
        alpha: columns per spin, above 0.
        integer: small integer couplings.
        seed: of the instance.

    Raises:
        InvalidModelError: an n that is too small, odd where it must be even, alpha out of range, a bad seed.
    """
    n, rng = whole_number("n", n, 2, 20_000), _generator(seed)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha <= 10:
        raise InvalidModelError(f"alpha must be a number above 0 and at most 10, not {alpha!r}")
    columns = max(1, round(alpha * n))
    if integer:
        if n % 2:
            raise InvalidModelError(f"an integer Wishart instance has as many plus as minus signs; n = {n} is odd")
        balanced = np.tile(np.repeat([-1.0, 1.0], n // 2), (columns, 1))
        w, scale = rng.permuted(balanced, axis=1).T, 1.0
    else:
        w, scale = rng.normal(size=(n, columns)), float(n)
        w -= w.mean(axis=0)
        w *= math.sqrt(n / (n - 1))
    i, j = np.triu_indices(n, 1)
    couplings = -(w @ w.T)[i, j] / scale
    energy = -float(couplings.sum())
    edges, kept = np.stack([i, j], axis=1), couplings != 0
    name = f"Wishart, n = {n}, alpha = {alpha:g}{', integer' if integer else ''}"
    return _planted(n, edges[kept], couplings[kept], energy, name, rng)


def frustrated_loops(
    n: int,
    edges: ArrayLike,
    loops_per_spin: float,
    *,
    min_length: int = 4,
    max_coupling: int | None = None,
    seed: int,
) -> PlantedInstance:
    """Loops on any graph, each with one edge that must be broken, added up.

    A loop is what a random walk closes when it first meets itself. Its edges get J = 1, one of them at random J = -1,
    so its least energy is -(length - 2), and all up has it. Couplings add up where loops share edges, and remain
    integers; E = -sum over loops of (length - 2). Edges that cancel to zero are left out. Hardness peaks at some ratio
    of loops to spins, which depends on the graph.

    Source: Hen, Job, Albash, Ronnow, Troyer, Lidar, Phys. Rev. A 92, 042325 (2015); the limit on |J| is King, Lanting,
    Harris, arXiv:1502.02098.

    Args:
        n: spins.
        edges: pairs of sites, shape (n_edges, 2).
        loops_per_spin: loops divided by n, above 0.
        min_length: shorter loops are thrown away.
        max_coupling: a loop that would make a |J| larger than this is thrown away.
        seed: of the instance.

    Raises:
        InvalidModelError: a malformed graph, or one on which that many loops cannot be found.
    """
    n, rng = whole_number("n", n, 3), _generator(seed)
    graph = IsingModel(np.zeros(n), edges, np.zeros(len(np.asarray(edges)))).edges.tolist()
    if isinstance(loops_per_spin, bool) or not isinstance(loops_per_spin, int | float) or not 0 < loops_per_spin <= 1e3:
        raise InvalidModelError(f"loops_per_spin must be a number above 0 and at most 1000, not {loops_per_spin!r}")
    min_length = whole_number("min_length", min_length, 3)
    limit = None if max_coupling is None else whole_number("max_coupling", max_coupling, 1)
    neighbours: list[list[int]] = [[] for _ in range(n)]
    for i, j in graph:
        neighbours[i].append(j)
        neighbours[j].append(i)
    starts = [i for i in range(n) if len(neighbours[i]) >= 2]
    couplings: dict[tuple[int, int], int] = {}
    energy, wanted, tries = 0, max(1, round(loops_per_spin * n)), 0
    while wanted:
        tries += 1
        if tries > MAX_TRIES_PER_LOOP or not starts:
            raise InvalidModelError(f"{wanted} more loops of at least {min_length} edges do not fit on this graph")
        loop = _loop(neighbours, starts[rng.integers(len(starts))], rng)
        if len(loop) < min_length:
            continue
        broken = int(rng.integers(len(loop)))
        added = {edge: couplings.get(edge, 0) + (-1 if k == broken else 1) for k, edge in enumerate(loop)}
        if limit is not None and max(map(abs, added.values())) > limit:
            continue
        couplings.update(added)
        energy -= len(loop) - 2
        wanted, tries = wanted - 1, 0
    kept = {edge: value for edge, value in couplings.items() if value}
    pairs = np.array(list(kept), dtype=np.int64).reshape(-1, 2)
    name = f"frustrated loops, n = {n}, {loops_per_spin:g} a spin, |J| <= {max(map(abs, kept.values()), default=0)}"
    return _planted(n, pairs, np.array(list(kept.values()), dtype=np.float64), float(energy), name, rng)


def _loop(neighbours: list[list[int]], start: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """The edges of the loop that a random walk closes, never going straight back; empty at a dead end."""
    path, place = [start], {start: 0}
    while True:
        choices = [j for j in neighbours[path[-1]] if len(path) < 2 or j != path[-2]]
        if not choices:
            return []
        now = choices[rng.integers(len(choices))]
        if now in place:
            cycle = [*path[place[now] :], now]
            return [(min(a, b), max(a, b)) for a, b in itertools.pairwise(cycle)]
        place[now] = len(path)
        path.append(now)
