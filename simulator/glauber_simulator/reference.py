"""The slow reference: the living definition of the machine, in NumPy integers.

Every other body, the C core, CUDA, firmware, must return these states bit for bit. It is written to be read beside
docs/machine.md, and nothing in it is shared with the C code. Its arithmetic is in arithmetic.py, what happens between
sweeps in moves.py.
"""

from __future__ import annotations

import numpy as np
from glauber.compile import PottsProgram, Program, Run, pack_spins, unpack_spins
from glauber.driver import Events, Resamplings
from glauber.samples import Moments
from numpy.typing import NDArray

from glauber_simulator.arithmetic import (
    U32,
    U64,
    ULongs,
    exp2,
    flip_thresholds,
    key_of,
    scale,
    threefry4x32,
    thresholds,
    uniforms,
)
from glauber_simulator.moves import exchange, parents
from glauber_simulator.session import potts_dtype

DECISION, START, CATEGORICAL, METROPOLIS = 0, 1, 3, 4


def _b_of_sweep(run: Run, sweep: int) -> int:
    return int(run.b[min(sweep, len(run.b)) - 1])


def _thresholds_by_chain(run: Run, sweep: int, field: NDArray[np.int64]) -> ULongs:
    """Thresholds of fields of shape (n_positions, n_chains), at the temperature that each chain has in this sweep."""
    if run.exchange is None:
        return thresholds(field, _b_of_sweep(run, sweep))
    parts = np.split(field, len(run.b), axis=1)  # one temperature after another
    return np.concatenate([thresholds(part, int(b)) for part, b in zip(parts, run.b, strict=True)], axis=1)


class IsingReference:
    """An Ising run in progress on the reference; see Session."""

    def __init__(self, program: Program, run: Run) -> None:
        self._program, self._run = program, run
        self._chains = run.first_chain + np.arange(run.n_chains, dtype=np.int64)
        n, order = program.n_sites, program.order
        self._dense = np.zeros((n, n), dtype=np.int64)
        rows = np.repeat(np.arange(n), np.diff(order.row_start))
        np.add.at(self._dense, (rows, order.neighbour), program.weight)
        fields = program.field[None] if run.fields is None else run.fields
        self._fields = np.broadcast_to(fields, (run.n_chains, n))[:, order.site].T.astype(np.int64)
        clamp = np.zeros((1, n), np.int8) if run.clamp is None else run.clamp
        self._clamp = np.broadcast_to(clamp, (run.n_chains, n))[:, order.site].T
        if run.initial is not None:
            spins = unpack_spins(run.initial.astype(np.uint8), n)[:, order.site].T.astype(np.int64)
        else:
            key = key_of(run.seed, START, run.layout, run.stream, 0)
            u = uniforms(key, 0, run.layout, np.arange(n), self._chains)
            spins = np.where(u < U64(1 << 31), 1, -1)
        self._spins = np.where(self._clamp != 0, self._clamp, spins).astype(np.int64)
        self._families: NDArray[np.integer] = np.arange(run.n_chains)
        if run.resample is not None and run.resample.families is not None:
            self._families = run.resample.families
        self._count = 0
        self._site_sum = np.zeros((run.n_chains, n), dtype=np.int64)
        self._edge_sum = np.zeros((run.n_chains, program.n_edges), dtype=np.int64)
        if run.initial_moments is not None:
            self._count = run.initial_moments[0]
            self._site_sum += run.initial_moments[1]
            if run.initial_moments[2] is not None:
                self._edge_sum += run.initial_moments[2]

    @property
    def facts(self) -> dict[str, str]:
        """The body that computed."""
        return {"kernel": "ising", "isa": "numpy", "body": "reference"}

    def _sweep(self, sweep: int) -> None:
        run, order = self._run, self._program.order
        metropolis = run.dynamics == "metropolis"
        key = key_of(run.seed, METROPOLIS if metropolis else DECISION, run.layout, run.stream, sweep)
        for begin, end in zip(order.colour_start[:-1], order.colour_start[1:], strict=True):
            positions = np.arange(begin, end, dtype=np.int64)
            field = self._fields[begin:end] + self._dense[begin:end] @ self._spins
            u = uniforms(key, sweep, run.layout, positions, self._chains)
            spins = self._spins[begin:end]
            if metropolis:
                drawn = np.where(u < flip_thresholds(field * spins, _b_of_sweep(run, sweep)), -spins, spins)
            else:
                drawn = np.where(u < _thresholds_by_chain(run, sweep, field), 1, -1)
            self._spins[begin:end] = np.where(self._clamp[begin:end] == 0, drawn, spins)

    def _energies(self) -> NDArray[np.int64]:
        """In steps, shape (n_chains,)."""
        pairs = (self._spins * (self._dense @ self._spins)).sum(axis=0)  # each coupling twice
        return np.asarray(-(self._fields * self._spins).sum(axis=0) - pairs // 2)

    def _move(self, sweep: int) -> None:
        """What happens to whole chains after a sweep."""
        if self._run.exchange is not None:
            source, counts = exchange(self._run, sweep, self._energies())
            self._spins = self._spins[:, source]
            self._exchanges += counts
        resample = self._run.resample
        if resample is not None and sweep % resample.every == 0 and sweep < len(self._run.b):
            source, lowest, weights = parents(self._run, sweep, self._energies())
            self._spins, self._families = self._spins[:, source], self._families[source]
            self._resamplings.append((lowest, weights))

    def _by_site(self) -> NDArray[np.int8]:
        spins = np.empty((self._run.n_chains, self._program.n_sites), dtype=np.int8)
        spins[:, self._program.order.site] = self._spins.T
        return spins

    def advance(self, first_sweep: int, n_sweeps: int, every: int) -> NDArray[np.uint8]:
        """See Session.advance."""
        kept = []
        self._exchanges = np.zeros((len(self._run.b) - 1, 2), dtype=np.int64)
        self._resamplings: list[tuple[int, int]] = []
        for s in range(n_sweeps):
            self._sweep(first_sweep + s)
            self._move(first_sweep + s)
            if every and (s + 1) % every == 0:
                spins = self._by_site()
                kept.append(pack_spins(spins))
                self._count += 1
                self._site_sum += spins
                a, b = self._program.edges[:, 0], self._program.edges[:, 1]
                self._edge_sum += spins[:, a] * spins[:, b]
        if kept and "samples" in self._run.observe:
            return np.stack(kept, axis=1)
        return np.zeros((self._run.n_chains, 0, (self._program.n_sites + 7) // 8), dtype=np.uint8)

    def state(self) -> NDArray[np.uint8]:
        """See Session.state."""
        return pack_spins(self._by_site())

    def moments(self) -> Moments | None:
        """See Session.moments."""
        if "moments" not in self._run.observe:
            return None
        return Moments(self._count, self._site_sum.copy(), self._edge_sum.copy())

    def exchanges(self) -> NDArray[np.int64] | None:
        """See Session.exchanges."""
        return None if self._run.exchange is None else self._exchanges

    def resamplings(self) -> Resamplings | None:
        """See Session.resamplings."""
        if self._run.resample is None:
            return None
        lowest = np.array([each for each, _ in self._resamplings], dtype=np.int64)
        weights = np.array([each for _, each in self._resamplings], dtype=np.uint64)
        return Resamplings(lowest, weights, self._families.astype(np.int32))

    def events(self) -> Events | None:
        """See Session.events."""
        return None


class PottsReference:
    """A Potts run in progress on the reference; see Session."""

    def __init__(self, program: PottsProgram, run: Run) -> None:
        self._program, self._run = program, run
        n, q = program.n_sites, program.n_states
        self._dtype = potts_dtype(q)
        self._chains = run.first_chain + np.arange(run.n_chains, dtype=np.int64)
        self._bits = (q - 1).bit_length()
        fields = program.field[None] if run.fields is None else run.fields
        self._fields = np.broadcast_to(fields, (run.n_chains, n, q)).astype(np.int64)
        self._allowed = np.ones((n, q), dtype=bool) if program.allowed is None else program.allowed
        clamp = np.full((1, n), -1) if run.clamp is None else run.clamp
        self._clamp = np.broadcast_to(clamp, (run.n_chains, n)).astype(np.int64)
        self._tables = self._edge_tables()
        self._states = np.zeros((run.n_chains, n), dtype=np.int64)
        key = key_of(run.seed, START, 0, run.stream, 0)
        for position, site in enumerate(program.order.site.tolist()):
            states = np.flatnonzero(self._allowed[site])
            u = self._uniform(key, 0, position)
            self._states[:, site] = states[(u * U64(len(states)) >> U64(32)).astype(np.int64)]
        if run.initial is not None:
            self._states[:] = run.initial
        self._states = np.where(self._clamp >= 0, self._clamp, self._states)
        self._count = 0
        self._counts = np.zeros((run.n_chains, n, q), dtype=np.int64)
        if run.initial_moments is not None:
            self._count = run.initial_moments[0]
            self._counts += run.initial_moments[1]

    def _edge_tables(self) -> NDArray[np.int64]:
        q, couplings = self._program.n_states, self._program.edge_couplings.astype(np.int64)
        if couplings.ndim == 1 and couplings.size:  # without edges q may be large, and its square no size to ask for
            return couplings[:, None, None] * np.eye(q, dtype=np.int64)
        return couplings.reshape(self._program.n_edges, q, q)

    @property
    def facts(self) -> dict[str, str]:
        """The body that computed."""
        return {"kernel": "potts", "isa": "numpy", "body": "reference"}

    def _uniform(self, key: tuple[int, int, int, int], sweep: int, position: int) -> ULongs:
        """Word (position & 3) of counter (position >> 2, sweep, chain, 0), section 9."""
        words = threefry4x32(key, (U32(position >> 2), U32(sweep & 0xFFFFFFFF), self._chains.astype(U32), U32(0)))
        return words[position & 3].astype(U64)

    def _draw(self, field: NDArray[np.int64], allowed: NDArray[np.bool_], b: int, u: ULongs) -> NDArray[np.int64]:
        """Categorical states from fields of shape (n_chains, q)."""
        best = np.where(allowed, field, np.iinfo(np.int64).min).max(axis=1, keepdims=True)
        e = exp2(scale(np.where(allowed, best - field, 0).astype(U64), b))
        shift = U64(31 + self._bits if self._program.n_states <= 64 else self._bits)
        sums = np.cumsum(np.where(allowed, e >> shift, U64(0)), axis=1, dtype=U64)
        total = sums[:, -1]
        target = u * (total >> U64(32)) + (u * (total & U64(0xFFFFFFFF)) >> U64(32))
        return np.asarray((sums <= target[:, None]).sum(axis=1), dtype=np.int64)

    def _sweep(self, sweep: int) -> None:
        program, run = self._program, self._run
        key = key_of(run.seed, CATEGORICAL, 0, run.stream, sweep)
        b = _b_of_sweep(run, sweep)
        for position, site in enumerate(program.order.site.tolist()):
            field = self._fields[:, site].copy()
            for k in np.flatnonzero(program.edges[:, 0] == site):
                field += self._tables[k].T[self._states[:, program.edges[k, 1]]]
            for k in np.flatnonzero(program.edges[:, 1] == site):
                field += self._tables[k][self._states[:, program.edges[k, 0]]]
            drawn = self._draw(field, self._allowed[site], b, self._uniform(key, sweep, position))
            self._states[:, site] = np.where(self._clamp[:, site] < 0, drawn, self._states[:, site])

    def advance(self, first_sweep: int, n_sweeps: int, every: int) -> NDArray[np.unsignedinteger]:
        """See Session.advance."""
        kept = []
        for s in range(n_sweeps):
            self._sweep(first_sweep + s)
            if every and (s + 1) % every == 0:
                kept.append(self._states.astype(self._dtype))
                self._count += 1
                self._counts += self._states[:, :, None] == np.arange(self._program.n_states)
        if kept and "samples" in self._run.observe:
            return np.stack(kept, axis=1)
        return np.zeros((self._run.n_chains, 0, self._program.n_sites), dtype=self._dtype)

    def state(self) -> NDArray[np.unsignedinteger]:
        """See Session.state."""
        return self._states.astype(self._dtype)

    def moments(self) -> Moments | None:
        """See Session.moments."""
        return None if "moments" not in self._run.observe else Moments(self._count, self._counts.copy(), None)

    def exchanges(self) -> None:
        """See Session.exchanges."""

    def resamplings(self) -> None:
        """See Session.resamplings."""

    def events(self) -> None:
        """See Session.events."""
