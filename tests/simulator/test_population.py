"""Population annealing: the same bits on every body, the right law where chains alone get stuck, and the free energy.

Alpha is 1e-6 for each statistical check, and seeds are fixed. Populations of different seeds are independent, chains of
one are not, so errors come from the scatter over seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import glauber as gl
import numpy as np
import pytest
from bodies import SEED, THREADS, assert_bodies_agree, compiled, ising_program, run_whole
from glauber.compile import Run, make_run, pack_spins
from glauber.driver import Batch, Resamplings
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.testing import ExactLaw
from glauber_simulator import core, moves
from glauber_simulator.arithmetic import exp2, scale
from glauber_simulator.driver import SimulatorDriver
from numpy.typing import NDArray
from scipy.stats import norm, t

ALPHA = 1e-6


@pytest.fixture
def device() -> Iterator[gl.Device]:
    with gl.open_device("sim://ideal?seed=20240603") as opened:
        yield opened


# Identity


@pytest.mark.parametrize(("n_chains", "sweeps"), [(64, 1), (40, 2), (3, 1), (1, 2), (129, 3)])
def test_every_body_resamples_the_same_states(n_chains, sweeps, monkeypatch):
    for turn, name in enumerate(("torus", "glass", "odd cycle", "32-bit", "no edges", "bipartite", "dense")):
        rng, program = np.random.default_rng([turn, n_chains]), ising_program(name)
        schedule = gl.PopulationSchedule(betas=(0.0, 0.1, 0.4, 1.0), sweeps_per_step=sweeps, n_chains=n_chains)
        clamp = rng.choice(np.array([-1, 0, 0, 0, 1], np.int8), (1, program.n_sites)) if turn % 2 else None
        fields = rng.normal(size=(1, program.n_sites)) if turn == 5 else None
        initial = pack_spins(rng.choice(np.array([-1, 1], np.int8), (n_chains, program.n_sites))) if turn % 3 else None
        run = make_run(
            program,
            schedule,
            seed=SEED,
            clamp=clamp,
            fields=fields,
            initial=initial,
            observe={"samples", "moments"},
        )
        wanted = run_whole("reference", program, run)
        assert wanted.resamplings is not None
        assert len(wanted.resamplings.weights) == 3
        bodies = list(itertools.product(core.AVAILABLE_ISA, THREADS if turn < 2 else [1 + turn % 3]))
        assert_bodies_agree(program, run, wanted, bodies, monkeypatch, (name, n_chains))


def test_a_population_has_no_shards_and_does_not_heat():
    program = ising_program("torus")
    run = make_run(program, gl.PopulationSchedule(betas=(0.1, 0.4), n_chains=64), seed=1)
    for broken in (replace(run, first_chain=32), replace(run, b=run.b[::-1].copy())):
        with pytest.raises(InvalidModelError, match="refused"):
            run_whole("core", program, broken)


# The resampling itself


def test_children_are_the_rounded_weights_in_order():
    """Every chain has floor or ceil of its share, whatever u; and over many u the share itself, z below 4.9 each."""
    rng = np.random.default_rng(1)
    n, rounds = 37, 2000
    energies = 2 * rng.integers(-20, 20, n)
    schedule = gl.PopulationSchedule(betas=np.linspace(0.0, 20.0, rounds + 1), sweeps_per_step=1, n_chains=n)
    run = make_run(ising_program("torus"), schedule, seed=3)
    apart = np.diff(run.b.astype(np.int64))
    assert apart.max() - apart.min() <= 1
    children = np.zeros(n)
    for sweep in range(1, rounds + 1):
        source, lowest, total = moves.parents(replace(run, b=10 * run.b), sweep, energies)
        assert lowest == energies.min()
        assert (np.diff(source) >= 0).all()
        weights = exp2(scale(((energies - lowest) // 2).astype(np.uint64), 10 * int(apart[sweep - 1]))) >> np.uint64(6)
        assert total == int(weights.sum())
        share = n * weights.astype(np.float64) / total
        count = np.bincount(source, minlength=n)
        assert (count >= np.floor(share - 1e-9)).all()
        assert (count <= np.ceil(share + 1e-9)).all()
        children += count
    left = share - np.floor(share)
    z = (children / rounds - share) / np.sqrt(np.maximum(left * (1 - left), 1e-12) / rounds)
    assert np.abs(z).max() < norm.isf(ALPHA / 2)


# Laws


def two_wells(n: int = 10) -> gl.IsingModel:
    """A ferromagnet of all with all in a weak field: after a quick anneal each chain stays in the well it fell into."""
    pairs = list(itertools.combinations(range(n), 2))
    return gl.IsingModel(np.full(n, 0.0625), pairs, np.full(len(pairs), 0.25))


BETAS = np.linspace(0.0, 2.0, 21)


def up_without_resampling(model: gl.IsingModel) -> float:
    """The exact probability of the upper well after one sweep at each of BETAS, by sweeping the law."""
    n, energies = model.n_sites, ExactLaw(model, 1.0).energies.reshape((2,) * model.n_sites)
    p = np.full((2,) * n, 2.0**-n)
    for beta in BETAS.tolist():
        for site in compiled(model).order.site.tolist():
            weight = np.exp(-beta * (energies - energies.min(axis=site, keepdims=True)))
            p = p.sum(axis=site, keepdims=True) * weight / weight.sum(axis=site, keepdims=True)
    return share_up(model, p.ravel())


def share_up(model: gl.IsingModel, law: NDArray[np.float64]) -> float:
    return float(law[ExactLaw(model, 1.0).states.sum(axis=1) > 0].sum())


def shares(device: gl.Device, n_chains: int, seeds: int) -> NDArray[np.float64]:
    """The share of the upper well in populations of different seeds."""
    schedule = gl.PopulationSchedule(betas=BETAS, sweeps_per_step=1, n_chains=n_chains)
    jobs = [device.submit(two_wells(), schedule, seed=seed, observe="last") for seed in range(seeds)]
    return np.array([(job.result().last.sum(axis=1) > 0).mean() for job in jobs])


def t_score(values: NDArray[np.float64], wanted: float) -> tuple[float, float, float]:
    """Score, the limit for ALPHA, and the standard error."""
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return abs(float(values.mean()) - wanted) / error, float(t.isf(ALPHA / 2, len(values) - 1)), error


def test_resampling_gives_both_wells_their_odds(device):
    """Without resampling the exact share is far off: that would be noticed with 0.99."""
    model, exact = two_wells(), share_up(two_wells(), ExactLaw(two_wells(), 2.0).probabilities)
    score, limit, error = t_score(shares(device, 20_000, 40), exact)
    assert abs(up_without_resampling(model) - exact) > (limit + 3) * error
    assert score < limit, (score, exact)


class Unweighted(SimulatorDriver):
    """A negative control: every chain is its own only child."""

    def run(self, run: Run) -> Iterator[Batch]:
        none = Resamplings(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.arange(run.n_chains, dtype=np.int32))
        for batch in super().run(replace(run, resample=None)):
            yield replace(batch, resamplings=none)


def test_resampling_without_weights_is_found_out(device):
    exact = share_up(two_wells(), ExactLaw(two_wells(), 2.0).probabilities)
    with gl.Device(Unweighted(device.spec)) as wrong:
        score, limit, _ = t_score(shares(wrong, 20_000, 40), exact)
    assert score > limit


def glass(seed: int) -> gl.IsingModel:
    """Ten spins with fields and an offset."""
    rng = np.random.default_rng(seed)
    pairs = np.array(list(itertools.combinations(range(10), 2)))
    edges = pairs[np.sort(rng.choice(45, 25, replace=False))]
    return gl.IsingModel(rng.normal(size=10) * 0.3, edges, rng.normal(size=25), offset=1.5)


@pytest.mark.parametrize("seed", range(3))
def test_the_free_energy_is_exact(device, seed):
    """The mean of the estimated Z over seeds is Z itself, at every beta: t-test at ALPHA, and within 0.005 of ln Z.

    30 seeds of 20,000 chains. The estimate of Z, not of ln Z, is unbiased.
    """
    model = glass(seed)
    schedule = gl.PopulationSchedule(betas=np.linspace(0, 2, 21), sweeps_per_step=5, n_chains=20_000)
    results = [device.submit(model, schedule, seed=k, observe="last").result() for k in range(30)]
    program = results[0].program
    assert program is not None
    exact = np.array([ExactLaw(program.as_model(), beta).log_partition for beta in schedule.betas])
    found = np.array([each.population.log_partition for each in results if each.population is not None])
    assert found.shape == (30, 21)
    assert found[:, 0] == pytest.approx(10 * math.log(2))
    assert np.abs(found.mean(axis=0) - exact).max() < 0.005
    for k in range(1, 21):
        score, limit, error = t_score(np.exp(found[:, k] - exact[k]), 1.0)
        assert error < 0.005
        assert score < limit, (k, score)
    # what the families promise is no less than the scatter over seeds; chi-square of 29 degrees stays below 1.5^2 x 29
    # but once in 4,000
    families = [each.population.mean_square_family for each in results if each.population is not None]
    assert found[:, -1].std(ddof=1) < 1.5 * math.sqrt(np.mean(families) / 20_000)


class Miscounted(SimulatorDriver):
    """A negative control: one chain of 20,000 weighs nothing in what is reported."""

    def run(self, run: Run) -> Iterator[Batch]:
        for batch in super().run(run):
            assert batch.resamplings is not None
            weights = batch.resamplings.weights
            yield replace(batch, resamplings=replace(batch.resamplings, weights=weights - weights // np.uint64(20_000)))


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [False, True])
def test_a_weight_that_is_not_counted_is_found_out(device, wrong):
    """Two spins, whose populations hardly scatter, so that the t-test sees one chain in 20,000, forty times."""
    model = gl.IsingModel.from_edges([(0, 1, 0.5)])
    schedule = gl.PopulationSchedule(betas=np.linspace(0, 1, 41), n_chains=20_000)
    exact = ExactLaw(model, 1.0).log_partition
    with gl.Device((Miscounted if wrong else SimulatorDriver)(device.spec)) as machine:
        jobs = [machine.submit(model, schedule, seed=seed, observe="last") for seed in range(40)]
        found = [job.result().population for job in jobs]
    z = np.array([math.exp(each.log_partition[-1] - exact) for each in found if each is not None])
    score, limit, _ = t_score(z, 1.0)
    assert (score > limit) == wrong, score


def test_the_free_energy_under_a_clamp_and_own_fields(device):
    model = gl.IsingModel(np.zeros(5), [(i, i + 1) for i in range(4)], [0.5, -0.75, 1.0, 0.25])
    fields, clamp = np.array([0.25, 0.5, -0.25, 0.0, 1.0]), {1: 1, 3: -1}
    schedule = gl.PopulationSchedule(betas=np.linspace(0, 1, 6), n_chains=50_000)
    result = device.submit(model, schedule, fields=fields, clamp=clamp, seed=1).result()
    law = ExactLaw(model.replace(fields=fields), 1.0, tuple(clamp.items()))
    assert result.population is not None
    assert result.population.log_partition[-1] == pytest.approx(law.log_partition, abs=0.01)


# What is refused, what is reported


def test_families_are_counted(device, tmp_path):
    model = two_wells()
    schedule = gl.PopulationSchedule(betas=(0.0, 0.5, 1.0), n_chains=200)
    result = device.submit(model, schedule).result()
    population = result.population
    assert population is not None
    assert result.spins.shape == (200, 1, 10)
    assert 1 < population.n_families < 200
    assert (np.diff(population.families) >= 0).all()
    assert 1.0 < population.mean_square_family < 200
    result.save(tmp_path / "population.npz")
    again = gl.SampleSet.load(tmp_path / "population.npz").population
    assert again is not None
    np.testing.assert_array_equal(again.log_partition, population.log_partition)
    np.testing.assert_array_equal(again.families, population.families)
    warm = device.submit(model, gl.PopulationSchedule(betas=(0.5, 1.0), n_chains=200)).result().population
    assert warm is not None
    assert warm.log_ratios[0] == 0
    with pytest.raises(InvalidModelError, match="start at 0"):
        _ = warm.log_partition


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"betas": (0.5,)}, "at least 2"),
        ({"betas": (0.5, 0.5)}, "ascend"),
        ({"betas": (0.0, 1.0), "sweeps_per_step": 0}, "sweeps_per_step"),
        ({"betas": (0.0, 1.0), "sweeps_per_step": 10**7}, "sweeps in all"),
        ({"betas": (0.0, 1.0), "n_chains": 0}, "n_chains"),
    ],
)
def test_a_schedule_that_cannot_be(arguments, match):
    with pytest.raises(InvalidModelError, match=match):
        gl.PopulationSchedule(**arguments)


def test_what_cannot_be_resampled_is_refused(device):
    schedule = gl.PopulationSchedule(betas=(0.0, 1.0), n_chains=2)
    with pytest.raises(InvalidModelError, match="differs between chains"):
        device.submit(two_wells(), schedule, fields=np.zeros((2, 10)))
    with pytest.raises(ModelNotSupportedError, match="Ising models"):
        device.submit(gl.PottsModel(np.zeros((2, 3)), [(0, 1)], [1.0]), schedule)
    with gl.open_device("sim://kv260") as chip, pytest.raises(ModelNotSupportedError, match="population"):
        chip.submit(gl.IsingModel.from_edges([(0, 1, 1.0)]), schedule)
    with gl.open_device("sim://pbit-king-64") as chip, pytest.raises(ModelNotSupportedError, match="embedded"):
        chip.submit(two_wells(), schedule, embed=True)
