"""The order in which a graph's sites are updated: colours, positions, and one directed row per site.

docs/machine.md, section 2: two colours by breadth-first search from the lowest index where that is possible, else
greedy by (degree descending, index) into the smallest free colour; inside a colour ascending index. The order is part
of the contract: two bodies that disagree on it draw different samples.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Order:
    """Positions and rows of a graph.

    Attributes:
        site: the site at each position, int32 (n_sites,).
        position: the position of each site, its inverse.
        colour_start: first position of each colour and n_sites, int32 (n_colours + 1,).
        row_start: where each position's row begins, int64 (n_sites + 1,).
        neighbour: positions, int32 (2 n_edges,).
        row_edge: which edge each row entry came from, int32.
        row_forward: True where the row's own site is the edge's first one.
    """

    site: NDArray[np.int32]
    position: NDArray[np.int32]
    colour_start: NDArray[np.int32]
    row_start: NDArray[np.int64]
    neighbour: NDArray[np.int32]
    row_edge: NDArray[np.int32]
    row_forward: NDArray[np.bool_]


def adjacency(n_sites: int, edges: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """(start, neighbour): the neighbours of site i, ascending, are neighbour[start[i] : start[i + 1]]."""
    source = np.concatenate([edges[:, 0], edges[:, 1]])
    target = np.concatenate([edges[:, 1], edges[:, 0]])
    by_row = np.lexsort((target, source))
    start = np.zeros(n_sites + 1, dtype=np.int64)
    np.cumsum(np.bincount(source, minlength=n_sites), out=start[1:])
    return start, target[by_row].astype(np.int32)


def colours_of(n_sites: int, edges: NDArray[np.int32]) -> NDArray[np.int32]:
    """The colour of each site by the contract's rule, int32 (n_sites,)."""
    if len(edges) == 0:
        return np.zeros(n_sites, dtype=np.int32)
    if len(edges) == n_sites * (n_sites - 1) // 2:  # complete: all degrees equal, so greedy numbers them in order
        return np.arange(n_sites, dtype=np.int32)
    start_array, neighbour_array = adjacency(n_sites, edges)
    start, neighbour = start_array.tolist(), neighbour_array.tolist()
    two = _two_colours(n_sites, start, neighbour)
    if two is not None:
        return np.array(two, dtype=np.int32)
    degree = np.diff(start_array)
    colour = [-1] * n_sites
    for site in np.lexsort((np.arange(n_sites), -degree)).tolist():
        taken = {colour[k] for k in neighbour[start[site] : start[site + 1]]}
        free = 0
        while free in taken:
            free += 1
        colour[site] = free
    return np.array(colour, dtype=np.int32)


def _two_colours(n_sites: int, start: list[int], neighbour: list[int]) -> list[int] | None:
    """Colours 0 and 1 with 0 for the lowest site of each component, or None if there is an odd cycle."""
    colour = [-1] * n_sites
    for root in range(n_sites):
        if colour[root] >= 0:
            continue
        colour[root] = 0
        front = [root]
        while front:
            found: list[int] = []
            for site in front:
                other = 1 - colour[site]
                for k in neighbour[start[site] : start[site + 1]]:
                    if colour[k] < 0:
                        colour[k] = other
                        found.append(k)
                    elif colour[k] != other:
                        return None
            front = found
    return colour


def make_order(n_sites: int, edges: NDArray[np.int32]) -> Order:
    """Colours, positions and rows of a graph; `order_of` caches them."""
    colour = colours_of(n_sites, edges)
    site = np.lexsort((np.arange(n_sites), colour)).astype(np.int32)
    position = np.empty(n_sites, dtype=np.int32)
    position[site] = np.arange(n_sites, dtype=np.int32)
    colour_start = np.concatenate([[0], np.cumsum(np.bincount(colour))]).astype(np.int32)
    m = len(edges)
    source = position[np.concatenate([edges[:, 0], edges[:, 1]])]
    target = position[np.concatenate([edges[:, 1], edges[:, 0]])]
    by_row = np.lexsort((target, source))
    row_start = np.zeros(n_sites + 1, dtype=np.int64)
    np.cumsum(np.bincount(source, minlength=n_sites), out=row_start[1:])
    row_edge = (by_row % m if m else by_row).astype(np.int32)
    arrays = (site, position, colour_start, row_start, target[by_row], row_edge, by_row < m)
    for array in arrays:
        array.setflags(write=False)
    return Order(*arrays)


_cache: OrderedDict[str, Order] = OrderedDict()
_cache_lock = threading.Lock()
_CACHED_GRAPHS = 64


def order_of(graph_key: str, n_sites: int, edges: NDArray[np.int32]) -> Order:
    """The order of a graph, from the cache where a graph of that key has been ordered before."""
    with _cache_lock:
        if graph_key in _cache:
            _cache.move_to_end(graph_key)
            return _cache[graph_key]
    order = make_order(n_sites, edges)
    with _cache_lock:
        _cache[graph_key] = order
        while len(_cache) > _CACHED_GRAPHS:
            _cache.popitem(last=False)
    return order
