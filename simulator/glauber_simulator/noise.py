"""Normal numbers by integers, for flaws: the same on every machine (docs/machine.md, section 10)."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from glauber_simulator.arithmetic import U32, key_of, threefry4x32

NOISE, READOUT, FABRICATION = 8, 9, 10
"""Purposes of random words."""
PIECES = 64
OCTAVES = 25
UNIT = 2**24
"""Of normal numbers."""


def _table() -> NDArray[np.int32]:
    """Where each of 64 pieces of each octave begins: the quantile of (v + 1/2) / 2^32, in 2^-24."""
    starts = list(range(2 * PIECES))
    starts += [(PIECES + k) << octave for octave in range(1, OCTAVES) for k in range(PIECES)]
    quantile = NormalDist().inv_cdf
    values = [round(UNIT * quantile((v + 0.5) / 2**32)) for v in starts]
    return np.array([*values, 0], dtype=np.int32)


NORMAL = _table()


def normal(u: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    """Standard normal numbers in 2^-24 from uniform 32-bit ones; increasing, and odd around the middle."""
    u = np.asarray(u, dtype=np.uint64)
    high = u >= 2**31
    v = np.where(high, np.uint64(2**32 - 1) - u, u).astype(np.int64)
    octave = np.maximum(0, np.frexp(v.astype(np.float64))[1].astype(np.int64) - 7)  # bits of v beyond seven
    piece = PIECES * octave + (v >> octave)
    low = NORMAL[piece].astype(np.int64)
    rise = NORMAL[piece + 1].astype(np.int64) - low
    z = low + (rise * (v & ((1 << octave) - 1)) >> octave)
    return np.asarray(np.where(high, -z, z))


def words_at(
    key: tuple[int, int, int, int],
    first: NDArray[np.integer],
    sweep: int,
    second: NDArray[np.integer],
    last: int,
) -> list[NDArray[np.uint32]]:
    """The four words at the counters (first, low half of sweep, second, last), which are broadcast."""
    first, second = np.broadcast_arrays(first, second)
    return threefry4x32(key, (first.astype(U32), U32(sweep & 0xFFFFFFFF), second.astype(U32), U32(last)))


def fabricated(chip: int, kind: int, first: NDArray[np.integer], second: NDArray[np.integer]) -> NDArray[np.float64]:
    """Standard normal numbers of a chip: the same for the same chip, kind and pair of indices."""
    key = key_of(chip, FABRICATION, 0, 0, 0)
    return normal(words_at(key, np.asarray(first), kind, np.asarray(second), 0)[0]) / UNIT


def shuffled(chip: int, kind: int, n: int) -> NDArray[np.int64]:
    """The numbers 0 .. n - 1 in a random order of a chip's own."""
    return np.argsort(fabricated(chip, kind, np.arange(n), np.zeros(1, dtype=np.int64)), kind="stable")
