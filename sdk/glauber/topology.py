"""Which sites of a machine are coupled: the graph families of published probabilistic computers.

A topology is a small frozen description (`King(rows=8, cols=8)`), cheap to store, compare and send as JSON; its edges
are generated on first use and kept. `Topology` is the union of all families, told apart by `family`.

Every graph is simple and undirected. Sites are numbered 0 .. n_sites - 1; an edge is a pair (i, j) with i < j. Where
the couplings of a machine are directed (Z1), both directions belong to the same edge.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib import import_module
from math import prod
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, model_validator

from glauber.errors import InvalidModelError

MAX_SITES = 2**31 - 1  # site numbers are int32 in every array
MAX_LISTED_EDGES = 2**27  # longest list that is generated, 1 GiB of int32 pairs; n_edges has no such bound

# Rules of OffsetGrid: the Z1 chip (arXiv 2608.01615, section II.B) and the DTM machine (arXiv 2510.23972, table 2).
Z1_RULES = ((1, 0), (2, 1), (2, 3), (4, 1))
DTM_G8_RULES = ((0, 1), (4, 1))
DTM_G12_RULES = (*DTM_G8_RULES, (9, 10))
DTM_G16_RULES = (*DTM_G8_RULES, (8, 7), (14, 9))

Size = Annotated[StrictInt, Field(ge=1)]
Site = Annotated[StrictInt, Field(ge=0, le=MAX_SITES)]
_Ends = Iterator[tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]]


class _Facts(NamedTuple):
    title: str
    n_sites: int
    n_edges: int
    max_degree: int | None = None  # None: not known from the fields alone


class TopologyBase(BaseModel, ABC):
    """What every family offers. A family states its facts and how to join its sites; the rest follows."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    __slots__ = ("_kept",)  # the generated edges; a slot, so that pydantic does not compare, copy or pickle them

    @abstractmethod
    def _facts(self) -> _Facts:
        """Title and counts by closed formula, without the edges."""

    @abstractmethod
    def _joined(self) -> _Ends:
        """Pairs of broadcastable site arrays: their elements are the two ends of every edge, once, in any order."""

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if self.n_sites > MAX_SITES:
            raise ValueError(f"{self._facts().title} has {self.n_sites} sites; at most {MAX_SITES} can be numbered")
        return self

    @property
    def n_sites(self) -> int:
        """Number of sites, from the fields alone."""
        return self._facts().n_sites

    @property
    def n_edges(self) -> int:
        """Number of edges, from the fields alone."""
        return self._facts().n_edges

    @property
    def max_degree(self) -> int:
        """Largest number of neighbours that any site has."""
        known = self._facts().max_degree
        return int(self.degrees().max()) if known is None else known

    def edges(self) -> NDArray[np.int32]:
        """All edges, shape (n_edges, 2), i < j, in lexicographic order. Read-only, generated once per instance."""
        return self._listed()[1]

    def has_edges(self, edges: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Which pairs of sites, shape (m, 2), either way round, are edges: shape (m,). False if a site is unknown."""
        pairs: NDArray[Any] = np.asarray(edges)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
            got = f"got {pairs.dtype} of shape {pairs.shape}"
            raise InvalidModelError(f"edges must be an integer array of shape (m, 2), one pair of sites per row; {got}")
        low, high = pairs.min(axis=1), pairs.max(axis=1)
        possible: NDArray[np.bool_] = (low >= 0) & (low < high) & (high < self.n_sites)
        return possible & self._contains(low.astype(np.int64), high.astype(np.int64))

    def degrees(self) -> NDArray[np.int32]:
        """Number of neighbours of each site, shape (n_sites,)."""
        return np.bincount(self.edges().ravel(), minlength=self.n_sites).astype(np.int32)

    def positions(self) -> NDArray[np.float64] | None:
        """Planar coordinates (x, y) for drawing, shape (n_sites, 2); None where the family has no natural ones."""
        return None

    def describe(self) -> str:
        """One line: family, size, counts and the largest degree."""
        title = self._facts().title
        return f"{title}, {self.n_sites:,} sites, {self.n_edges:,} edges, degree up to {self.max_degree:,}"

    def to_networkx(self) -> Any:
        """A `networkx.Graph` with nodes 0 .. n_sites - 1, isolated sites included."""
        graph = import_module("networkx").Graph()  # only here, being slow to load; by name, being untyped
        graph.add_nodes_from(range(self.n_sites))
        graph.add_edges_from(self.edges().tolist())
        return graph

    def _contains(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which pairs are edges; asked of any numbers, but the answer counts only where 0 <= low < high < n_sites."""
        codes, wanted = self._listed()[0], low * self.n_sites + high
        return np.searchsorted(codes, wanted, side="left") < np.searchsorted(codes, wanted, side="right")

    def _listed(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The codes i * n_sites + j of all edges, ascending, which is also the order of the pairs; and the pairs."""
        kept: tuple[NDArray[np.int64], NDArray[np.int32]] | None = getattr(self, "_kept", None)
        if kept is None:
            title, n, n_edges, _ = self._facts()
            if n_edges > MAX_LISTED_EDGES:
                raise InvalidModelError(f"{title}: at most {MAX_LISTED_EDGES} edges are listed, it has {n_edges}")
            parts = [(np.minimum(a, b).astype(np.int64) * n + np.maximum(a, b)).ravel() for a, b in self._joined()]
            codes = np.sort(np.concatenate(parts), kind="stable")  # a merge sort: most parts are already ascending
            kept = codes, np.stack((codes // n, codes % n), axis=1, dtype=np.int32)
            kept[1].setflags(write=False)
            object.__setattr__(self, "_kept", kept)
        return kept


class _Box(NamedTuple):
    title: str
    shape: tuple[int, ...]  # of the box that the sites fill in C order
    steps: tuple[tuple[int, ...], ...]  # to neighbours: one of each pair +step, -step
    periodic: bool = False


class _Grid(TopologyBase):
    """A family whose sites fill a box and have their neighbours at the same steps everywhere."""

    @abstractmethod
    def _box(self) -> _Box: ...

    @model_validator(mode="after")
    def _check_simple(self) -> Self:
        _, shape, steps, periodic = self._box()
        ways = [[sign * d for d in step] for step in steps for sign in (1, -1)]
        arrivals = {tuple(d % n if periodic else d for d, n in zip(way, shape, strict=True)) for way in ways}
        if len(arrivals - {(0,) * len(shape)}) < len(ways):
            why = "a periodic grid needs longer sides (at least 3), and no rule may be (0, 0) or a rotation of another"
            raise ValueError(f"{self._facts().title} would join a site to itself or to one neighbour twice: {why}")
        return self

    def positions(self) -> NDArray[np.float64] | None:
        """(x, y) = (column, row), shape (n_sites, 2); a chain lies on the x axis; None in 3-D."""
        shape = self._box().shape
        rows_and_cols = np.indices((1, *shape)[-2:], dtype=np.float64).reshape(2, -1)
        return rows_and_cols[::-1].T if len(shape) <= 2 else None

    def _facts(self) -> _Facts:
        title, shape, steps, periodic = self._box()
        if periodic:
            return _Facts(f"periodic {title}", prod(shape), len(steps) * prod(shape), 2 * len(steps))
        n_edges = sum(prod(max(0, n - abs(d)) for n, d in zip(shape, step, strict=True)) for step in steps)
        has_inside = all(n > 2 * abs(d) for step in steps for n, d in zip(shape, step, strict=True))  # of full degree
        return _Facts(title, prod(shape), n_edges, 2 * len(steps) if has_inside else None)

    def _joined(self) -> _Ends:
        _, shape, steps, periodic = self._box()
        sites = np.arange(prod(shape), dtype=np.int32).reshape(shape)
        for step in steps:
            if periodic:
                yield sites, np.roll(sites, [-d % n for n, d in zip(shape, step, strict=True)], axis=range(len(shape)))
            else:
                ends = [(max(0, -d), max(0, d), max(0, n - abs(d))) for n, d in zip(shape, step, strict=True)]
                here = tuple(slice(start, start + length) for start, _, length in ends)
                yield sites[here], sites[tuple(slice(start, start + length) for _, start, length in ends)]


class Chain(_Grid):
    """A line, k ~ k+1, of length - 1 edges; periodic (length >= 3) it is a ring of `length` edges."""

    family: Literal["chain"] = "chain"
    length: Size
    periodic: StrictBool = False

    def _box(self) -> _Box:
        return _Box(f"chain of {self.length}", (self.length,), ((1,),), self.periodic)


class Square(_Grid):
    """Square grid, 4 neighbours, site = row * cols + col. Edges 2 rows cols - rows - cols; periodic 2 rows cols."""

    family: Literal["square"] = "square"
    rows: Size
    cols: Size
    periodic: StrictBool = False

    def _box(self) -> _Box:
        return _Box(f"square grid {self.rows} x {self.cols}", (self.rows, self.cols), ((0, 1), (1, 0)), self.periodic)


class King(_Grid):
    """King's graph, max(|dx|, |dy|) = 1 (Hitachi). Site = row * cols + col; 4 rows cols - 3 (rows + cols) + 2 edges."""

    family: Literal["king"] = "king"
    rows: Size
    cols: Size

    def _box(self) -> _Box:
        steps = ((0, 1), (1, -1), (1, 0), (1, 1))
        return _Box(f"king's graph {self.rows} x {self.cols}", (self.rows, self.cols), steps)


class Cubic(_Grid):
    """Cubic grid, 6 neighbours (Edwards-Anderson), site = (x * size_y + y) * size_z + z. Periodic: 3 n_sites edges."""

    family: Literal["cubic"] = "cubic"
    size_x: Size
    size_y: Size
    size_z: Size
    periodic: StrictBool = False

    def _box(self) -> _Box:
        shape = (self.size_x, self.size_y, self.size_z)
        return _Box("cubic grid {} x {} x {}".format(*shape), shape, ((0, 0, 1), (0, 1, 0), (1, 0, 0)), self.periodic)


class OffsetGrid(_Grid):
    """Each rule (a, b) joins (x, y) to (x+a, y+b), (x-b, y+a), (x-a, y-b), (x+b, y-a) inside; site = y * width + x.

    These are the four rotations; mirror images are not among them. If all a + b are odd, the open grid is bipartite.
    Edges: sum over rules of max(0, W-|a|) max(0, H-|b|) + max(0, W-|b|) max(0, H-|a|), or 2 W H a rule when periodic.
    The default is the Z1 chip; `DTM_G8_RULES` and its like are others.
    """

    family: Literal["offset-grid"] = "offset-grid"
    width: Size
    height: Size
    rules: Annotated[tuple[tuple[StrictInt, StrictInt], ...], Field(min_length=1)] = Z1_RULES
    periodic: StrictBool = False

    def _box(self) -> _Box:
        title = f"offset grid {self.width} x {self.height} by " + " ".join(f"({a},{b})" for a, b in self.rules)
        steps = tuple(step for a, b in self.rules for step in ((b, a), (a, -b)))  # (dy, dx) of (a, b) and of (-b, a)
        return _Box(title, (self.height, self.width), steps, self.periodic)


def z1_grid(width: int, height: int) -> OffsetGrid:
    """The open grid of the Z1 chip. Its sides are not published: any width and height are an assumption."""
    return OffsetGrid(width=width, height=height)


class Complete(TopologyBase):
    """Every site is joined to every other: n (n - 1) / 2 edges. All-to-all machines."""

    family: Literal["complete"] = "complete"
    n: Size

    def degrees(self) -> NDArray[np.int32]:
        """N - 1 for each site, shape (n_sites,)."""
        return np.full(self.n, self.n - 1, dtype=np.int32)

    def _facts(self) -> _Facts:
        return _Facts(f"complete graph of {self.n}", self.n, self.n * (self.n - 1) // 2, self.n - 1)

    def _joined(self) -> _Ends:
        sites = np.arange(self.n, dtype=np.int32)
        return ((sites[i : i + 1], sites[i + 1 :]) for i in range(self.n))

    def _contains(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.bool_]:
        return low < high


class Bipartite(TopologyBase):
    """Left sites 0 .. left-1, each joined to every right site left .. left+right-1 (an RBM): left * right edges."""

    family: Literal["bipartite"] = "bipartite"
    left: Size
    right: Size

    def degrees(self) -> NDArray[np.int32]:
        """Size of the other layer for each site, shape (n_sites,)."""
        return np.repeat(np.array((self.right, self.left), dtype=np.int32), (self.left, self.right))

    def _facts(self) -> _Facts:
        left, right = self.left, self.right
        return _Facts(f"complete bipartite graph {left} + {right}", left + right, left * right, max(left, right))

    def _joined(self) -> _Ends:
        sites = np.arange(self.n_sites, dtype=np.int32)
        yield sites[: self.left, None], sites[self.left :]

    def _contains(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.bool_]:
        return (low < self.left) & (high >= self.left)


class Chimera(TopologyBase):
    """D-Wave's published Chimera definition C(m, n, t): an m x n grid of cells K(t, t). Bipartite.

    Site (i, j, u, k) is ((i n + j) 2 + u) t + k for i < m, j < n, u in {0, 1}, k < t. Internal (i,j,0,k) ~ (i,j,1,h)
    for all k, h; external (i,j,0,k) ~ (i+1,j,0,k) and (i,j,1,k) ~ (i,j+1,1,k).
    Sites 2 t m n, edges t^2 m n + t (2 m n - m - n), degree at most t + 2.
    """

    family: Literal["chimera"] = "chimera"
    m: Size
    n: Size
    t: Size = 4

    def _facts(self) -> _Facts:
        m, n, t = self.m, self.n, self.t
        n_edges = t**2 * m * n + t * (2 * m * n - m - n)
        return _Facts(f"Chimera C({m}, {n}, {t})", 2 * t * m * n, n_edges, t + min(max(m, n) - 1, 2))

    def _joined(self) -> _Ends:
        sites = np.arange(self.n_sites, dtype=np.int32).reshape(self.m, self.n, 2, self.t)
        yield sites[:, :, 0, :, None], sites[:, :, 1, None, :]
        yield sites[:-1, :, 0], sites[1:, :, 0]
        yield sites[:, :-1, 1], sites[:, 1:, 1]


class Pegasus(TopologyBase):
    """D-Wave's published Pegasus definition P(m), m >= 2, with the default offset lists.

    The published node (u, w, k, z), u in {0, 1}, w < m, k < 12, z < m-1, has the published linear index
    ((u m + w) 12 + k)(m - 1) + z. With S0 = (2,2,2,2,10,10,10,10,6,6,6,6) and S1 = (6,6,6,6,2,2,2,2,10,10,10,10):
    external (u,w,k,z) ~ (u,w,k,z+1); odd (u,w,2k,z) ~ (u,w,2k+1,z); internal (0,w0,k0,z0) ~ (1,w1,k1,z1) when
    w1 = z0 + [k1 < S0[k0]] and z1 = w0 - [k0 < S1[k1]].

    `fabric_only`, the default and the real chip, leaves out the nodes without internal couplers: w = 0 with k < 2 and
    w = m-1 with k >= 10. Sites are the nodes that are left, renumbered from 0 in the order of `published_index`.
    Fabric: 8 (m - 1)(3m - 1) sites, 180 m^2 - 360 m + 164 edges. Full: 24 m (m - 1) and 180 m^2 - 348 m + 144.
    """

    family: Literal["pegasus"] = "pegasus"
    m: Annotated[StrictInt, Field(ge=2)]
    fabric_only: StrictBool = True

    def published_index(self) -> NDArray[np.int64]:
        """The published linear index (the vendor's node number) of each site, ascending, shape (n_sites,)."""
        return np.flatnonzero(self._site_of_node() >= 0)

    def _facts(self) -> _Facts:
        m, degree = self.m, 13 + min(self.m - 2, 2)  # 12 internal, 1 odd, up to 2 external
        if self.fabric_only:
            return _Facts(f"Pegasus P({m})", 8 * (m - 1) * (3 * m - 1), 180 * m**2 - 360 * m + 164, degree)
        return _Facts(f"Pegasus P({m}) with all nodes", 24 * m * (m - 1), 180 * m**2 - 348 * m + 144, degree)

    def _site_of_node(self) -> NDArray[np.int32]:
        """The site at each published node [u, w, k, z], -1 where the node is left out."""
        sites = np.zeros((2, self.m, 12, self.m - 1), dtype=np.int32)
        if self.fabric_only:
            sites[:, 0, :2] = sites[:, -1, 10:] = -1
        sites[sites == 0] = np.arange(self.n_sites)
        return sites

    def _joined(self) -> _Ends:
        sites = self._site_of_node()
        w0, k0, z0, k1 = np.indices((self.m, 12, self.m - 1, 12), dtype=np.int32).reshape(4, -1)
        s0, s1 = np.repeat((2, 10, 6), 4), np.repeat((6, 2, 10), 4)
        w1, z1 = z0 + (k1 < s0[k0]), w0 - (k0 < s1[k1])
        inside = (z1 >= 0) & (z1 < self.m - 1)
        for one, other in (
            (sites[..., :-1], sites[..., 1:]),
            (sites[:, :, 0::2], sites[:, :, 1::2]),
            (sites[0, w0, k0, z0][inside], sites[1, w1[inside], k1[inside], z1[inside]]),
        ):
            both = (one >= 0) & (other >= 0)
            yield one[both], other[both]


class Zephyr(TopologyBase):
    """D-Wave's published Zephyr definition Z(m, t).

    Site (u, w, k, j, z) is (((u (2m+1) + w) t + k) 2 + j) m + z for u, j in {0, 1}, w <= 2m, k < t, z < m.
    External (u,w,k,j,z) ~ (u,w,k,j,z+1); odd (u,w,k,0,z) ~ (u,w,k,1,z) and (u,w,k,1,z-1);
    internal (0, 2w+1 + a(2i-1), k, j, z) ~ (1, 2z+1 + b(2j-1), h, i, w) for w, z < m; h, k < t; a, b, i, j < 2.
    Sites 4 t m (2m + 1), edges 2 t ((8t + 8) m^2 - 2m - 3), degree at most 4t + 4.
    """

    family: Literal["zephyr"] = "zephyr"
    m: Size
    t: Size = 4

    def _facts(self) -> _Facts:
        m, t = self.m, self.t
        n_edges, degree = 2 * t * ((8 * t + 8) * m**2 - 2 * m - 3), 4 * t + min(m - 1, 2) + min(m, 2)
        return _Facts(f"Zephyr Z({m}, {t})", 4 * t * m * (2 * m + 1), n_edges, degree)

    def _joined(self) -> _Ends:
        m, t = self.m, self.t
        sites = np.arange(self.n_sites, dtype=np.int32).reshape(2, 2 * m + 1, t, 2, m)
        yield sites[..., :-1], sites[..., 1:]
        yield sites[..., 0, :], sites[..., 1, :]
        yield sites[..., 0, 1:], sites[..., 1, :-1]
        w, z, h, k, i, j, a, b = np.ogrid[:m, :m, :t, :t, :2, :2, :2, :2]
        yield sites[0, 2 * w + 1 + a * (2 * i - 1), k, j, z], sites[1, 2 * z + 1 + b * (2 * j - 1), h, i, w]


class EdgeList(TopologyBase):
    """Any graph on n sites: what a machine reports about itself, or a chip with broken parts."""

    family: Literal["edge-list"] = "edge-list"
    n: Size
    edge_list: Annotated[tuple[tuple[Site, Site], ...], Field(repr=False)]

    @classmethod
    def from_networkx(cls, graph: Any) -> Self:
        """The edges of an undirected `networkx.Graph` whose nodes are the integers 0 .. n-1."""
        n, loops = len(graph), any(graph.has_edge(node, node) for node in graph)
        if loops or graph.is_directed() or graph.is_multigraph() or n == 0 or set(graph) != set(range(n)):
            what = "a graph without directions, parallel edges and self-loops, whose nodes are the integers 0 .. n-1"
            raise InvalidModelError(f"expected {what}; got {graph} on nodes {list(graph)[:4]} ...")
        return cls(n=n, edge_list=tuple(sorted((int(min(edge)), int(max(edge))) for edge in graph.edges)))

    @model_validator(mode="after")
    def _check_edges(self) -> Self:
        pairs = self._pairs()
        codes = pairs.min(axis=1) * self.n + pairs.max(axis=1)
        repeated = ~np.isin(np.arange(len(codes)), np.unique(codes, return_index=True)[1])
        for wrong, reason in (
            ((pairs >= self.n).any(axis=1), f"has a site outside 0..{self.n - 1}"),
            (pairs[:, 0] == pairs[:, 1], "joins a site to itself; put a field there instead"),
            (repeated, "is there twice, in this or the other orientation; list each edge once"),
        ):
            if wrong.any():
                raise ValueError(f"edge number {wrong.argmax()}, {self.edge_list[wrong.argmax()]}, {reason}")
        return self

    def _facts(self) -> _Facts:
        return _Facts(f"edge list on {self.n}", self.n, len(self.edge_list))

    def _joined(self) -> _Ends:
        one, other = self._pairs().T
        yield one, other

    def _pairs(self) -> NDArray[np.int64]:
        return np.array(self.edge_list, dtype=np.int64).reshape(-1, 2)


Topology = Annotated[
    Chain | Square | King | Cubic | Complete | Bipartite | Chimera | Pegasus | Zephyr | OffsetGrid | EdgeList,
    Field(discriminator="family"),
]
