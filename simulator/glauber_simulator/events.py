"""The slow reference for asynchronous p-bits, one update after another: docs/machine.md, section 8."""

from __future__ import annotations

from collections import deque

import numpy as np
from glauber.compile import TICKS, Program, Run
from glauber.driver import Events
from numpy.typing import NDArray

from glauber_simulator.arithmetic import U32, key_of, threefry4x32, thresholds
from glauber_simulator.reference import IsingReference

EVENT = 7


class EventsReference(IsingReference):
    """A run of asynchronous p-bits in progress; see Session."""

    def __init__(self, program: Program, run: Run) -> None:
        super().__init__(program, run)
        assert run.clock is not None
        self._clock = run.clock
        self._seen = self._spins.copy()  # what neighbours see
        self._flips: list[deque[tuple[int, int]]] = [deque() for _ in range(run.n_chains)]  # (tick, position)
        self._updates = np.zeros(program.n_sites, dtype=np.int64)
        if run.clock.in_flight is not None:
            for chain, site, tick in run.clock.in_flight.tolist():
                position = int(program.order.position[site])
                self._flips[chain].append((tick, position))
                self._seen[position, chain] *= -1

    def _sweep(self, sweep: int) -> None:
        for chain in range(self._run.n_chains):
            self._sweep_chain(sweep, chain)

    def _sweep_chain(self, sweep: int, chain: int) -> None:
        """All updates of a chain in one sweep, in order of time; ticks count from the sweep's begin."""
        flips, spins, seen = self._flips[chain], self._spins[:, chain], self._seen[:, chain]
        b = int(self._run.b[min(sweep, len(self._run.b)) - 1])
        for tick, position, _, u in self._events(sweep, chain):
            self._show(flips, seen, tick)
            field = self._fields[position, chain] + self._dense[position] @ seen
            drawn = 1 if u < int(thresholds(np.array(field), b)) else -1
            if drawn != spins[position]:
                spins[position] = drawn
                flips.append((tick + self._clock.delay, position))
                if self._clock.delay == 0:
                    self._show(flips, seen, tick)
            self._updates[self._program.order.site[position]] += 1
        self._show(flips, seen, TICKS - 1)
        self._flips[chain] = deque((tick - TICKS, position) for tick, position in flips)

    @staticmethod
    def _show(flips: deque[tuple[int, int]], seen: NDArray[np.int64], until: int) -> None:
        """Neighbours see the flips that have arrived."""
        while flips and flips[0][0] <= until:
            seen[flips.popleft()[1]] *= -1

    def _events(self, sweep: int, chain: int) -> list[tuple[int, int, int, int]]:
        """(tick, position, number, random word) of each update, in order of time."""
        run, n = self._run, self._program.n_sites
        key = key_of(run.seed, EVENT, 0, run.stream, sweep)
        counts = self._clock.counts[self._clock.rate[self._program.order.site]]
        blocks = (1 + 2 * counts.shape[1] + 3) // 4
        low, number = U32(sweep & 0xFFFFFFFF), U32(run.first_chain + chain)
        words = np.stack(
            [
                np.stack(threefry4x32(key, (np.arange(n, dtype=U32), low, number, U32(block))), axis=1)
                for block in range(blocks)
            ]
        )  # [block, position, word]
        word = words.transpose(1, 0, 2).reshape(n, -1).tolist()
        n_events = (counts <= np.array([row[0] for row in word], dtype=np.uint64)[:, None]).sum(axis=1)
        return sorted(
            (word[p][1 + 2 * k], p, k, word[p][2 + 2 * k])
            for p in np.flatnonzero(self._clamp[:, chain] == 0).tolist()
            for k in range(int(n_events[p]))
        )

    def advance(self, first_sweep: int, n_sweeps: int, every: int) -> NDArray[np.uint8]:
        """See Session.advance."""
        self._updates[:] = 0
        return super().advance(first_sweep, n_sweeps, every)

    def events(self) -> Events:
        """See Session.events."""
        site = self._program.order.site
        rows = [
            (chain, int(site[position]), tick) for chain, flips in enumerate(self._flips) for tick, position in flips
        ]
        return Events(self._updates.copy(), np.array(rows, dtype=np.int64).reshape(-1, 3))
