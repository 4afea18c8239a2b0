"""The C core's solver from Python: exact reductions of a graph, and sixty-four searches side by side.

Like core.py, this file keeps `ffi` and `lib` to itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glauber_simulator._core import ffi, lib
from glauber_simulator.core import Arrays, aligned, ensure

LANES: int = lib.GLB_LANES
SUM_LIMIT = 2**29
"""Bound on |field| + sum |weight| of every site."""
MOST_ENUMERATED = 20


@dataclass(frozen=True, slots=True)
class IntegerGraph:
    """E(s) = - sum of weight s s' over edges - sum of field s, in integers; rows in both directions.

    Attributes:
        row_start: int64 (n_sites + 1,).
        neighbour: int32, the sites that each one is coupled to.
        weight: int32, as many.
        field: int32 (n_sites,), or None.
    """

    row_start: NDArray[np.int64]
    neighbour: NDArray[np.int32]
    weight: NDArray[np.int32]
    field: NDArray[np.int32] | None

    @property
    def n_sites(self) -> int:
        """Sites."""
        return len(self.row_start) - 1

    @classmethod
    def from_edges(
        cls, n_sites: int, edges: NDArray[np.integer[Any]], weights: NDArray[np.integer[Any]]
    ) -> IntegerGraph:
        """A graph without fields; each coupling once, no loops, no parallel edges."""
        source = np.concatenate([edges[:, 0], edges[:, 1]])
        target = np.concatenate([edges[:, 1], edges[:, 0]])
        by_row = np.argsort(source, kind="stable")
        start = np.zeros(n_sites + 1, dtype=np.int64)
        np.cumsum(np.bincount(source, minlength=n_sites), out=start[1:])
        both = np.concatenate([weights, weights])
        return cls(start, target[by_row].astype(np.int32), both[by_row].astype(np.int32), None)

    def divisor(self) -> int:
        """The greatest common one of weights and fields."""
        fields = 0 if self.field is None else int(np.gcd.reduce(self.field))
        return max(1, math.gcd(int(np.gcd.reduce(self.weight)), fields))

    def divided(self, divisor: int) -> IntegerGraph:
        """The same graph in steps that are `divisor` times as large."""
        field = None if self.field is None else self.field // divisor
        return IntegerGraph(self.row_start, self.neighbour, self.weight // divisor, field)

    def c(self, kept: Arrays) -> Any:
        """As the core takes it; `kept` keeps the arrays alive."""
        graph = ffi.new("glb_graph *")
        graph.n_sites = self.n_sites
        graph.row_start = kept.pointer("int64_t", self.row_start)
        graph.neighbour = kept.pointer("int32_t", self.neighbour)
        graph.weight = kept.pointer("int32_t", self.weight)
        graph.field = kept.pointer("int32_t", self.field)
        return graph


class Presolved(Arrays):
    """A graph with every site taken out that can be, exactly; what is left falls into components.

    Attributes:
        components: (sites, graph) of each connected part of what is left.
        n_removed: sites taken out.
    """

    def __init__(self, graph: IntegerGraph, pinned: int | None) -> None:
        super().__init__()
        n, entries = graph.n_sites, len(graph.neighbour)
        c_graph = graph.c(self)
        self._result = ffi.new("glb_presolved *")
        self._removals = ffi.new("glb_removal[]", n)
        kept, start = np.empty(n, dtype=np.int32), np.empty(n + 1, dtype=np.int32)
        rows, field = np.empty(n + 1, dtype=np.int64), np.empty(n, dtype=np.int32)
        neighbour, weight = np.empty(max(1, entries), dtype=np.int32), np.empty(max(1, entries), dtype=np.int32)
        self._result.removal = self._removals
        self._result.kept, self._result.component_start = self.pointer("int32_t", kept), self.pointer("int32_t", start)
        self._result.row_start, self._result.field = self.pointer("int64_t", rows), self.pointer("int32_t", field)
        self._result.neighbour = self.pointer("int32_t", neighbour)
        self._result.weight = self.pointer("int32_t", weight)
        scratch = ffi.from_buffer("uint8_t[]", aligned(int(lib.glb_presolve_bytes(c_graph))))
        ensure(lib.glb_presolve(c_graph, -1 if pinned is None else pinned, scratch, self._result))
        self.n_removed = int(self._result.n_removals)
        self.components: list[tuple[NDArray[np.int32], IntegerGraph]] = []
        for begin, end in pairwise(start[: self._result.n_components + 1].tolist()):
            own = slice(int(rows[begin]), int(rows[end]))
            part = field[begin:end].copy() if field[begin:end].any() else None
            shape = rows[begin : end + 1] - rows[begin]
            self.components.append(
                (kept[begin:end].copy(), IntegerGraph(shape, neighbour[own].copy(), weight[own].copy(), part))
            )

    def undo(self, spins: NDArray[np.int8]) -> None:
        """Fill in the removed sites of a state, in place; int8 (n_sites,), the sites of the components are set."""
        ensure(lib.glb_presolve_undo(self._result, ffi.from_buffer("int8_t[]", spins)))


def enumerate_states(graph: IntegerGraph) -> NDArray[np.int8]:
    """The state of lowest energy of a graph of at most MOST_ENUMERATED sites, int8 (n_sites,)."""
    spins = np.empty(graph.n_sites, dtype=np.int8)
    ensure(lib.glb_enumerate(graph.c(Arrays()), ffi.from_buffer("int8_t[]", spins)))
    return spins


def b_of(beta: float) -> int:
    """2 beta log2(e) 2^32, as exchanges and resampling take it; beta per integer step of energy."""
    return min(round(2 * beta * math.log2(math.e) * 2.0**32), 2**62)


@dataclass(frozen=True, slots=True)
class Ladder:
    """What a tempering search did at each temperature.

    Attributes:
        betas: per integer step, hot to cold.
        energies: mean, of the searched graph.
        acceptance: of exchanges with the next colder temperature, one less.
    """

    betas: tuple[float, ...]
    energies: tuple[float, ...]
    acceptance: tuple[float, ...]


class Lanes(Arrays):
    """Sixty-four searches of one graph.

    Args:
        graph: connected, with sums below SUM_LIMIT.
        hot: the smallest beta that will be asked for, per integer step; hotter ones are taken as this.
        seed: 0 .. 2^64 - 1.
        stream: which of several searches with one seed.
        isa: number of an instruction set.
    """

    def __init__(self, graph: IntegerGraph, hot: float, seed: int, stream: int, isa: int) -> None:
        super().__init__()
        self.graph = graph
        self._graph = graph.c(self)
        ensure(lib.glb_graph_check(self._graph))
        width = lib.glb_lanes_width(self._graph)
        self._most_pace = 2**23 - 1 if width == 4 else 2**16 - 1
        shifts = {1: [16], 2: range(16, 7, -1), 4: range(20, -1, -1)}[width]
        self._shift = next((s for s in shifts if self._exact_pace(hot, s) <= self._most_pace), shifts[-1])
        self._net = aligned(int(lib.glb_lanes_net_bytes(self._graph)))
        net = ffi.from_buffer("uint8_t[]", self._net)
        ensure(lib.glb_lanes_net(self._graph, net))
        self._spins = np.zeros(graph.n_sites, dtype=np.uint64)
        self._best = np.zeros(graph.n_sites, dtype=np.int8)
        self._scratch = aligned(int(lib.glb_lanes_scratch_bytes(self._graph)))
        c = self._c = ffi.new("glb_lanes *")
        c.graph, c.net = self._graph, net
        c.spins, c.best = ffi.from_buffer("uint64_t[]", self._spins), ffi.from_buffer("int8_t[]", self._best)
        c.scratch = ffi.from_buffer("uint8_t[]", self._scratch)
        c.shift, c.isa, c.seed, c.stream = self._shift, isa, seed, stream
        c.symmetric = graph.field is None
        self._kept.append(net)
        self._ladder: Any = None
        self._betas: tuple[float, ...] = ()
        ensure(lib.glb_lanes_start(c))

    @staticmethod
    def _exact_pace(beta: float, shift: int) -> float:
        return math.log(2) / (2 * beta) / 16 * 2.0**shift if beta > 0 else math.inf

    def _pace(self, beta: float) -> int:
        return int(min(self._exact_pace(beta, self._shift) + 0.5, self._most_pace))

    @property
    def sweeps(self) -> int:
        """Sweeps so far, of all lanes at once."""
        return int(self._c.sweep)

    @property
    def best(self) -> NDArray[np.int8]:
        """The best state found, int8 (n_sites,)."""
        return self._best.copy()

    @property
    def best_energy(self) -> int:
        """Its energy."""
        return int(self._c.best_energy)

    @property
    def merges(self) -> int:
        """Crossovers that improved the best."""
        return int(self._c.merges)

    def states(self) -> NDArray[np.int8]:
        """The present states, int8 (LANES, n_sites), lowest energy first."""
        octets = self._spins.astype("<u8").view(np.uint8).reshape(-1, 8)
        spins = 2 * np.unpackbits(octets, axis=1, bitorder="little").T.astype(np.int8) - 1
        return np.ascontiguousarray(spins[np.argsort(self.energies(), kind="stable")])

    def energies(self) -> NDArray[np.int64]:
        """Of each lane, int64 (LANES,)."""
        return np.array(list(self._c.energy), dtype=np.int64)

    def start(self) -> None:
        """Random states, others at another number of sweeps; forgets the best."""
        ensure(lib.glb_lanes_start(self._c))

    def take(self, state: NDArray[np.int8]) -> None:
        """Cross the best with a state, after they have changed places if the state is better."""
        ensure(lib.glb_lanes_take(self._c, ffi.from_buffer("int8_t[]", np.ascontiguousarray(state))))

    def restart(self) -> None:
        """Every lane becomes the best state."""
        ensure(lib.glb_lanes_restart(self._c))

    def begin_population(self) -> None:
        """The next anneal that resamples begins here."""
        self._c.resampled = 0

    def anneal(self, betas: NDArray[np.float64], *, resample: bool) -> NDArray[np.float64]:
        """A sweep at each beta (inf for downhill only); returns the lanes' mean energy after each."""
        paces = np.array([self._pace(beta) for beta in betas.tolist()], dtype=np.uint32)
        b = np.array([b_of(beta) if beta < math.inf else 2**62 for beta in betas.tolist()], dtype=np.uint64)
        sums = np.zeros(len(betas), dtype=np.int64)
        ensure(
            lib.glb_lanes_anneal(
                self._c,
                ffi.from_buffer("uint32_t[]", paces),
                ffi.from_buffer("uint64_t[]", b),
                len(betas),
                resample,
                ffi.from_buffer("int64_t[]", sums),
            )
        )
        return sums / LANES

    def harvest(self) -> None:
        """Cross the best with every lane, each slid downhill first."""
        ensure(lib.glb_lanes_harvest(self._c))

    def set_ladder(self, betas: tuple[float, ...], *, harvest: int, reseed: bool) -> None:
        """Spread the lanes over temperatures: as many whole ladders as there is room for.

        Args:
            betas: hot to cold, 2 to 64 of them.
            harvest: sweeps from one crossover with the best to the next; 0 never.
            reseed: put an improved best back into a coldest lane.
        """
        ladder = ffi.new("glb_ladder *")
        ladder.n_temperatures, ladder.n_ladders = len(betas), LANES // len(betas)
        ladder.harvest, ladder.reseed = harvest, reseed
        by_energy = np.argsort(-self.energies(), kind="stable").tolist()  # high energies begin hot
        for rank, lane in enumerate(by_energy[: ladder.n_temperatures * ladder.n_ladders]):
            k, r = divmod(rank, ladder.n_ladders)
            ladder.lane[r * len(betas) + k] = lane
        for k, beta in enumerate(betas):
            ladder.b[k], ladder.pace[k] = b_of(beta), self._pace(beta)
        self._ladder, self._betas = ladder, betas

    def temper(self, n_sweeps: int) -> None:
        """Sweeps with exchanges, on the ladder that was set."""
        ensure(lib.glb_lanes_temper(self._c, self._ladder, n_sweeps))

    def ladder(self) -> Ladder | None:
        """What the ladder did so far, or None where there is none."""
        if self._ladder is None or self._ladder.n_summed == 0:
            return None
        n, count = len(self._betas), int(self._ladder.n_summed)
        energies = tuple(self._ladder.energy_sum[k] / count for k in range(n))
        rates = tuple(self._ladder.accepted[k] / max(1, self._ladder.attempts[k]) for k in range(n - 1))
        return Ladder(self._betas, energies, rates)
