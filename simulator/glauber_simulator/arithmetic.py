"""The slow reference's integers: generator, uniforms, powers of two and thresholds (docs/machine.md, 3 to 6)."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

REPLICA_PLANES = 0

U32 = np.uint32
U64 = np.uint64
X_MAX = 63 << 32

Words = NDArray[np.uint32]
ULongs = NDArray[np.uint64]


def _rounded(value: Decimal) -> int:
    return int(value.to_integral_value(rounding=ROUND_HALF_EVEN))


with localcontext() as _context:
    _context.prec = 50
    _LN2 = Decimal(2).ln()
    A = U64(_rounded(2**38 * _LN2))
    B = U64(_rounded(2**30 * _LN2**2 / 2))
    C = U64(_rounded(2**30 * _LN2**3 / 6))
    E = np.array([_rounded(2**31 * (-_LN2 * j / 256).exp()) for j in range(256)], dtype=U64)


def threefry4x32(key: tuple[int, int, int, int], counter: tuple[Words | np.uint32, ...]) -> list[Words]:
    """Threefry4x32, 20 rounds (section 3): four words for each of the broadcast counters."""
    rotations = ((10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20))
    parity = 0x1BD11BDA ^ key[0] ^ key[1] ^ key[2] ^ key[3]
    keys = [U32(k) for k in (*key, parity)]
    with np.errstate(over="ignore"):  # arithmetic modulo 2^32 is meant
        x = [np.asarray(c, dtype=U32) + k for c, k in zip(np.broadcast_arrays(*counter), keys[:4], strict=True)]
        for r in range(20):
            odd, even = (1, 3) if r % 2 == 0 else (3, 1)
            for source, target, rotation in ((0, odd, rotations[r % 8][0]), (2, even, rotations[r % 8][1])):
                x[source] = x[source] + x[target]
                x[target] = (x[target] << U32(rotation) | x[target] >> U32(32 - rotation)) ^ x[source]
            if r % 4 == 3:
                i = r // 4 + 1
                x = [word + keys[(i + j) % 5] for j, word in enumerate(x)]
                x[3] = x[3] + U32(i)
    return x


def key_of(seed: int, purpose: int, layout: int, stream: int, sweep: int) -> tuple[int, int, int, int]:
    """The generator's key (section 3)."""
    return seed & 0xFFFFFFFF, seed >> 32, purpose + 16 * layout + 256 * stream, sweep >> 32


def uniforms(
    key: tuple[int, int, int, int], sweep: int, layout: int, positions: NDArray[np.int64], chains: NDArray[np.int64]
) -> ULongs:
    """u(position, sweep, chain) of section 4, 32-bit integers of shape (n_positions, n_chains)."""
    position, chain = positions[:, None], chains[None, :]
    if layout == REPLICA_PLANES:
        a, c, bit = position, chain >> 5, chain & 31
    else:
        a, c, bit = position >> 5, chain, position & 31
    u = np.zeros(np.broadcast_shapes(position.shape, chain.shape), dtype=U32)
    for g in range(8):
        words = threefry4x32(key, (a.astype(U32), U32(sweep & 0xFFFFFFFF), c.astype(U32), U32(g)))
        for w in range(4):
            u |= ((words[w] >> bit.astype(U32)) & U32(1)) << U32(31 - (4 * g + w))
    return u.astype(U64)


def exp2(x: ULongs) -> ULongs:
    """2^62 * 2^(-x / 2^32), section 6, for 0 <= x <= 63 * 2^32."""
    n, f = x >> U64(32), x & U64(0xFFFFFFFF)
    q = f & U64(0xFFFFFF)
    q2 = (q * q) >> U64(16)
    q3 = (q2 * q) >> U64(24)
    p = U64(1 << 62) - ((A * q) >> U64(8)) + ((B * q2) >> U64(16)) - ((C * q3) >> U64(24))
    scaled = E[f >> U64(24)] * (p >> U64(31))
    return np.where(n >= 62, U64(0), scaled >> np.minimum(n, U64(61)))


def scale(magnitude: ULongs, b: int) -> ULongs:
    """Magnitude * b, saturated at 63 * 2^32 before multiplying."""
    if b == 0:
        return np.zeros_like(magnitude)
    too_large = magnitude > U64(X_MAX // b)
    return np.where(too_large, U64(X_MAX), np.where(too_large, U64(0), magnitude) * U64(b))


def flip_thresholds(held: NDArray[np.int64], b: int) -> ULongs:
    """Metropolis' rule, section 6: a spin flips iff u is below this; `held` is its field times its sign."""
    e = exp2(scale(np.maximum(held, 0).astype(U64), b))
    return np.asarray(np.minimum(e >> U64(30), U64(0xFFFFFFFF)), dtype=U64)


def thresholds(field: NDArray[np.int64], b: int) -> ULongs:
    """T of section 6: s = +1 iff u < T."""
    return thresholds_at(scale(np.abs(field).astype(U64), b), field < 0)


def thresholds_at(x: ULongs, negative: NDArray[np.bool_]) -> ULongs:
    """The same from x of section 6, 0 <= x <= 63 * 2^32, and from -x where that is asked."""
    e = exp2(x)
    t = U64(1 << 63) // ((U64(1 << 62) + e + U64(1 << 30)) >> U64(31))
    t = np.minimum(t, U64(0xFFFFFFFF))
    return np.asarray(np.where(negative, U64(1 << 32) - t, t), dtype=U64)
