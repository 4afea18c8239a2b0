"""The arithmetic of comparisons: where a bug here would flatter, or let a wrong sampler pass."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
rounds = importlib.import_module("benchmarks.rounds")
edge_free = importlib.import_module("benchmarks.edge_free")
starts = importlib.import_module("benchmarks.starts")
samplers = importlib.import_module("benchmarks.samplers")
workloads = importlib.import_module("benchmarks.workloads")
contender = importlib.import_module("benchmarks.contender")

SIDE, CHAINS, ROUNDS = 16, 64, 5


def gibbs(beta, name="test", **options):
    """A plain sampler of the workload below, by the textbook."""

    def run(start, sweeps, seed):
        rng = np.random.default_rng(seed)
        states = start.copy()
        for _ in range(sweeps):
            for sites in BLOCKS:
                field = states @ COUPLINGS[:, sites]
                up = rng.random(field.shape) < 1 / (1 + np.exp(-2 * beta * field))
                states[:, sites] = np.where(up, 1, -1)
        return sweeps * 1e-3, states

    return contender.Contender(name, "numpy", "Gibbs", "float64", "PCG64", run, **options)


WORKLOAD = workloads.Workload("test", "16 x 16", lambda: workloads.ferromagnet(SIDE), "+1", 0.3, CHAINS)
BLOCKS = workloads.colour_blocks(WORKLOAD.model)
COUPLINGS = np.zeros((SIDE**2, SIDE**2))
COUPLINGS[tuple(WORKLOAD.model.edges.T)] = 1.0
COUPLINGS += COUPLINGS.T


def timings(*contenders):
    pool = starts.pool(WORKLOAD)
    return samplers.measure(WORKLOAD, list(contenders), pool, ROUNDS, 0.05, [])


def test_a_right_sampler_agrees_and_a_wrong_one_does_not():
    ours, right, warm, lost = timings(gibbs(0.3), gibbs(0.3), gibbs(0.27), gibbs(0.27, takes_start=False))
    assert rounds.compared(ours, right) >= rounds.ALPHA
    assert rounds.compared(ours, warm) < rounds.ALPHA  # a tenth off in temperature
    assert rounds.compared(ours, lost) is None
    line = rounds.row(warm, ours, SIDE**2 * CHAINS, "1")
    assert line["energies_agree"] is False
    assert rounds.row(ours, ours, SIDE**2 * CHAINS, "1")["energies_agree"] is None


def test_false_alarms_are_as_rare_as_alpha_says():
    rng = np.random.default_rng(1)
    values = [
        rounds.agreement(rng.normal(size=(ROUNDS, chains)), rng.normal(size=(ROUNDS, chains)), by_round=by_round)
        for chains, by_round in ((64, False), (64, True), (1, False))
        for _ in range(400)
    ]
    assert 0.03 < np.mean(np.array(values) < 0.05) < 0.07  # sd 0.0063
    assert np.mean(np.array(values) < rounds.ALPHA) < 0.005


def test_identical_energies_agree_and_a_constant_shift_does_not():
    energies = np.random.default_rng(2).normal(size=(ROUNDS, 64))
    assert rounds.agreement(energies, energies) == 1.0
    assert rounds.agreement(energies, energies + 0.5) < 1e-6


def test_rates_and_ratios_are_of_the_same_round():
    ours = rounds.Timing(gibbs(0.3), sweeps=1000, seconds=[1e-3, 4e-3, 1e-3])
    theirs = rounds.Timing(gibbs(0.3), sweeps=10, seconds=[1e-3, 4e-3, 2e-3])  # the machine was slow in round 2
    np.testing.assert_allclose(ours.rates(64), [0.064, 0.016, 0.064])
    assert rounds.ratio(ours.rates(64), theirs.rates(64)) == pytest.approx(100)
    assert rounds.best_peer({"a": np.array([1.0, 9.0, 1.0]), "b": np.array([2.0, 2.0, 2.0])}) == "b"
    assert rounds.best_peer({}) is None


def test_draws_without_edges_are_held_against_the_exact_law():
    rng = np.random.default_rng(3)
    fields = rng.normal(size=100_000)
    right = np.where(rng.random(fields.shape) < 1 / (1 + np.exp(-2 * fields)), 1, -1)
    wrong = np.where(rng.random(fields.shape) < 1 / (1 + np.exp(-2.1 * fields)), 1, -1)
    assert abs(edge_free.pbits_off(right[None], fields)) < edge_free.SIGMAS
    assert abs(edge_free.pbits_off(wrong[None], fields)) > edge_free.SIGMAS
    logits = rng.normal(size=(4096, 8))
    gumbel = rng.gumbel(size=(32, 4096, 8))
    assert abs(edge_free.pdits_off((logits + gumbel).argmax(axis=2), logits)) < edge_free.SIGMAS
    assert abs(edge_free.pdits_off((1.1 * logits + gumbel).argmax(axis=2), logits)) > edge_free.SIGMAS


def test_cluster_moves_start_in_equilibrium():
    """A 4 x 4 lattice by enumeration; 400 states, correlated little, so five standard errors are generous."""
    model = workloads.ferromagnet(4)
    states = 1 - 2 * (np.arange(2**16)[:, None] >> np.arange(16) & 1)
    energies = model.energies(states)
    weights = np.exp(-0.4 * (energies - energies.min()))
    exact = (weights @ energies) / weights.sum()
    drawn = model.energies(starts.swendsen_wang(model, 0.4, 400, seed=5))
    assert abs(drawn.mean() - exact) < 5 * 1.5 * drawn.std() / np.sqrt(400)
