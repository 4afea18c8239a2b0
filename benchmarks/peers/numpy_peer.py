"""NumPy and SciPy, as a good user writes it in twenty lines: all sites of a colour at once, all chains side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import glauber as gl
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

from benchmarks.contender import Contender, UnsuitedError
from benchmarks.workloads import HIDDEN, VISIBLE, Workload, colour_blocks

Array = NDArray[np.float32]
ONE = np.float32(1)


def contenders(workload: Workload) -> list[Contender]:
    """A textbook form, and a tuned one: no temporaries, tanh in place of a quotient, the fastest bit generator."""
    model = workload.model
    if not isinstance(model, gl.IsingModel):
        raise UnsuitedError("the loop over sites is numba's")
    if workload.key == "W6":
        name, groups, textbook, tuned = "matmul", _layers(model), _textbook, _tuned
    elif workload.degree > 50:
        name, groups, textbook, tuned = "row by row", _rows(model), None, _tuned
    else:
        name, groups, textbook, tuned = "colour blocks", _colours(model), _textbook, _tuned
    ways = {} if textbook is None else {f"numpy {name}": (textbook, "PCG64")}
    ways[f"numpy {name}, tuned"] = (tuned, "SFC64")
    return [
        Contender(title, "numpy", "Gibbs", "float32", generator, _runner(update, groups, workload.beta, generator))
        for title, (update, generator) in ways.items()
    ]


Groups = list[tuple[Any, Any, Any]]
"""Sites of a block, the rows of the coupling matrix that give its fields, and its own fields as a column."""


def _matrix(model: gl.IsingModel) -> Any:
    i, j = model.edges.T
    both = (np.concatenate([i, j]), np.concatenate([j, i]))
    return coo_array((np.tile(model.couplings, 2).astype(np.float32), both), (model.n_sites, model.n_sites)).tocsr()


def _colours(model: gl.IsingModel) -> Groups:
    matrix, fields = _matrix(model), model.fields.astype(np.float32)[:, None]
    return [(block, matrix[block], fields[block]) for block in colour_blocks(model)]


def _layers(model: gl.IsingModel) -> Groups:
    """Slices and dense blocks of a machine with two layers."""
    weights = model.couplings.astype(np.float32).reshape(VISIBLE, HIDDEN)
    fields = model.fields.astype(np.float32)[:, None]
    visible, hidden = slice(0, VISIBLE), slice(VISIBLE, VISIBLE + HIDDEN)
    rows = [np.ascontiguousarray(weights.T), weights]
    return [
        (hidden, lambda s: rows[0] @ s[visible], fields[hidden]),
        (visible, lambda s: rows[1] @ s[hidden], fields[visible]),
    ]


def _rows(model: gl.IsingModel) -> Groups:
    matrix, fields = _matrix(model).toarray(), model.fields.astype(np.float32)[:, None]
    return [(slice(k, k + 1), matrix[k : k + 1], fields[k : k + 1]) for k in range(model.n_sites)]


def _product(rows: Any, s: Array) -> Array:
    return np.asarray(rows(s) if callable(rows) else rows @ s)


def _textbook(s: Array, groups: Groups, beta: Any, rng: np.random.Generator) -> None:
    for block, rows, field in groups:
        p = 1 / (1 + np.exp(-2 * beta * (_product(rows, s) + field)))
        s[block] = np.where(rng.random(p.shape, dtype=np.float32) < p, ONE, -ONE)


def _tuned(s: Array, groups: Groups, beta: Any, rng: np.random.Generator) -> None:
    """The p-bit's own formula, s = sign(tanh(beta h) - r) with r uniform on (-1, 1)."""
    for block, rows, field in groups:
        x = _product(rows, s)
        x += field
        x *= beta
        np.tanh(x, out=x)
        r = rng.random(x.shape, dtype=np.float32)
        r *= 2
        r -= ONE
        x -= r
        s[block] = np.copysign(ONE, x)


def _runner(update: Callable[..., None], groups: Groups, beta: float, generator: str) -> Any:
    def run(start: NDArray[Any], sweeps: int, seed: int) -> tuple[float, NDArray[Any]]:
        rng = np.random.Generator(getattr(np.random, generator)(seed))
        s = np.ascontiguousarray(start.T).astype(np.float32)
        began = time.perf_counter()
        for _ in range(sweeps):
            update(s, groups, np.float32(beta), rng)
        return time.perf_counter() - began, s.T.astype(np.int8)

    return run
