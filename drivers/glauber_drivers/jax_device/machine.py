"""The integers of docs/machine.md, sections 3 to 6, as JAX arrays: generator, uniforms, powers of two, thresholds.

Words are uint32; what is wider is uint64, so all of it is traced and called under `x64`.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

DECISION, START, EXCHANGE, CATEGORICAL, METROPOLIS = 0, 1, 2, 3, 4
REPLICA_PLANES = 0
X_MAX = 63 << 32

_ROTATIONS = ((10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20))
_PARITY = 0x1BD11BDA


def _rounded(value: Decimal) -> int:
    return int(value.to_integral_value(rounding=ROUND_HALF_EVEN))


with localcontext() as _context:
    _context.prec = 50
    _LN2 = Decimal(2).ln()
    _A = _rounded(2**38 * _LN2)
    _B = _rounded(2**30 * _LN2**2 / 2)
    _C = _rounded(2**30 * _LN2**3 / 6)
    _E = np.array([_rounded(2**31 * (-_LN2 * j / 256).exp()) for j in range(256)], dtype=np.uint64)


def x64() -> Any:
    """A context in which JAX has 64-bit integers; elsewhere in the process it stays as it was."""
    return jax.enable_x64(True)


def u32(value: Any) -> Any:
    """As words, modulo 2^32."""
    return jnp.asarray(value).astype(jnp.uint32)


def u64(value: Any) -> Any:
    """As unsigned 64-bit integers."""
    return jnp.asarray(value).astype(jnp.uint64)


def halves(number: Any) -> tuple[Any, Any]:
    """(low, high) words of 64-bit numbers."""
    number = u64(number)
    return u32(number & 0xFFFFFFFF), u32(number >> 32)


def threefry4x32(key: tuple[Any, Any, Any, Any], counter: tuple[Any, Any, Any, Any]) -> list[Any]:
    """Threefry4x32 with 20 rounds: four words for each of the broadcast counters."""
    keys = [u32(word) for word in key]
    keys.append(keys[0] ^ keys[1] ^ keys[2] ^ keys[3] ^ jnp.uint32(_PARITY))
    x = [u32(word) + k for word, k in zip(jnp.broadcast_arrays(*counter), keys[:4], strict=True)]

    def four_rounds(i: Any, x: Any, rotations: Any) -> Any:
        for r, (first, second) in enumerate(rotations):
            odd, even = (1, 3) if r % 2 == 0 else (3, 1)
            for source, target, by in ((0, odd, first), (2, even, second)):
                x[source] = x[source] + x[target]
                x[target] = ((x[target] << by) | (x[target] >> (32 - by))) ^ x[source]
        x = [word + keys[(i + j) % 5] for j, word in enumerate(x)]
        x[3] = x[3] + jnp.uint32(i)
        return x

    for i in range(1, 6):
        x = four_rounds(i, x, _ROTATIONS[:4] if i % 2 else _ROTATIONS[4:])
    return x


def key_of(seed: Any, purpose: int, layout: int, stream: int, sweep: Any) -> tuple[Any, Any, Any, Any]:
    """The generator's key of a purpose and a sweep."""
    low, high = halves(seed)
    return low, high, jnp.uint32(purpose + 16 * layout + 256 * stream), halves(sweep)[1]


def uniforms(key: Any, sweep: Any, layout: int, n_sites: int, first_chain: int, n_chains: int) -> Any:
    """u(position, sweep, chain), uint32 of shape (n_sites, n_chains): section 4, all positions of a sweep at once.

    A word holds one bit of 32 neighbours: chains in replica planes, positions in site planes. So 32 words are drawn for
    32 numbers, and turned round.
    """
    low = halves(sweep)[0]
    if layout == REPLICA_PLANES:
        first, lines, lanes = first_chain // 32, n_sites, -(-(first_chain % 32 + n_chains) // 32)
        a, c = jnp.arange(lines)[:, None], (first + jnp.arange(lanes))[None]
    else:
        lines, lanes = n_chains, -(-n_sites // 32)
        a, c = jnp.arange(lanes)[None], (first_chain + jnp.arange(lines))[:, None]
    bits = jnp.arange(32, dtype=jnp.uint32)
    u = jnp.zeros((lines, lanes, 32), dtype=jnp.uint32)

    def four_planes(g: Any, u: Any) -> Any:
        words = threefry4x32(key, (a, low, c, g))
        for w, word in enumerate(words):
            u = u | (((word[..., None] >> bits) & 1) << (31 - (4 * u32(g) + w)))
        return u

    u = jax.lax.fori_loop(0, 8, four_planes, u).reshape(lines, lanes * 32)
    if layout == REPLICA_PLANES:
        return u[:, first_chain % 32 : first_chain % 32 + n_chains]
    return u[:, :n_sites].T


def exp2(x: Any) -> Any:
    """2^62 * 2^(-x / 2^32) of section 6, for 0 <= x <= 63 * 2^32."""
    n, f = x >> 32, x & 0xFFFFFFFF
    q = f & 0xFFFFFF
    q2 = (q * q) >> 16
    q3 = (q2 * q) >> 24
    p = (
        jnp.uint64(1 << 62)
        - ((jnp.uint64(_A) * q) >> 8)
        + ((jnp.uint64(_B) * q2) >> 16)
        - ((jnp.uint64(_C) * q3) >> 24)
    )
    scaled = jnp.asarray(_E)[(f >> 24).astype(jnp.int32)] * (p >> 31)
    return jnp.where(n >= 62, jnp.uint64(0), scaled >> jnp.minimum(n, jnp.uint64(61)))


def scale(magnitude: Any, b: Any) -> Any:
    """Magnitude times b, both uint64, cut at 63 * 2^32 before they are multiplied."""
    limit = jnp.uint64(X_MAX) // jnp.maximum(b, jnp.uint64(1))
    x = jnp.where(magnitude > limit, jnp.uint64(X_MAX), jnp.minimum(magnitude, limit) * b)
    return jnp.where(b == 0, jnp.uint64(0), x)


def thresholds(field: Any, b: Any) -> Any:
    """T of section 6, uint64: s = +1 iff u < T."""
    e = exp2(scale(u64(jnp.abs(field)), b))
    t = jnp.uint64(1 << 63) // ((jnp.uint64(1 << 62) + e + jnp.uint64(1 << 30)) >> 31)
    t = jnp.minimum(t, jnp.uint64(0xFFFFFFFF))
    return jnp.where(field < 0, jnp.uint64(1 << 32) - t, t)


def flip_thresholds(held: Any, b: Any) -> Any:
    """Metropolis' rule: a spin flips iff u is below this; `held` is its field times its sign."""
    e = exp2(scale(u64(jnp.maximum(held, 0)), b))
    return jnp.minimum(e >> 30, jnp.uint64(0xFFFFFFFF))


def share_of(u: Any, total: Any) -> Any:
    """floor(u total / 2^32) of a 32-bit u and a total below 2^63, in 64 bits."""
    u = u64(u)
    return u * (total >> 32) + (u * (total & 0xFFFFFFFF) >> 32)
