"""The solver's parts: exact reductions, sixty-four lanes, crossover, and the search as a whole."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from glauber.driver import OptimiseRequest
from glauber.errors import InvalidModelError
from glauber_simulator import core
from glauber_simulator.lanes import LANES, IntegerGraph, Lanes, Presolved, enumerate_states
from glauber_simulator.optimise import ladder_betas, luby, optimise

WIDTHS = {1: 3, 2: 2_000, 4: 900_000}
"""Bytes of a gain, and weights that ask for so many."""


def random_graph(n, n_edges, largest, seed):
    rng = np.random.default_rng(seed)
    pairs = np.array(list(itertools.combinations(range(n), 2)), dtype=np.int32)
    edges = pairs[rng.choice(len(pairs), n_edges, replace=False)]
    weights = rng.integers(1, largest + 1, n_edges) * rng.choice([-1, 1], n_edges)
    return edges, weights.astype(np.int32)


def energy_of(edges, weights, fields, spins):
    spins = spins.astype(np.int64)
    pairs = spins[..., edges[:, 0]] * spins[..., edges[:, 1]]
    return -(pairs * weights).sum(axis=-1) - (spins * fields).sum(axis=-1)


def all_states(n):
    return np.array(list(itertools.product((-1, 1), repeat=n)), dtype=np.int8)


def ground(edges, weights, fields, n):
    return energy_of(edges, weights, fields, all_states(n)).min()


def solve_reduced(n, edges, weights, pinned=None):
    """Presolve, all states of what is left, undo."""
    reduced = Presolved(IntegerGraph.from_edges(n, edges, weights), pinned)
    spins = np.ones(n, dtype=np.int8)
    for sites, graph in reduced.components:
        spins[sites] = enumerate_states(graph)
    reduced.undo(spins)
    return spins, reduced


@pytest.mark.parametrize("seed", range(60))
def test_reductions_keep_a_best_state(seed):
    rng = np.random.default_rng(seed)
    n = 12
    n_edges = int(rng.integers(6, 24))
    edges, weights = random_graph(n, n_edges, int(rng.choice([1, 2, 7])), seed)
    spins, reduced = solve_reduced(n, edges, 2 * weights)
    assert energy_of(edges, weights, 0, spins) == ground(edges, weights, np.zeros(n), n)
    assert reduced.n_removed + sum(len(sites) for sites, _ in reduced.components) == n
    assert all(np.diff(graph.row_start).min() >= 4 for _, graph in reduced.components)  # doubled: nothing of degree 3


@pytest.mark.parametrize("seed", range(30))
def test_reductions_with_fields_by_a_pinned_site(seed):
    rng = np.random.default_rng(seed)
    n = 11
    edges, weights = random_graph(n, 18, 3, seed)
    fields = rng.integers(-3, 4, n)
    coupled = np.flatnonzero(fields)
    to_pinned = np.stack([coupled, np.full_like(coupled, n)], axis=1)
    both = np.concatenate([edges, to_pinned]), np.concatenate([weights, fields[coupled]])
    spins, reduced = solve_reduced(n + 1, both[0], 2 * both[1], pinned=n)
    assert spins[n] == 1
    assert energy_of(edges, weights, fields, spins[:n]) == ground(edges, weights, fields, n)
    assert reduced.n_removed + sum(len(sites) for sites, _ in reduced.components) == n


def test_odd_sites_of_degree_three_stay_unless_weights_are_doubled():
    edges = np.array(list(itertools.combinations(range(4), 2)), dtype=np.int32)  # every site has degree 3
    ones = np.ones(len(edges), dtype=np.int32)
    assert Presolved(IntegerGraph.from_edges(4, edges, -ones), None).n_removed == 0
    assert Presolved(IntegerGraph.from_edges(4, edges, -2 * ones), None).n_removed == 4


def test_what_is_left_has_no_larger_sums_and_no_more_edges():
    edges, weights = random_graph(60, 110, 5, 3)
    graph = IntegerGraph.from_edges(60, edges, 2 * weights)
    before = np.bincount(edges.ravel(), np.repeat(np.abs(2 * weights), 2), 60)
    left = [part for _, part in Presolved(graph, None).components]
    assert sum(len(part.neighbour) for part in left) <= len(graph.neighbour)
    for part in left:
        sums = np.add.reduceat(np.abs(part.weight), part.row_start[:-1])
        assert sums.max() <= before.max()


def test_a_ring_and_a_tree_are_decided_whole():
    n = 50
    ring = np.stack([np.arange(n), (np.arange(n) + 1) % n], axis=1).astype(np.int32)
    signs = np.ones(n, dtype=np.int32)
    signs[7] = -1  # frustrated: one bond must break
    spins, reduced = solve_reduced(n, ring, signs)
    assert reduced.components == []
    assert energy_of(ring, signs, 0, spins) == -(n - 2)


@pytest.mark.parametrize(
    ("rows", "neighbour", "weight", "problem"),
    [
        ([0, 1, 2], [1, 5], [1, 1], "an index"),
        ([0, 1, 2], [0, 0], [1, 1], "own neighbour"),
        ([0, 1, 2], [1, 0], [2**30, 2**30], "sum of coefficients"),
        ([0, 2, 1], [1, 1], [1, 1], "order"),
        ([0, 1, 1], [1], [1], "order"),
    ],
)
def test_unsound_graphs_are_refused(rows, neighbour, weight, problem):
    graph = IntegerGraph(np.array(rows), np.array(neighbour, np.int32), np.array(weight, np.int32), None)
    with pytest.raises(InvalidModelError, match=problem):
        Presolved(graph, None)


def test_rounds_follow_lubys_sequence():
    assert [luby(number) for number in range(1, 17)] == [1, 1, 2, 1, 1, 2, 4, 1, 1, 2, 1, 1, 2, 4, 8, 1]


def lanes_of(width, isa, *, n=45, seed=11, fields=False):
    edges, weights = random_graph(n, 4 * n, WIDTHS[width], seed)
    plain = IntegerGraph.from_edges(n, edges, weights)
    own = np.random.default_rng(seed).integers(-WIDTHS[width], WIDTHS[width] + 1, n).astype(np.int32)
    graph = IntegerGraph(plain.row_start, plain.neighbour, plain.weight, own if fields else None)
    hot = 1.0 / WIDTHS[width]
    return Lanes(graph, hot, 2**63 + seed, 3, core.isa_number(isa)), (edges, weights, own if fields else 0), hot


def drive(lanes, hot, cuts):
    """An anneal, a tempering, a reheat, cut into parts of `cuts` sweeps."""
    betas = np.geomspace(hot, 8 * hot, 40)
    lanes.begin_population()
    for part in np.split(betas, range(cuts, 40, cuts)):
        lanes.anneal(part, resample=True)
    lanes.set_ladder(tuple(np.geomspace(hot, 8 * hot, 10).tolist()), harvest=4, reseed=True)
    left = 37
    while left:
        lanes.temper(min(cuts, left))
        left -= min(cuts, left)
    lanes.harvest()
    best = lanes.best
    lanes.anneal(np.full(3, math.inf), resample=False)
    return best, lanes.best_energy, lanes.states(), lanes.energies(), lanes.ladder()


@pytest.mark.parametrize("fields", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("isa", core.AVAILABLE_ISA)
def test_every_instruction_set_and_cut_gives_the_same_search(isa, width, fields):
    lanes, problem, hot = lanes_of(width, "portable", fields=fields)
    expected = drive(lanes, hot, 1000)
    lanes, _, _ = lanes_of(width, isa, fields=fields)
    found = drive(lanes, hot, 7)
    for a, b in zip(expected[:4], found[:4], strict=True):
        np.testing.assert_array_equal(a, b)
    assert expected[4] == found[4]
    np.testing.assert_array_equal(energy_of(*problem, found[2]), np.sort(found[3]))  # kept as spins flip, so recounted
    assert energy_of(*problem, found[0]) == found[1] <= found[3].min()


@pytest.mark.parametrize("largest", [500, 900_000])
@pytest.mark.parametrize("isa", core.AVAILABLE_ISA)
def test_a_dense_graph_is_searched_as_any_other(isa, largest):
    """Its fields are kept. The same graph beside 120 lonely sites is not dense: fields are added up for each decision.

    48 sites are whole groups of eight, so the random numbers are the same.
    """
    n, beta = 48, 3.0 / largest
    edges, weights = random_graph(n, 1000, largest, 5)
    found = []
    for size, level in ((n, isa), (n + 120, "portable")):
        lanes = Lanes(IntegerGraph.from_edges(size, edges, weights), beta / 8, 77, 1, core.isa_number(level))
        lanes.begin_population()
        lanes.anneal(np.geomspace(beta / 8, beta, 21), resample=True)
        lanes.set_ladder(tuple(np.geomspace(beta / 8, beta, 10).tolist()), harvest=0, reseed=False)
        lanes.temper(30)
        warm = lanes.energies(), lanes.best[:n], lanes.states()[:, :n]
        lanes.restart()  # spins that change behind the kernel's back
        lanes.anneal(np.full(5, beta / 4), resample=False)
        found.append((*warm, lanes.energies(), lanes.states()[:, :n]))
        np.testing.assert_array_equal(energy_of(edges, weights, 0, found[-1][-1]), np.sort(lanes.energies()))
    for dense, sparse in zip(*found, strict=True):
        np.testing.assert_array_equal(dense, sparse)


@pytest.mark.parametrize("isa", core.AVAILABLE_ISA)
def test_energies_of_many_sites_are_flushed_in_time(isa):
    """600 sites whose gains have the largest size that their width allows."""
    n = 600
    i = np.arange(n)
    ring = np.concatenate([np.stack([i, (i + 1) % n], axis=1), np.stack([i, (i + 2) % n], axis=1)]).astype(np.int32)
    weights = np.concatenate([np.full(n, 32), np.full(n, 31)]).astype(np.int32)
    lanes = Lanes(IntegerGraph.from_edges(n, ring, weights), 0.001, 5, 0, core.isa_number(isa))
    for beta in (0.001, 0.01, 1.0):
        lanes.anneal(np.full(3, beta), resample=False)
        np.testing.assert_array_equal(energy_of(ring, weights, 0, lanes.states()), np.sort(lanes.energies()))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("at", [0.5, 1.0, 2.0])
def test_lanes_at_one_temperature_have_the_mean_energy_of_the_law(width, at):
    """The variates' 16 steps an octave shift a temperature by up to 3 %; |z| < 5 beside that, alpha 6e-7."""
    n = 12
    lanes, (edges, weights, _), hot = lanes_of(width, core.BEST_ISA, n=n, seed=4)
    beta = at * 2 * hot
    energies = energy_of(edges, weights, 0, all_states(n)).astype(float)
    laws = [np.exp(-b * (energies - energies.min())) for b in (0.97 * beta, beta, 1.03 * beta)]
    means = [float((law * energies).sum() / law.sum()) for law in laws]
    lanes.anneal(np.full(100, beta), resample=False)
    blocks = [lanes.anneal(np.full(60, beta), resample=False).mean() for _ in range(60)]
    error = np.std(blocks, ddof=1) / math.sqrt(len(blocks))
    assert means[2] - 5 * error < np.mean(blocks) < means[0] + 5 * error


def test_resampling_keeps_the_law_while_it_cools():
    """Population annealing's mean energy at the end against the exact one, far from the start's.

    64 lanes and 40 runs, |z| < 5.
    """
    n = 12
    edges, weights = random_graph(n, 30, 3, 9)
    energies = energy_of(edges, weights, 0, all_states(n)).astype(float)
    law = np.exp(-0.25 * (energies - energies.min()))
    expected, start = (law * energies).sum() / law.sum(), energies.mean()
    found = []
    for seed in range(40):
        lanes = Lanes(IntegerGraph.from_edges(n, edges, weights), 0.001, seed, 0, core.isa_number(None))
        lanes.begin_population()
        found.append(lanes.anneal(np.linspace(0.002, 0.25, 80), resample=True)[-1])
    error = np.std(found, ddof=1) / math.sqrt(len(found))
    assert abs(np.mean(found) - expected) < 5 * error
    assert expected + 20 * error < start


def test_crossover_is_at_least_as_good_as_both():
    lanes, (edges, weights, _), hot = lanes_of(1, core.BEST_ISA, n=60)
    for _ in range(20):
        lanes.anneal(np.full(2, hot), resample=False)
        before = lanes.best_energy
        for state in lanes.states()[:10]:
            lanes.take(state)
            assert lanes.best_energy <= min(before, energy_of(edges, weights, 0, state))
            assert energy_of(edges, weights, 0, lanes.best) == lanes.best_energy


def test_a_crossover_takes_each_part_for_itself():
    """Two blocks, and a state for each that is right there only; crossed they give the ground state."""
    block = np.array(list(itertools.combinations(range(12), 2)), dtype=np.int32)
    edges = np.concatenate([block, block + 12, [[0, 12]]]).astype(np.int32)
    weights = np.array([2] * 132 + [1], dtype=np.int32)
    lanes = Lanes(IntegerGraph.from_edges(24, edges, weights), 0.1, 1, 0, core.isa_number(None))
    wrong = np.array([1, -1] * 6, dtype=np.int8)
    for state in (np.concatenate([np.ones(12, np.int8), -wrong]), np.concatenate([wrong, np.ones(12, np.int8)])):
        assert energy_of(edges, weights, 0, state) > -132
        lanes.take(state)
    assert lanes.best_energy == -265


def test_ladders_fill_the_lanes_and_exchange_evenly():
    lanes, _, hot = lanes_of(1, core.BEST_ISA, n=200, seed=2)
    betas = np.geomspace(hot, 12 * hot, 480)
    lanes.begin_population()
    ladder = ladder_betas(betas, lanes.anneal(betas, resample=True))
    assert LANES // len(ladder) * len(ladder) > LANES - len(ladder)
    assert ladder[0] == betas[0]
    assert list(ladder) == sorted(ladder)
    lanes.set_ladder(ladder, harvest=0, reseed=False)
    lanes.temper(2000)
    rates = lanes.ladder().acceptance
    assert min(rates[:-1]) > 0.1
    assert max(rates[1:-1]) < 0.9


def request(n, edges, weights, **changes):
    given = {"fields": None, "hot": 0.3, "cold": 2.2, "seed": 1, "sweeps": 64 * 300, "seconds": None, "isa": None}
    return OptimiseRequest(n_sites=n, edges=edges, weights=weights, **{**given, **changes})


def test_components_are_searched_apart_and_joined():
    parts = [random_graph(30, 90, 2, seed) for seed in (1, 2, 3)]
    edges = np.concatenate([part[0] + 30 * k for k, part in enumerate(parts)]).astype(np.int32)
    weights = np.concatenate([part[1] for part in parts])
    last = list(optimise(request(90, edges, weights)))[-1]
    together = energy_of(edges, weights, 0, last.others()[0])
    apart = 0
    for own, weight in parts:
        alone = list(optimise(request(30, own, weight)))[-1]
        apart += energy_of(own, weight, 0, alone.others()[0])
    assert together == apart
    assert last.sweeps == 64 * 300
    assert not last.proven


@pytest.mark.parametrize("isa", core.AVAILABLE_ISA)
def test_a_large_torus_is_reheated_the_same_everywhere(isa, monkeypatch):
    monkeypatch.setattr("glauber_simulator.optimise.TORUS_SITES", 100)
    monkeypatch.setattr("glauber_simulator.optimise.ANNEAL_SWEEPS", 60)
    at = np.arange(144).reshape(12, 12)
    edges = np.concatenate([np.stack([at.ravel(), np.roll(at, -1, axis).ravel()], axis=1) for axis in (0, 1)])
    weights = np.random.default_rng(4).choice([-1, 1], len(edges)).astype(np.int32)
    # every site's sum is even, so only sites that must follow a neighbour would go: there is none
    found = [list(optimise(request(144, edges.astype(np.int32), weights, isa=i)))[-1] for i in ("portable", isa)]
    np.testing.assert_array_equal(found[0].others(), found[1].others())
    assert found[0].n_searched == 144


class JumpingClock:
    """A clock that makes every step of a search another size."""

    def __init__(self, seed):
        self._rng, self._now = np.random.default_rng(seed), 0.0

    def perf_counter(self):
        self._now += self._rng.choice([1e-4, 1e-3, 0.1])
        return self._now


@pytest.mark.parametrize("torus_sites", [100, 8000])
def test_a_budget_in_sweeps_gives_one_state_however_time_goes(monkeypatch, torus_sites):
    """Lattices have many states of equal energy: which one is found must not depend on when it is looked at."""
    monkeypatch.setattr("glauber_simulator.optimise.TORUS_SITES", torus_sites)
    monkeypatch.setattr("glauber_simulator.optimise.STALE_SWEEPS", 150)
    monkeypatch.setattr("glauber_simulator.optimise.LOOK_SWEEPS", 50)
    starts, start = [], Lanes.start
    monkeypatch.setattr(Lanes, "start", lambda lanes: (starts.append(lanes.sweeps), start(lanes))[1])
    at = np.arange(400).reshape(20, 20)
    edges = np.concatenate([np.stack([at.ravel(), np.roll(at, -1, axis).ravel()], axis=1) for axis in (0, 1)])
    weights = np.random.default_rng(5).choice([-1, 1], len(edges)).astype(np.int32)
    found = []
    for seed in range(6):
        monkeypatch.setattr("glauber_simulator.optimise.time", JumpingClock(seed))
        *_, last = optimise(request(400, edges.astype(np.int32), weights, sweeps=64 * 4000))
        found.append((last.state, last.others()))
    assert len(starts) == 6 * len(set(starts)), "a round began at another sweep"
    assert len(set(starts)) > 3 + (torus_sites > 400)  # three more first anneals, and rounds that began anew
    for state, others in found[1:]:
        np.testing.assert_array_equal(state, found[0][0])
        np.testing.assert_array_equal(others, found[0][1])
