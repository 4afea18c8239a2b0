"""Counts and degree histograms of devices.md section 2, the rules themselves, and what must hold for any graph."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import networkx as nx
import numpy as np
import pytest
from glauber.errors import InvalidModelError
from glauber.topology import (
    DTM_G8_RULES,
    DTM_G12_RULES,
    DTM_G16_RULES,
    MAX_LISTED_EDGES,
    Z1_RULES,
    Bipartite,
    Chain,
    Chimera,
    Complete,
    Cubic,
    EdgeList,
    King,
    OffsetGrid,
    Pegasus,
    Square,
    Topology,
    TopologyBase,
    Zephyr,
    z1_grid,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

ANY: TypeAdapter[Any] = TypeAdapter(Topology)
Pair = tuple[int, int]


def histogram(topology: TopologyBase) -> dict[int, int]:
    """How many sites have each degree, counted on the edges themselves."""
    degrees = np.bincount(topology.edges().ravel(), minlength=topology.n_sites)
    return dict(Counter(degrees.tolist()))


def pairs_of(topology: TopologyBase) -> set[Pair]:
    """The generated edges as a set of Python pairs."""
    return {(i, j) for i, j in topology.edges().tolist()}


def n_distinct(topology: TopologyBase) -> int:
    """Number of different edges, for graphs that are large for `pairs_of`."""
    edges = topology.edges().astype(np.int64)
    codes = np.sort(edges[:, 0] * topology.n_sites + edges[:, 1])
    return 1 + int(np.count_nonzero(np.diff(codes)))


def ordered(pairs: Iterable[Pair]) -> set[Pair]:
    """The same pairs with the smaller site first."""
    return {(min(pair), max(pair)) for pair in pairs}


def is_bipartite(topology: TopologyBase) -> bool:
    """By networkx, as a second opinion."""
    return bool(nx.is_bipartite(topology.to_networkx()))


def offset_grid(width: int, height: int, rules: tuple[Pair, ...] = Z1_RULES, periodic: bool = False) -> OffsetGrid:
    """Short for the tables below."""
    return OffsetGrid(width=width, height=height, rules=rules, periodic=periodic)


# --- published counts ------------------------------------------------------------------------------------

KING = [
    (2, 2, 4, 6, {3: 4}),
    (3, 3, 9, 20, {3: 4, 5: 4, 8: 1}),
    (4, 4, 16, 42, {3: 4, 5: 8, 8: 4}),
    (5, 7, 35, 106, {3: 4, 5: 16, 8: 15}),
    (8, 8, 64, 210, {3: 4, 5: 24, 8: 36}),
    (384, 384, 147_456, 587_522, {3: 4, 5: 1528, 8: 145_924}),
    (512, 512, 262_144, 1_045_506, {3: 4, 5: 2040, 8: 260_100}),
]

CHIMERA = [
    (1, 1, 4, 8, 16, {4: 8}),
    (2, 2, 4, 32, 80, {5: 32}),
    (4, 4, 4, 128, 352, {5: 64, 6: 64}),
    (12, 12, 4, 1152, 3360, {5: 192, 6: 960}),
    (16, 16, 4, 2048, 6016, {5: 256, 6: 1792}),
    (3, 5, 2, 60, 104, {3: 32, 4: 28}),
]

PEGASUS = [  # m, fabric sites and edges, full sites and edges
    (2, 40, 164, 48, 168),
    (3, 128, 704, 144, 720),
    (4, 264, 1604, 288, 1632),
    (6, 680, 4484, 720, 4536),
    (14, 4264, 30_404, 4368, 30_552),
    (16, 5640, 40_484, 5760, 40_656),
]
PEGASUS_DEGREES = {
    4: {6: 32, 7: 16, 10: 32, 11: 16, 14: 112, 15: 56},
    16: {6: 32, 7: 208, 10: 32, 11: 208, 14: 688, 15: 4472},
}
PEGASUS_NICE = [(2, 24, 92), (3, 96, 528), (4, 216, 1324), (6, 600, 3996), (16, 5400, 38_956)]

ZEPHYR = [
    (1, 4, 48, 280, {9: 32, 17: 16}),
    (2, 4, 160, 1224, None),
    (3, 4, 336, 2808, None),
    (4, 4, 576, 5032, None),
    (6, 4, 1248, 11_400, None),
    (12, 4, 4800, 45_864, {10: 32, 11: 32, 12: 320, 18: 368, 19: 368, 20: 3680}),
    (15, 4, 7440, 71_736, {10: 32, 11: 32, 12: 416, 18: 464, 19: 464, 20: 6032}),
    (3, 2, 168, 828, None),
]

Z1 = [  # width, height, sites, edges, sites of degree 16
    (8, 8, 64, 312, 0),
    (9, 9, 81, 420, 1),
    (21, 21, 441, 2964, 169),
    (24, 24, 576, 3960, 256),
    (16, 32, 512, 3448, 192),
    (70, 70, 4900, 37_264, 3844),
    (500, 500, 250_000, 1_986_024, 492 * 492),
]


@pytest.mark.parametrize(("rows", "cols", "n_sites", "n_edges", "degrees"), KING)
def test_king_counts(rows: int, cols: int, n_sites: int, n_edges: int, degrees: dict[int, int]) -> None:
    """Section 2.1, with the closed form of the design notes."""
    king = King(rows=rows, cols=cols)
    assert (king.n_sites, king.n_edges, n_distinct(king)) == (n_sites, n_edges, n_edges)
    assert n_edges == rows * (cols - 1) + cols * (rows - 1) + 2 * (rows - 1) * (cols - 1)
    assert histogram(king) == degrees


def test_king_needs_four_colours() -> None:
    """(x mod 2, y mod 2) is a proper colouring; a single 2 x 2 block is already K4, so fewer colours do not do."""
    king = King(rows=5, cols=7)
    row, col = np.divmod(king.edges(), 7)
    colours = 2 * (row % 2) + col % 2
    assert (colours[:, 0] != colours[:, 1]).all()
    assert pairs_of(King(rows=2, cols=2)) == pairs_of(Complete(n=4))
    assert not is_bipartite(king)


@pytest.mark.parametrize(("m", "n", "t", "n_sites", "n_edges", "degrees"), CHIMERA)
def test_chimera_counts(m: int, n: int, t: int, n_sites: int, n_edges: int, degrees: dict[int, int]) -> None:
    """Section 2.2."""
    chimera = Chimera(m=m, n=n, t=t)
    assert (chimera.n_sites, chimera.n_edges, n_distinct(chimera)) == (n_sites, n_edges, n_edges)
    assert (n_sites, n_edges) == (2 * t * m * n, t**2 * m * n + t * (2 * m * n - m - n))
    assert histogram(chimera) == degrees
    assert is_bipartite(chimera)


@pytest.mark.parametrize(("m", "fabric_sites", "fabric_edges", "full_sites", "full_edges"), PEGASUS)
def test_pegasus_counts(m: int, fabric_sites: int, fabric_edges: int, full_sites: int, full_edges: int) -> None:
    """Section 2.3; the P14 fabric is the graph of the 4,264 p-bit machine."""
    fabric, full = Pegasus(m=m), Pegasus(m=m, fabric_only=False)
    assert (fabric.n_sites, fabric.n_edges, n_distinct(fabric)) == (fabric_sites, fabric_edges, fabric_edges)
    assert (full.n_sites, full.n_edges, n_distinct(full)) == (full_sites, full_edges, full_edges)
    assert nx.is_connected(fabric.to_networkx())
    assert m == 2 or not is_bipartite(fabric)


@pytest.mark.parametrize("m", sorted(PEGASUS_DEGREES))
def test_pegasus_degrees(m: int) -> None:
    """Degree histogram of the fabric."""
    assert histogram(Pegasus(m=m)) == PEGASUS_DEGREES[m]


@pytest.mark.parametrize("m", range(2, 21))
def test_pegasus_closed_forms(m: int) -> None:
    """The number of fabric edges was fitted to a few sizes; a parabola that holds for 19 sizes is the right one."""
    fabric, full = Pegasus(m=m), Pegasus(m=m, fabric_only=False)
    assert (fabric.n_sites, full.n_sites) == (8 * (m - 1) * (3 * m - 1), 24 * m * (m - 1))
    assert (fabric.n_edges, full.n_edges) == (180 * m**2 - 360 * m + 164, 180 * m**2 - 348 * m + 144)
    assert (n_distinct(fabric), n_distinct(full)) == (fabric.n_edges, full.n_edges)


@pytest.mark.parametrize(("m", "n_sites", "n_edges"), PEGASUS_NICE)
def test_pegasus_nice_part(m: int, n_sites: int, n_edges: int) -> None:
    """The published 'nice' nodes, a regular part of the fabric: every group of four tracks loses one border column."""
    pegasus = Pegasus(m=m)
    u, w, k, z = np.unravel_index(pegasus.published_index(), (2, m, 12, m - 1))
    loses_first = np.array([[True, False, False], [True, True, False]])[u, k // 4]
    nice = np.where(loses_first, w > 0, w < m - 1)
    assert z.max() == m - 2
    assert nice.sum() == n_sites == 24 * (m - 1) ** 2
    assert nice[pegasus.edges()].all(axis=1).sum() == n_edges


@pytest.mark.parametrize(("m", "t", "n_sites", "n_edges", "degrees"), ZEPHYR)
def test_zephyr_counts(m: int, t: int, n_sites: int, n_edges: int, degrees: dict[int, int] | None) -> None:
    """Section 2.4; the formula for m = 1 is that of m > 1."""
    zephyr = Zephyr(m=m, t=t)
    assert (zephyr.n_sites, zephyr.n_edges, n_distinct(zephyr)) == (n_sites, n_edges, n_edges)
    assert n_edges == (2 * t * ((8 * t + 8) * m**2 - 2 * m - 3) if m > 1 else 2 * t * (8 * t + 3))
    assert n_sites == 4 * t * m * (2 * m + 1)
    assert degrees is None or histogram(zephyr) == degrees
    assert not is_bipartite(zephyr)


@pytest.mark.parametrize(("width", "height", "n_sites", "n_edges", "n_inside"), Z1)
def test_z1_counts(width: int, height: int, n_sites: int, n_edges: int, n_inside: int) -> None:
    """Section 2.5."""
    grid = z1_grid(width, height)
    assert (grid.n_sites, grid.n_edges, n_distinct(grid)) == (n_sites, n_edges, n_edges)
    assert histogram(grid).get(16, 0) == n_inside


@pytest.mark.parametrize(
    ("width", "height", "n_edges"), [(432, 624, 2_141_784), (468, 576, 2_141_952), (416, 648, 2_141_672)]
)
def test_z1_possible_dies(width: int, height: int, n_edges: int) -> None:
    """269,568 sites in three shapes that the published number allows."""
    grid = z1_grid(width, height)
    assert (grid.n_sites, grid.n_edges) == (269_568, n_edges)
    assert grid.max_degree == 16


def test_z1_of_the_paper() -> None:
    """The 21 x 21 grid: its histogram, and degree 16 exactly where all borders are at least 4 cells away."""
    grid = z1_grid(21, 21)
    expected = {5: 4, 6: 4, 8: 16, 9: 60, 10: 4, 11: 12, 12: 56, 13: 8, 14: 56, 15: 52, 16: 169}
    assert histogram(grid) == expected
    inside = np.zeros((21, 21), dtype=bool)
    inside[4:-4, 4:-4] = True
    assert np.array_equal(grid.degrees() == 16, inside.ravel())


def test_z1_is_two_coloured_by_the_checkerboard() -> None:
    """Every a + b is odd."""
    grid = z1_grid(21, 24)
    y, x = np.divmod(grid.edges(), 21)
    assert ((x + y) % 2).sum(axis=1).tolist() == [1] * grid.n_edges
    assert is_bipartite(grid)


def test_rotations_without_mirror_images() -> None:
    """(2, 1) and (-1, 2) are steps of the Z1 grid; (1, 2) is not."""
    grid = z1_grid(21, 21)
    centre = 10 * 21 + 10
    there = [centre + 1 * 21 + 2, centre + 2 * 21 - 1, centre - 1 * 21 - 2, centre - 2 * 21 + 1, centre + 2 * 21 + 1]
    assert grid.has_edges(np.array([(centre, site) for site in there])).tolist() == [True] * 4 + [False]


@pytest.mark.parametrize("side", [8, 9, 10, 12, 24])
def test_z1_torus(side: int) -> None:
    """Simple and 16-regular; bipartite if the sides are even."""
    torus = offset_grid(side, side, periodic=True)
    assert torus.n_edges == 8 * side**2 == n_distinct(torus)
    assert histogram(torus) == {16: side**2}
    assert is_bipartite(torus) == (side % 2 == 0)


@pytest.mark.parametrize(
    ("rules", "n_edges", "degree"),
    [(DTM_G8_RULES, 18_768, 8), (DTM_G12_RULES, 26_088, 12), (DTM_G16_RULES, 33_412, 16)],
)
def test_dtm_grids(rules: tuple[Pair, ...], n_edges: int, degree: int) -> None:
    """The grids of the DTM reference machine on 70 x 70."""
    grid = offset_grid(70, 70, rules)
    assert (grid.n_edges, n_distinct(grid), grid.max_degree) == (n_edges, n_edges, degree)
    assert is_bipartite(grid)


# --- the rules, written out with loops -------------------------------------------------------------------


def offset_pairs(width: int, height: int, rules: tuple[Pair, ...], periodic: bool) -> Iterator[Pair]:
    """Section 2.5, site by site."""
    for x, y, (a, b) in product(range(width), range(height), rules):
        for dx, dy in ((a, b), (-b, a), (-a, -b), (b, -a)):
            x2, y2 = x + dx, y + dy
            if periodic:
                x2, y2 = x2 % width, y2 % height
            if 0 <= x2 < width and 0 <= y2 < height:
                yield y * width + x, y2 * width + x2


def chimera_pairs(m: int, n: int, t: int) -> Iterator[Pair]:
    """Section 2.2, site by site."""

    def site(i: int, j: int, u: int, k: int) -> int:
        return ((i * n + j) * 2 + u) * t + k

    for i, j, k in product(range(m), range(n), range(t)):
        yield from ((site(i, j, 0, k), site(i, j, 1, h)) for h in range(t))
        if i + 1 < m:
            yield site(i, j, 0, k), site(i + 1, j, 0, k)
        if j + 1 < n:
            yield site(i, j, 1, k), site(i, j + 1, 1, k)


def pegasus_pairs(m: int, fabric_only: bool) -> Iterator[Pair]:
    """Section 2.3, node by node, by published linear index."""
    s0, s1 = (2,) * 4 + (10,) * 4 + (6,) * 4, (6,) * 4 + (2,) * 4 + (10,) * 4

    def present(w: int, k: int, z: int) -> bool:
        on_chip = not fabric_only or not ((w == 0 and k < 2) or (w == m - 1 and k >= 10))
        return on_chip and 0 <= w < m and 0 <= z < m - 1

    def node(u: int, w: int, k: int, z: int) -> int:
        return ((u * m + w) * 12 + k) * (m - 1) + z

    for w, k, z in product(range(m), range(12), range(m - 1)):
        if not present(w, k, z):
            continue
        for u in (0, 1):
            if present(w, k, z + 1):
                yield node(u, w, k, z), node(u, w, k, z + 1)
            if k % 2 == 0 and present(w, k + 1, z):
                yield node(u, w, k, z), node(u, w, k + 1, z)
        for k1 in range(12):
            w1, z1 = z + (k1 < s0[k]), w - (k < s1[k1])
            if present(w1, k1, z1):
                yield node(0, w, k, z), node(1, w1, k1, z1)


def zephyr_pairs(m: int, t: int) -> Iterator[Pair]:
    """Section 2.4, site by site."""

    def site(u: int, w: int, k: int, j: int, z: int) -> int:
        return (((u * (2 * m + 1) + w) * t + k) * 2 + j) * m + z

    for u, w, k, z in product((0, 1), range(2 * m + 1), range(t), range(m)):
        if z + 1 < m:
            yield from ((site(u, w, k, j, z), site(u, w, k, j, z + 1)) for j in (0, 1))
        yield from ((site(u, w, k, 0, z), site(u, w, k, 1, z - a)) for a in (0, 1) if z >= a)
    for w, z, h, k in product(range(m), range(m), range(t), range(t)):
        for i, j, a, b in product((0, 1), repeat=4):
            yield site(0, 2 * w + 1 + a * (2 * i - 1), k, j, z), site(1, 2 * z + 1 + b * (2 * j - 1), h, i, w)


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 5), (5, 1), (2, 3), (4, 6)])
def test_king_rule(rows: int, cols: int) -> None:
    """Neighbours are the pairs at Chebyshev distance 1."""
    cells = list(product(range(rows), range(cols)))
    near = {
        (i, j)
        for (i, p), (j, q) in product(enumerate(cells), repeat=2)
        if i < j and max(abs(p[0] - q[0]), abs(p[1] - q[1])) == 1
    }
    assert pairs_of(King(rows=rows, cols=cols)) == near


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 2), (5, 9), (9, 5), (11, 10)])
@pytest.mark.parametrize("rules", [Z1_RULES, DTM_G8_RULES, DTM_G16_RULES, ((-1, 2),), ((3, 3),)])
def test_offset_rule(width: int, height: int, rules: tuple[Pair, ...]) -> None:
    """Open grids, also where a step is longer than the grid."""
    assert pairs_of(offset_grid(width, height, rules)) == ordered(offset_pairs(width, height, rules, periodic=False))


@pytest.mark.parametrize(("width", "height"), [(8, 8), (9, 11), (10, 8)])
def test_offset_rule_periodic(width: int, height: int) -> None:
    """Tori with different sides, so that rows and columns cannot be confused."""
    torus = offset_grid(width, height, periodic=True)
    assert pairs_of(torus) == ordered(offset_pairs(width, height, Z1_RULES, periodic=True))


@pytest.mark.parametrize(("m", "n", "t"), [(1, 1, 1), (2, 2, 4), (3, 5, 2), (1, 4, 3), (4, 1, 3)])
def test_chimera_rule(m: int, n: int, t: int) -> None:
    """The vectorised edges are those of the rule."""
    assert pairs_of(Chimera(m=m, n=n, t=t)) == ordered(chimera_pairs(m, n, t))


@pytest.mark.parametrize("fabric_only", [True, False])
@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_pegasus_rule(m: int, fabric_only: bool) -> None:
    """The edges are those of the rule once the sites are given back their published numbers."""
    pegasus = Pegasus(m=m, fabric_only=fabric_only)
    index = pegasus.published_index()
    assert {(i, j) for i, j in index[pegasus.edges()].tolist()} == ordered(pegasus_pairs(m, fabric_only))


@pytest.mark.parametrize(("m", "t"), [(1, 1), (1, 4), (2, 2), (3, 2), (2, 4)])
def test_zephyr_rule(m: int, t: int) -> None:
    """The vectorised edges are those of the rule."""
    assert pairs_of(Zephyr(m=m, t=t)) == ordered(zephyr_pairs(m, t))


def test_pegasus_published_index() -> None:
    """Ascending, one number per site, without the nodes that have no internal coupler; the full graph keeps all."""
    fabric, full = Pegasus(m=3), Pegasus(m=3, fabric_only=False)
    index = fabric.published_index()
    assert index.shape == (128,)
    assert (np.diff(index) > 0).all()
    assert index[0] == 2 * 2  # u = 0, w = 0: k starts at 2, and each k has m - 1 = 2 nodes
    assert full.published_index().tolist() == list(range(144))
    u, w, k, z = np.unravel_index(np.setdiff1d(np.arange(144), index), (2, 3, 12, 2))
    assert set(zip(w.tolist(), k.tolist(), strict=True)) == {(0, 0), (0, 1), (2, 10), (2, 11)}
    assert (len(u), len(z)) == (16, 16)


def grid_graph(sides: tuple[int, ...], periodic: bool) -> Any:
    """Networkx's grid with its nodes numbered in C order."""
    graph = nx.grid_graph(sides[::-1], periodic=periodic)  # networkx takes the sides last to first
    return nx.relabel_nodes(graph, {node: int(np.ravel_multi_index(node, sides)) for node in graph})


@pytest.mark.parametrize(
    ("topology", "sides", "n_edges"),
    [
        (Square(rows=4, cols=6), (4, 6), 38),
        (Square(rows=1, cols=5), (1, 5), 4),
        (Square(rows=4, cols=6, periodic=True), (4, 6), 48),
        (Square(rows=3, cols=3, periodic=True), (3, 3), 18),
        (Cubic(size_x=3, size_y=4, size_z=5), (3, 4, 5), 133),
        (Cubic(size_x=3, size_y=4, size_z=5, periodic=True), (3, 4, 5), 180),
        (Cubic(size_x=1, size_y=1, size_z=1), (1, 1, 1), 0),
    ],
)
def test_square_and_cubic_are_networkx_grids(topology: Square | Cubic, sides: tuple[int, ...], n_edges: int) -> None:
    """Same numbering, same edges."""
    graph = grid_graph(sides, periodic=topology.periodic)
    assert topology.n_edges == n_edges
    assert pairs_of(topology) == ordered(graph.edges)


def test_chain_and_ring() -> None:
    """A ring is a chain with its ends joined."""
    assert pairs_of(Chain(length=5)) == {(0, 1), (1, 2), (2, 3), (3, 4)}
    assert pairs_of(Chain(length=5, periodic=True)) == {(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)}
    assert (Chain(length=1).n_edges, len(Chain(length=1).edges()), Chain(length=1).max_degree) == (0, 0, 0)


def test_dense_graphs() -> None:
    """Complete and bipartite graphs against networkx."""
    assert pairs_of(Complete(n=7)) == ordered(nx.complete_graph(7).edges)
    assert pairs_of(Bipartite(left=3, right=5)) == ordered(nx.complete_bipartite_graph(3, 5).edges)
    assert Complete(n=1).edges().shape == (0, 2)


def test_large_dense_graphs_need_no_list() -> None:
    """The published all-to-all machines are answered by arithmetic; only listing their edges is refused."""
    graph = Complete(n=147_456)
    assert graph.n_edges == 147_456 * 147_455 // 2
    assert graph.has_edges(np.array([(147_455, 0), (5, 5), (3, 147_456)])).tolist() == [True, False, False]
    assert graph.degrees().min() == graph.max_degree == 147_455
    with pytest.raises(InvalidModelError, match=f"at most {MAX_LISTED_EDGES} edges"):
        graph.edges()
    rbm = Bipartite(left=100_000, right=50_000)
    assert rbm.has_edges(np.array([(0, 100_000), (99_999, 99_998), (149_999, 1)])).tolist() == [True, False, True]
    assert rbm.max_degree == 100_000
    assert rbm.degrees()[[0, -1]].tolist() == [50_000, 100_000]


# --- what holds for every family -------------------------------------------------------------------------

small = st.integers(1, 6)
side = st.integers(3, 7)


def graphs(n: int) -> st.SearchStrategy[EdgeList]:
    """Any graph on n sites, its edges in any order and orientation."""
    pairs = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda pair: pair[0] != pair[1])
    unique = st.lists(pairs, unique_by=lambda pair: (min(pair), max(pair)), max_size=30 if n > 1 else 0)
    return unique.map(lambda edges: EdgeList(n=n, edge_list=tuple(edges)))


rule_sets = st.sampled_from([Z1_RULES, DTM_G8_RULES, DTM_G12_RULES, ((1, 0), (1, 1)), ((-1, 2),), ((0, 3), (5, 0))])
families: st.SearchStrategy[TopologyBase] = st.one_of(
    st.builds(Chain, length=small),
    st.builds(Chain, length=side, periodic=st.just(True)),
    st.builds(Square, rows=small, cols=small),
    st.builds(Square, rows=side, cols=side, periodic=st.just(True)),
    st.builds(King, rows=small, cols=small),
    st.builds(Cubic, size_x=small, size_y=small, size_z=small),
    st.builds(Cubic, size_x=side, size_y=side, size_z=side, periodic=st.just(True)),
    st.builds(Complete, n=small),
    st.builds(Bipartite, left=small, right=small),
    st.builds(Chimera, m=small, n=small, t=small),
    st.builds(Pegasus, m=st.integers(2, 5), fabric_only=st.booleans()),
    st.builds(Zephyr, m=st.integers(1, 4), t=st.integers(1, 4)),
    st.builds(OffsetGrid, width=st.integers(1, 14), height=st.integers(1, 14), rules=rule_sets),
    st.builds(OffsetGrid, width=st.integers(8, 12), height=st.integers(8, 12), periodic=st.just(True)),
    st.integers(1, 9).flatmap(graphs),
)


@settings(max_examples=300, deadline=None)
@given(families)
def test_edges_and_counts(topology: TopologyBase) -> None:
    """Edges are sorted, unique, i < j and in range; counts, degrees and description agree with them."""
    edges = topology.edges()
    assert edges.shape == (topology.n_edges, 2)
    assert edges.dtype == np.int32
    assert [tuple(edge) for edge in edges.tolist()] == sorted(pairs_of(topology))
    assert (edges[:, 0] < edges[:, 1]).all()
    assert ((edges >= 0) & (edges < topology.n_sites)).all()
    degrees = topology.degrees()
    assert degrees.dtype == np.int32
    assert degrees.tolist() == np.bincount(edges.ravel(), minlength=topology.n_sites).tolist()
    assert topology.max_degree == degrees.max()
    assert topology.describe().endswith(
        f", {topology.n_sites:,} sites, {topology.n_edges:,} edges, degree up to {degrees.max()}"
    )
    assert "\n" not in topology.describe()


@settings(max_examples=300, deadline=None)
@given(families, st.integers(0, 2**32 - 1))
def test_has_edges(topology: TopologyBase, seed: int) -> None:
    """True for every edge in both orientations, false for other pairs, also outside the graph."""
    edges, n = topology.edges(), topology.n_sites
    assert topology.has_edges(edges).all()
    assert topology.has_edges(edges[:, ::-1].astype(np.uint64)).all()
    drawn = np.random.default_rng(seed).integers(-2, n + 2, size=(200, 2))
    known = pairs_of(topology)
    assert topology.has_edges(drawn).tolist() == [(min(pair), max(pair)) in known for pair in drawn.tolist()]
    assert not topology.has_edges(np.repeat(np.arange(n), 2).reshape(-1, 2)).any()


@settings(max_examples=200, deadline=None)
@given(families)
def test_round_trips(topology: TopologyBase) -> None:
    """JSON, Python data, pickle and copies give an equal topology that lists the same edges, again read-only."""
    edges = topology.edges()
    again = ANY.validate_json(ANY.dump_json(topology))
    assert type(again) is type(topology)
    for other in (
        again,
        ANY.validate_python(topology.model_dump()),
        pickle.loads(pickle.dumps(topology)),
        copy.copy(topology),
        copy.deepcopy(topology),
        topology.model_copy(),
    ):
        assert other == topology
        assert hash(other) == hash(topology)
        assert np.array_equal(other.edges(), edges)
        assert not other.edges().flags.writeable


@settings(max_examples=100, deadline=None)
@given(families)
def test_networkx_and_back(topology: TopologyBase) -> None:
    """The same graph as an edge list."""
    graph = topology.to_networkx()
    assert sorted(graph) == list(range(topology.n_sites))
    again = EdgeList.from_networkx(graph)
    assert again.n_sites == topology.n_sites
    assert np.array_equal(again.edges(), topology.edges())


@settings(max_examples=100, deadline=None)
@given(families)
def test_positions(topology: TopologyBase) -> None:
    """One distinct point for each site, or None."""
    points = topology.positions()
    if isinstance(topology, Chain | Square | King | OffsetGrid):
        assert points is not None
        assert points.shape == (topology.n_sites, 2)
        assert points.dtype == np.float64
        assert len(np.unique(points, axis=0)) == topology.n_sites
    else:
        assert points is None


def test_positions_are_column_and_row() -> None:
    """The first coordinate runs along a row."""
    square, grid, chain = Square(rows=2, cols=3).positions(), z1_grid(3, 2).positions(), Chain(length=3).positions()
    assert square is not None
    assert grid is not None
    assert chain is not None
    assert square.tolist() == grid.tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]
    assert chain.tolist() == [[0, 0], [1, 0], [2, 0]]


def test_edges_are_kept_and_read_only() -> None:
    """Generated once per instance; a changed copy makes its own."""
    king = King(rows=4, cols=4)
    edges = king.edges()
    assert king.edges() is edges
    with pytest.raises(ValueError, match="read-only"):
        edges[0, 0] = 5
    assert len(king.model_copy(update={"cols": 3}).edges()) == King(rows=4, cols=3).n_edges
    assert len(pickle.dumps(king)) < 1000


@pytest.mark.parametrize(
    ("topology", "line"),
    [
        (King(rows=8, cols=8), "king's graph 8 x 8, 64 sites, 210 edges, degree up to 8"),
        (Chain(length=8, periodic=True), "periodic chain of 8, 8 sites, 8 edges, degree up to 2"),
        (Square(rows=2, cols=3), "square grid 2 x 3, 6 sites, 7 edges, degree up to 3"),
        (Cubic(size_x=2, size_y=3, size_z=4), "cubic grid 2 x 3 x 4, 24 sites, 46 edges, degree up to 5"),
        (z1_grid(16, 32), "offset grid 16 x 32 by (1,0) (2,1) (2,3) (4,1), 512 sites, 3,448 edges, degree up to 16"),
        (Complete(n=1024), "complete graph of 1024, 1,024 sites, 523,776 edges, degree up to 1,023"),
        (Bipartite(left=2, right=3), "complete bipartite graph 2 + 3, 5 sites, 6 edges, degree up to 3"),
        (Chimera(m=2, n=2), "Chimera C(2, 2, 4), 32 sites, 80 edges, degree up to 5"),
        (Pegasus(m=16), "Pegasus P(16), 5,640 sites, 40,484 edges, degree up to 15"),
        (Pegasus(m=2, fabric_only=False), "Pegasus P(2) with all nodes, 48 sites, 168 edges, degree up to 13"),
        (Zephyr(m=12), "Zephyr Z(12, 4), 4,800 sites, 45,864 edges, degree up to 20"),
        (EdgeList(n=3, edge_list=((2, 0),)), "edge list on 3, 3 sites, 1 edges, degree up to 1"),
    ],
)
def test_describe(topology: TopologyBase, line: str) -> None:
    """One line, as a device passport prints it."""
    assert topology.describe() == line


def test_families_are_told_apart_by_name() -> None:
    """The stored form is the family's name and its few fields."""
    assert ANY.validate_python({"family": "offset-grid", "width": 21, "height": 21}) == z1_grid(21, 21)
    assert ANY.dump_python(King(rows=2, cols=3)) == {"family": "king", "rows": 2, "cols": 3}
    names = set(ANY.json_schema()["discriminator"]["mapping"])
    others = {"square", "cubic", "complete", "bipartite", "chimera", "pegasus", "zephyr", "edge-list"}
    assert names == {"chain", "king", "offset-grid"} | others


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        {"family": "chain", "length": 0},
        {"family": "chain", "length": -3},
        {"family": "chain", "length": True},
        {"family": "chain", "length": 3.0},
        {"family": "chain", "length": "3"},
        {"family": "chain", "length": 3, "periodic": 1},
        {"family": "chain", "length": 3, "colour": "red"},
        {"family": "chain"},
        {"family": "king", "rows": 3, "cols": 3, "periodic": True},
        {"family": "pegasus", "m": 1},
        {"family": "pegasus", "m": 3, "fabric_only": "yes"},
        {"family": "offset-grid", "width": 9, "height": 9, "rules": []},
        {"family": "offset-grid", "width": 9, "height": 9, "rules": [(1, 0, 0)]},
        {"family": "offset-grid", "width": 9, "height": 9, "rules": [(1.0, 0)]},
        {"family": "edge-list", "n": 3, "edge_list": [(0, -1)]},
        {"family": "edge-list", "n": 3, "edge_list": [(0, True)]},
        {"family": "hexagon", "m": 3},
    ],
)
def test_malformed_fields_are_refused(data: dict[str, Any]) -> None:
    """Dimensions are whole positive numbers: no booleans, no floats, no text; no unknown fields or families."""
    with pytest.raises(ValidationError):
        ANY.validate_python(data)


def test_messages_for_dimensions() -> None:
    """The message names the field and says what it must be."""
    with pytest.raises(ValidationError, match=r"rows\s+Input should be greater than or equal to 1"):
        King(rows=0, cols=1)
    with pytest.raises(ValidationError, match=r"n\s+Input should be a valid integer"):
        Complete(n=True)


@pytest.mark.parametrize(
    "data",
    [
        {"family": "chain", "length": 2**31},
        {"family": "square", "rows": 2**16, "cols": 2**15},
        {"family": "bipartite", "left": 2**30, "right": 2**30},
        {"family": "zephyr", "m": 10**30},
    ],
)
def test_sites_beyond_32_bits_are_refused(data: dict[str, Any]) -> None:
    """Site numbers are int32."""
    with pytest.raises(ValidationError, match="at most 2147483647 can be numbered"):
        ANY.validate_python(data)


def test_largest_sizes_cost_nothing() -> None:
    """One site less is accepted, and its counts are exact."""
    assert Chain(length=2**31 - 1).n_edges == 2**31 - 2
    assert Complete(n=2**31 - 1).n_edges == (2**31 - 1) * (2**30 - 1)
    assert Square(rows=40_000, cols=40_000, periodic=True).describe().endswith("degree up to 4")


@pytest.mark.parametrize(
    "data",
    [
        {"family": "chain", "length": 1},
        {"family": "chain", "length": 2},
        {"family": "square", "rows": 2, "cols": 5},
        {"family": "square", "rows": 5, "cols": 1},
        {"family": "cubic", "size_x": 3, "size_y": 3, "size_z": 2},
        {"family": "offset-grid", "width": 8, "height": 2},
        {"family": "offset-grid", "width": 4, "height": 4},  # (4, 1) and (0, 1) are the same step
        {"family": "offset-grid", "width": 9, "height": 4, "rules": [(2, 0)]},  # (0, 2) and (0, -2) are
        {"family": "offset-grid", "width": 5, "height": 5, "rules": [(5, 0)]},  # leads back to the site
    ],
)
def test_too_small_a_torus_is_refused(data: dict[str, Any]) -> None:
    """A periodic grid must stay a simple graph; open, the same sizes are fine."""
    ANY.validate_python(data)
    with pytest.raises(ValidationError, match=r"needs longer sides \(at least 3\)"):
        ANY.validate_python({**data, "periodic": True})


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 11), st.integers(1, 11), rule_sets)
def test_torus_is_refused_exactly_when_it_is_not_simple(width: int, height: int, rules: tuple[Pair, ...]) -> None:
    """By the rule with loops: a simple torus has 2 W H different edges for each rule and no self-loop."""
    pairs = ordered(offset_pairs(width, height, rules, periodic=True))
    simple = len(pairs) == 2 * width * height * len(rules) and all(i != j for i, j in pairs)
    if simple:
        assert pairs_of(offset_grid(width, height, rules, periodic=True)) == pairs
    else:
        with pytest.raises(ValidationError, match="one neighbour twice"):
            offset_grid(width, height, rules, periodic=True)


@pytest.mark.parametrize(
    "rules", [((0, 0),), ((1, 0), (0, 1)), ((2, 1), (2, 1)), ((2, 1), (-1, 2)), ((2, 1), (-2, -1))]
)
def test_repeated_rules_are_refused(rules: tuple[Pair, ...]) -> None:
    """Two rules that are rotations of each other would give each edge twice."""
    with pytest.raises(ValidationError, match="rotation of another"):
        offset_grid(9, 9, rules)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (((0, 1), (2, 2)), r"edge number 1, \(2, 2\), joins a site to itself"),
        (((0, 1), (1, 2), (0, 1)), r"edge number 2, \(0, 1\), is there twice"),
        (((0, 1), (1, 0)), r"edge number 1, \(1, 0\), is there twice"),
        (((0, 3),), r"edge number 0, \(0, 3\), has a site outside 0..2"),
    ],
)
def test_bad_edge_lists_are_refused(edges: tuple[Pair, ...], message: str) -> None:
    """The message names the first edge that is wrong."""
    with pytest.raises(ValidationError, match=message):
        EdgeList(n=3, edge_list=edges)


def test_edge_list_without_edges() -> None:
    """Independent sites are a graph too, and a long list is not printed."""
    alone = EdgeList(n=3, edge_list=())
    assert alone.edges().shape == (0, 2)
    assert alone.degrees().tolist() == [0, 0, 0]
    assert not alone.has_edges(np.array([(0, 1)])).any()
    assert repr(EdgeList(n=2, edge_list=((0, 1),))) == "EdgeList(family='edge-list', n=2)"


@pytest.mark.parametrize(
    "graph",
    [
        nx.DiGraph([(0, 1)]),
        nx.MultiGraph([(0, 1), (0, 1)]),
        nx.Graph(),
        nx.Graph([(1, 2)]),
        nx.Graph([("a", "b")]),
        nx.Graph([(0, 1), (1, 1)]),
    ],
)
def test_from_networkx_refuses(graph: Any) -> None:
    """Only simple undirected graphs on 0 .. n-1."""
    with pytest.raises(InvalidModelError, match=r"expected a graph without directions.* got .*raph with \d nodes"):
        EdgeList.from_networkx(graph)


def test_from_networkx_takes_numpy_numbers() -> None:
    """Nodes that equal 0 .. n-1 are enough."""
    graph: Any = nx.Graph([(np.int64(2), np.int64(0))])
    graph.add_node(1)
    assert EdgeList.from_networkx(graph) == EdgeList(n=3, edge_list=((0, 2),))


@pytest.mark.parametrize(
    ("edges", "got"),
    [
        (np.zeros(2, dtype=int), r"int64 of shape \(2,\)"),
        (np.zeros((2, 3), dtype=int), r"int64 of shape \(2, 3\)"),
        (np.zeros((1, 2, 2), dtype=int), r"int64 of shape \(1, 2, 2\)"),
        (np.zeros((1, 2)), r"float64 of shape \(1, 2\)"),
        (np.zeros((1, 2), dtype=bool), r"bool of shape \(1, 2\)"),
    ],
)
def test_has_edges_refuses_other_arrays(edges: Any, got: str) -> None:
    """The message says what was given and what is expected."""
    with pytest.raises(InvalidModelError, match=rf"integer array of shape \(m, 2\).*got {got}"):
        Chain(length=3).has_edges(edges)


def test_no_pairs_no_answers() -> None:
    """An empty question is a valid one."""
    assert Chain(length=3).has_edges(np.empty((0, 2), dtype=np.int32)).shape == (0,)


def test_changes_are_refused() -> None:
    """A topology is frozen."""
    king = King(rows=2, cols=2)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(king, "rows", 3)  # noqa: B010 - as an assignment, the type checkers would refuse it first
    with pytest.raises(TypeError, match="abstract"):
        TopologyBase()  # type: ignore[abstract] # pyright: ignore[reportAbstractUsage]
