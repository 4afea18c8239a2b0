"""A program's rows as rectangles: JAX compiles for shapes, so colours and rows are padded to the longest of them."""
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from glauber.compile import AnyProgram
from numpy.typing import NDArray

DENSE_SHARE = 4
"""Rows become a matrix, and fields a product with it, where the longest row has at least n / DENSE_SHARE entries."""
DENSE_SITES = 8192
"""Of a model that may become a matrix: 512 MB of it."""


class Colours(NamedTuple):
    """Where each colour begins and ends, int32 (n_colours,)."""

    begin: Any
    end: Any


class Rows(NamedTuple):
    """What each position's neighbours are, padded by `width` positions that nothing points to.

    Attributes:
        neighbour: int32 (n_sites + width, degree), positions; 0 where a row has ended.
        entry: int32 (n_sites + width, degree): number of the row entry; -1 where a row has ended.
    """

    neighbour: Any
    entry: Any


def width_of(program: AnyProgram) -> int:
    """Positions of the largest colour."""
    return int(np.diff(program.order.colour_start).max())


def colours_of(program: AnyProgram) -> Colours:
    """The colours of a program."""
    start = np.asarray(program.order.colour_start, dtype=np.int32)
    return Colours(jnp.asarray(start[:-1]), jnp.asarray(start[1:]))


def padded(array: NDArray[Any], width: int) -> Any:
    """With `width` more rows of zeros, so that a slice of that many never runs out."""
    return jnp.asarray(np.concatenate([array, np.zeros((width, *array.shape[1:]), dtype=array.dtype)]))


def rows_of(program: AnyProgram) -> Rows:
    """Neighbours as a rectangle."""
    order, n = program.order, program.n_sites
    lengths = np.diff(order.row_start)
    degree, width = int(lengths.max(initial=1)), width_of(program)  # no loop over nothing
    entry = np.full((n, degree), -1, dtype=np.int32)
    row = np.repeat(np.arange(n), lengths)
    number = np.arange(len(order.neighbour), dtype=np.int32)
    entry[row, number - order.row_start[row]] = number
    neighbour = np.zeros((n, degree), dtype=np.int32)
    neighbour[entry >= 0] = order.neighbour[entry[entry >= 0]]
    return Rows(padded(neighbour, width), padded(entry + 1, width) - 1)


def is_dense(program: AnyProgram) -> bool:
    """Whether a matrix suits its couplings better than rows."""
    degree = int(np.diff(program.order.row_start).max(initial=0))
    return degree > 0 and degree * DENSE_SHARE >= program.n_sites and program.n_sites <= DENSE_SITES
