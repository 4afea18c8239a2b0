"""The slow reference for what happens to whole chains between sweeps: docs/machine.md, section 8."""

from __future__ import annotations

import numpy as np
from glauber.compile import Run
from numpy.typing import NDArray

from glauber_simulator.arithmetic import exp2, key_of, scale, threefry4x32

EXCHANGE, RESAMPLING = 2, 5


def exchange(run: Run, sweep: int, energies: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The exchanges after a sweep.

    Args:
        run: a tempered run.
        sweep: number of the sweep that has been done.
        energies: in steps, shape (n_chains,).

    Returns:
        For each chain the chain whose state it goes on with, and exchanges tried and made, (n_temperatures - 1, 2).
    """
    assert run.exchange is not None
    ladders = run.exchange.n_ladders
    source = np.arange(run.n_chains)
    counts = np.zeros((len(run.b) - 1, 2), dtype=np.int64)
    if sweep % run.exchange.every:
        return source, counts
    key = key_of(run.seed, EXCHANGE, 0, run.stream, sweep)
    for pair in range((sweep // run.exchange.every - 1) % 2, len(run.b) - 1, 2):
        for ladder in range(ladders):
            low, high = pair * ladders + ladder, (pair + 1) * ladders + ladder
            rise = int(energies[high] - energies[low])
            assert rise % 2 == 0  # every term of the energy changes by twice itself or not at all
            words = threefry4x32(key, (np.uint32(pair), np.uint32(sweep & 0xFFFFFFFF), np.uint32(ladder), np.uint32(0)))
            x = scale(np.array(abs(rise) // 2, np.uint64), int(run.b[pair + 1] - run.b[pair]))
            counts[pair, 0] += 1
            if rise >= 0 or int(words[0]) < int(exp2(x)) >> 30:
                counts[pair, 1] += 1
                source[low], source[high] = high, low
    return source, counts


def parents(run: Run, sweep: int, energies: NDArray[np.int64]) -> tuple[NDArray[np.int64], int, int]:
    """The resampling after a sweep.

    Args:
        run: a run of population annealing.
        sweep: number of the sweep that has been done.
        energies: in steps, shape (n_chains,).

    Returns:
        The parent of each chain, the lowest energy, and the sum of weights.
    """
    n, apart = run.n_chains, int(run.b[sweep] - run.b[sweep - 1])
    lowest = int(energies.min())
    weights = exp2(scale(((energies - lowest) // 2).astype(np.uint64), apart)) >> np.uint64((n - 1).bit_length())
    sums = np.cumsum(weights, dtype=np.uint64)
    total = int(sums[-1])
    zero = np.uint32(0)
    word = threefry4x32(
        key_of(run.seed, RESAMPLING, 0, run.stream, sweep), (zero, np.uint32(sweep & 0xFFFFFFFF), zero, zero)
    )[0]
    start = int(word) * total >> 32
    targets = np.array([(child * total + start) // n for child in range(n)], dtype=np.uint64)
    return np.searchsorted(sums, targets, side="right"), lowest, total
