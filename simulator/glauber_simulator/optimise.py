"""How the simulator looks for low energies: take out what can be decided exactly, search what is left.

1. Presolve: sites of degree 0 to 3 and sites that must follow a neighbour are taken out; what is left falls into
   components, and those of at most 20 sites are solved by trying all states.
2. Population annealing of sixty-four lanes gives first states, and the mean energy at each temperature.
3. Tempering on a ladder that is spaced by those energies, with partition crossover into the best state. On large
   two-dimensional graphs instead: anneal copies of the best from a medium temperature, cross all of them with it.

A search of so many sweeps is the same on every instruction set and however it is cut into steps: docs/solver.md.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Generator, Iterator

import numpy as np
from glauber.driver import Incumbent, OptimiseRequest, Temperature
from glauber.errors import InvalidModelError
from numpy.typing import NDArray

from glauber_simulator import core
from glauber_simulator.lanes import LANES, MOST_ENUMERATED, IntegerGraph, Lanes, Presolved, enumerate_states

SLICE_SECONDS = 0.02
"""How long a step should take: often enough to see a target reached and for Ctrl-C."""
ANNEAL_SWEEPS = 480
"""Sweeps of an anneal that measures energies."""
SMALL_SITES = 3000
"""Graphs below this are annealed four times first."""
FIRST_SHARE = 0.25
"""Part of a budget in seconds that the first anneal may take."""
TORUS_SITES, TORUS_DEGREE = 8000, 4.0
"""Graphs above this many sites and up to this mean degree are searched by reheating."""
SPARSE_DEGREE = 8.0
"""Up to this mean degree two states differ in parts small enough to cross them."""
SPACING = 1.6
"""c: temperatures are spaced so that (beta' - beta) (E - E') = c^2, which gives exchange rates of 0.2 to 0.5."""
STALE_SWEEPS, STALE_SHARE, LOOK_SWEEPS = 2500, 2, 500
"""Tempering begins anew after so many sweeps without gain, times `luby`, or this many times as long as the last gain
took. It is looked at every so many sweeps."""
FRESH_SWEEPS = 1000
LATE_SWEEPS = 10
"""The first step where setting up took most of the time: a sweep that is timed, the shortest anneal, and one sweep
more, so that the anneal is harvested."""
DOWNHILL_SWEEPS = 3
REHEAT_SWEEPS = (100, 180, 320, 560, 1000)
REHEAT_FROM = (0.23, 0.5)
"""Where reheated copies begin, in parts of the coldest beta."""
REHEATS_WITHOUT_GAIN = 3
_DRAW_PLAN = 6  # the fourth word of the solver's counters; the core uses 0 to 5
_PURPOSE_SOLVE = 6


def luby(number: int) -> int:
    """1, 1, 2, 1, 1, 2, 4, 1, 1, 2, ...: as many short rounds as long ones take, so no length is far from the best.

    Luby, Sinclair and Zuckerman, Inf. Process. Lett. 47 (1993): within a logarithm of the best restart strategy.
    """
    while number & (number + 1):  # not 2^k - 1
        number -= 2 ** (number.bit_length() - 1) - 1
    return (number + 1) // 2


def ladder_betas(betas: NDArray[np.float64], energies: NDArray[np.float64]) -> tuple[float, ...]:
    """Temperatures for tempering, hot to cold, from the mean energies of an anneal; as many as fill all lanes.

    Args:
        betas: of the anneal's sweeps, ascending, per integer step.
        energies: mean energy after each.
    """
    smooth = np.minimum.accumulate(energies)

    def spaced(c: float) -> list[float]:
        chosen = [0]
        while chosen[-1] < len(betas) - 1 and len(chosen) <= LANES:
            k = chosen[-1]
            far = np.flatnonzero((betas[k + 1 :] - betas[k]) * (smooth[k] - smooth[k + 1 :]) >= c * c)
            chosen.append(k + 1 + int(far[0]) if far.size else len(betas) - 1)
        return [float(betas[k]) for k in chosen]

    room = LANES // max(1, LANES // max(2, len(spaced(SPACING))))
    low, high = 0.1, 8 * SPACING
    for _ in range(30):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if len(spaced(middle)) > room else (low, middle)
    found = spaced(high)
    while len(found) > LANES:  # too many even where exchanges are rare: an uneven ladder is better than none
        found = found[::2]
    return tuple(found) if len(found) > 1 else (float(betas[0]), float(betas[0]))


class Search:
    """The search of one component, in steps of any size.

    Args:
        sites: which sites of the problem it has; `best` is its best state so far, `energy` that one's.
        graph: the component.
        hot: beta per integer step where spins move freely.
        cold: beta where the smallest uphill step is rare.
        request: the whole problem's.
        stream: one for each component.
        share: of the problem's sites.
    """

    def __init__(
        self,
        sites: NDArray[np.int32],
        graph: IntegerGraph,
        hot: float,
        cold: float,
        request: OptimiseRequest,
        stream: int,
        share: float,
    ) -> None:
        self.sites, self.hot, self.cold = sites, hot, cold
        self.lanes = Lanes(graph, hot, request.seed, stream, core.isa_number(request.isa))
        self._request, self._stream, self._share = request, stream, share
        self._degree = len(graph.neighbour) / graph.n_sites
        self.best, self.energy = self.lanes.best, self.lanes.best_energy
        self._elite, self._elite_energy = self.best, self.energy
        self._left = 0
        self._draws = 0
        self._plan = self._steps()

    def advance(self, n_sweeps: int) -> None:
        """Do n_sweeps sweeps of all lanes."""
        goal = self.lanes.sweeps + n_sweeps
        while self.lanes.sweeps < goal:
            self._left = goal - self.lanes.sweeps
            next(self._plan)
        self._keep_best()

    def finish(self) -> None:
        """Slide every lane downhill and cross it with the best, as an anneal does at its end.

        Among states of equal energy the best until now may be one or another, by when it was looked at. At the end it
        is the one that follows from the sweeps alone.
        """
        self.lanes.harvest()
        self._choose_elite()
        self.best, self.energy = self._elite, self._elite_energy

    def _keep_best(self) -> None:
        if self.lanes.best_energy < self.energy:
            self.best, self.energy = self.lanes.best, self.lanes.best_energy

    def _choose_elite(self) -> None:
        """The best at a point that does not depend on how the search is cut into steps."""
        if self.lanes.best_energy <= self._elite_energy:
            self._elite, self._elite_energy = self.lanes.best, self.lanes.best_energy

    def _steps(self) -> Generator[None, None, None]:
        """Never more than self._left sweeps at a time."""
        n = self.lanes.graph.n_sites
        length = yield from self._first_length()
        betas = np.geomspace(self.hot, self.cold, length)
        total = np.zeros(length)
        for number in range(4 if n < SMALL_SITES and length == ANNEAL_SWEEPS else 1):
            if number:
                best = self.lanes.best
                self.lanes.start()
                self.lanes.take(best)
            self.lanes.begin_population()
            total += yield from self._anneal(betas, resample=True)
            self.lanes.harvest()
        if n > TORUS_SITES and self._degree <= TORUS_DEGREE:
            yield from self._reheat()
        sparse = self._degree <= SPARSE_DEGREE
        harvest = (4 if n <= SMALL_SITES else 8) if sparse else 0
        ladder = ladder_betas(betas, total)
        for number in itertools.count(1):
            self.lanes.set_ladder(ladder, harvest=harvest, reseed=sparse)
            yield from self._temper(STALE_SWEEPS * luby(number))
            self.lanes.take(self._elite)
            self._choose_elite()
            self.lanes.start()
            self.lanes.begin_population()
            yield from self._anneal(betas, resample=True)
            self.lanes.harvest()

    def _temper(self, patience: int) -> Generator[None, None, None]:
        """Until nothing was gained for long: below its hottest temperature a search does not leave every valley."""
        energy, done, gained = self.lanes.best_energy, 0, 0
        while done - gained < max(patience, STALE_SHARE * gained):
            part = min(self._left, LOOK_SWEEPS - done % LOOK_SWEEPS)
            self.lanes.temper(part)
            done += part
            if done % LOOK_SWEEPS == 0 and self.lanes.best_energy < energy:
                energy, gained = self.lanes.best_energy, done
            yield

    def _first_length(self) -> Generator[None, None, int]:
        """Sweeps of the first anneal: all there are if they are few, and not too large a part of the time there is."""
        if self._request.sweeps is not None:
            each = self._request.sweeps // LANES
            return max(2, each) if each < 2 * ANNEAL_SWEEPS else ANNEAL_SWEEPS
        if self._request.seconds is None:
            return ANNEAL_SWEEPS
        began = time.perf_counter()
        self.lanes.anneal(np.array([self.hot]), resample=False)
        seconds = time.perf_counter() - began
        yield
        affordable = FIRST_SHARE * self._share * self._request.seconds / max(seconds, 1e-9)
        return int(min(ANNEAL_SWEEPS, max(8, affordable)))

    def _anneal(self, betas: NDArray[np.float64], *, resample: bool) -> Generator[None, None, NDArray[np.float64]]:
        """A sweep at each beta; returns the mean energies."""
        energies = np.empty(len(betas))
        done = 0
        while done < len(betas):
            part = slice(done, done + self._left)
            energies[part] = self.lanes.anneal(betas[part], resample=resample)
            done = min(part.stop, len(betas))
            yield
        return energies

    def _uniform(self) -> float:
        """The plan's own random numbers, 0 <= u < 1."""
        seed, self._draws = self._request.seed, self._draws + 1
        key = np.array([seed % 2**32, seed >> 32, _PURPOSE_SOLVE + 256 * self._stream, 0], dtype=np.uint32)
        word = core.threefry(key, np.array([self._draws, 0, 0, _DRAW_PLAN], dtype=np.uint32))[0]
        return int(word) / 2.0**32

    def _reheat(self) -> Generator[None, None, None]:
        """Rounds: from a fresh anneal, every third time from the best of all, reheat until nothing is gained."""
        self._choose_elite()
        rounds = 0
        while True:
            failures = 0
            while failures < REHEATS_WITHOUT_GAIN:
                before = self.lanes.best_energy
                low, high = REHEAT_FROM
                start = self.cold * (low + (high - low) * self._uniform())
                length = REHEAT_SWEEPS[int(self._uniform() * len(REHEAT_SWEEPS))]
                self.lanes.restart()
                betas = np.concatenate([np.geomspace(start, self.cold, length), np.full(DOWNHILL_SWEEPS, math.inf)])
                yield from self._anneal(betas, resample=False)
                self.lanes.harvest()
                failures = 0 if self.lanes.best_energy < before else failures + 1
            self.lanes.take(self._elite)
            self._choose_elite()
            rounds += 1
            if rounds % 3:
                self.lanes.start()
                self.lanes.begin_population()
                yield from self._anneal(np.geomspace(self.hot, self.cold, FRESH_SWEEPS), resample=True)
                self.lanes.harvest()


def _width(largest: int) -> int:
    return 1 if largest < 2**7 else 2 if largest < 2**15 else 4


class _Problem:
    """A request after presolve: what was decided, and a search for each part that was not."""

    def __init__(self, request: OptimiseRequest) -> None:
        self.request = request
        n, edges, weights = request.n_sites, request.edges, request.weights
        self._pinned = None if request.fields is None or not request.fields.any() else n
        sums = np.bincount(edges.ravel(), np.repeat(np.abs(weights.astype(np.float64)), 2), n)
        if self._pinned is not None and request.fields is not None:
            coupled = np.flatnonzero(request.fields)
            edges = np.concatenate([edges, np.stack([coupled, np.full_like(coupled, n)], axis=1)])
            weights = np.concatenate([weights, request.fields[coupled]])
            sums += np.abs(request.fields.astype(np.float64))
        largest = int(sums.max(initial=0.0))
        # sites of degree 3 can go where their sum is even; doubled weights are all even, if that makes them no wider
        scale = 2 if (sums % 2).any() and _width(2 * largest) == _width(largest) else 1
        graph = IntegerGraph.from_edges(n + (self._pinned is not None), edges, scale * weights)
        self._presolved = Presolved(graph, self._pinned)
        self._spins = np.ones(graph.n_sites, dtype=np.int8)
        self.searches: list[Search] = []
        total = sum(part.n_sites for _, part in self._presolved.components)
        for sites, part in self._presolved.components:
            if part.n_sites <= MOST_ENUMERATED:
                self._spins[sites] = enumerate_states(part)
                continue
            divisor = part.divisor()
            factor = divisor / scale
            stream, share = len(self.searches), part.n_sites / total
            self.searches.append(
                Search(
                    sites, part.divided(divisor), request.hot * factor, request.cold * factor, request, stream, share
                )
            )
        self.n_searched = sum(search.lanes.graph.n_sites for search in self.searches)

    def complete(self, parts: dict[int, NDArray[np.int8]]) -> NDArray[np.int8]:
        """The whole state, with other states than the best for some searches."""
        for number, search in enumerate(self.searches):
            self._spins[search.sites] = parts.get(number, search.best)
        self._presolved.undo(self._spins)
        spins = self._spins[: self.request.n_sites]
        return (spins * self._spins[-1] if self._pinned is not None else spins).copy()

    def others(self) -> NDArray[np.int8]:
        """States near the best: the present ones of each search with the best of the others."""
        states = [self.complete({})]
        for number, search in enumerate(self.searches[:LANES]):
            for state in search.lanes.states()[: max(1, LANES // len(self.searches))]:
                states.append(self.complete({number: state}))
        return np.array(states)

    def temperatures(self) -> tuple[Temperature, ...]:
        """What the largest search's ladder did."""
        if not self.searches:
            return ()
        largest = max(self.searches, key=lambda search: search.lanes.graph.n_sites)
        ladder = largest.lanes.ladder()
        if ladder is None:
            return ()
        rates = (*ladder.acceptance, math.nan)
        return tuple(
            Temperature(beta * self.request.hot / largest.hot, energy - largest.energy, rate)
            for beta, energy, rate in zip(ladder.betas, ladder.energies, rates, strict=True)
        )


def optimise(request: OptimiseRequest) -> Iterator[Incumbent]:
    """See driver.Optimiser."""
    began = time.perf_counter()
    problem = _Problem(request)
    done, step = 0, 1
    limit = math.inf if request.sweeps is None else request.sweeps // LANES
    if request.seconds is not None and 2 * (time.perf_counter() - began) >= request.seconds:
        step = LATE_SWEEPS
    if limit < 1 and problem.searches:
        raise InvalidModelError(
            f"a budget of {request.sweeps} sweeps allows no sweep at all; {LANES} are the least, one of each chain"
        )
    energies = None
    while True:
        found = [search.energy for search in problem.searches]
        improved = found != energies or done >= limit  # the last word on states of equal energy
        energies = found
        yield Incumbent(
            state=problem.complete({}) if improved else None,
            others=problem.others,
            sweeps=done * LANES,
            n_searched=problem.n_searched,
            temperatures=problem.temperatures,
            proven=not problem.searches,
        )
        if not problem.searches or done >= limit:
            return
        step = int(min(step, limit - done))
        began = time.perf_counter()
        for search in problem.searches:
            search.advance(step)
        seconds = time.perf_counter() - began
        done += step
        if done >= limit:
            for search in problem.searches:
                search.finish()
        step = max(1, min(2 * step, int(step * SLICE_SECONDS / max(seconds, 1e-6))))
