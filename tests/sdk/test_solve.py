"""Solving, embedding, and the dimod adapter."""

from __future__ import annotations

import itertools
import unittest

import dimod
import dimod.testing
import glauber as gl
import numpy as np
import pytest
from glauber.adapters import DimodSampler
from glauber.embed import embed_model, find_embedding
from glauber.errors import FileFormatError, InvalidModelError, ModelNotSupportedError
from glauber.restarts import beta_range
from glauber.time_to_solution import time_to_solution
from glauber.topology import King


def frustrated(n, seed, degree=4):
    rng = np.random.default_rng(seed)
    pairs = list(itertools.combinations(range(n), 2))
    chosen = [pairs[k] for k in rng.choice(len(pairs), n * degree // 2, replace=False)]
    return gl.IsingModel(rng.integers(-2, 3, n), chosen, rng.choice([-1.0, 1.0, 2.0], len(chosen)))


def ground_energy(model):
    states = np.array(list(itertools.product((-1, 1), repeat=model.n_sites)))
    return model.energies(states).min()


@pytest.fixture(scope="module")
def device():
    with gl.open_device("sim://ideal?seed=1") as opened:
        yield opened


@pytest.mark.parametrize("seed", range(5))
def test_small_problems_are_solved_exactly(device, seed):
    model = frustrated(16, seed)
    found = gl.solve(model, device=device, budget=gl.Budget(sweeps=64 * 500), seed=seed)
    assert found.energy == ground_energy(model) == found.value == model.energies(found.spins)
    assert found.objective == "energy"
    assert (np.diff(found.solutions.energies) >= 0).all()
    assert len(np.unique(found.solutions.states, axis=0)) == len(found.solutions)


def test_a_budget_in_sweeps_is_kept_and_reproducible(device):
    model = frustrated(60, 3, degree=8)
    first, second = (gl.solve(model, device=device, budget=gl.Budget(sweeps=20_000), seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.spins, second.spins)
    assert first.sweeps == second.sweeps <= 20_000
    assert [now.energy for now in first.trace] == sorted((now.energy for now in first.trace), reverse=True)


def test_target_stops_early_and_a_time_budget_is_kept(device):
    model = frustrated(16, 0)
    target = ground_energy(model)
    found = gl.solve(model, device=device, budget=gl.Budget(seconds=60), target=target, seed=1)
    assert found.seconds_to_target is not None
    assert found.seconds < 30
    found = gl.solve(model, device=device, budget=gl.Budget(seconds=0.5), seed=1)
    assert found.seconds < 5
    assert found.seconds_to_target is None


def test_maxcut_file(device, tmp_path):
    path = tmp_path / "cycle"
    path.write_text("5 5\n" + "".join(f"{i + 1} {(i + 1) % 5 + 1} 1\n" for i in range(5)))
    found = gl.solve(path, device=device, budget=gl.Budget(sweeps=10_000), target=4)
    assert (found.objective, found.value, found.energy) == ("cut", 4.0, -4.0)  # an odd cycle leaves one edge uncut
    assert found.seconds_to_target is not None


def test_what_solve_refuses(device, tmp_path):
    model = frustrated(8, 0)
    with pytest.raises(InvalidModelError, match="seconds or sweeps"):
        gl.solve(model, device=device, budget=gl.Budget(joules=1.0))
    with pytest.raises(InvalidModelError, match="no sweep at all"):
        gl.solve(frustrated(80, 0, degree=8), device=device, budget=gl.Budget(sweeps=10))
    with gl.open_device("sim://pbit-king-64") as chip, pytest.raises(InvalidModelError, match="no anneal at all"):
        gl.solve(gl.IsingModel(np.ones(64), [(0, 1)], [1.0]), device=chip, budget=gl.Budget(sweeps=10))
    with pytest.raises(InvalidModelError, match="BQM or CQM, or a file"):
        gl.solve(3, device=device)
    with pytest.raises(InvalidModelError, match="n_solutions"):
        gl.solve(model, device=device, n_solutions=0)
    with pytest.raises(InvalidModelError, match="target"):
        gl.solve(model, device=device, target=float("nan"))
    gl.write_model(gl.PottsModel.from_edges(2, 3, [(0, 1, 1.0)]), tmp_path / "p.npz")
    with pytest.raises(ModelNotSupportedError, match="Potts"):
        gl.solve(tmp_path / "p.npz", device=device)


def knapsack():
    """Values and weights of 8 things, 15 to carry, exactly three of them or the first."""
    cqm = dimod.ConstrainedQuadraticModel()
    values, weights = (4, 2, 10, 1, 2, 7, 5, 6), (12, 2, 4, 1, 1, 6, 3, 5)
    things = [dimod.Binary(f"x{i}") for i in range(8)]
    cqm.set_objective(-sum(v * x for v, x in zip(values, things, strict=True)))
    cqm.add_constraint(sum(w * x for w, x in zip(weights, things, strict=True)) <= 15, label="weight")
    cqm.add_constraint(sum(things) + 2 * things[0] == 3, label="three")
    return cqm


def test_constraints_are_kept_and_the_objective_is_recounted_without_penalties(device, tmp_path):
    cqm = knapsack()
    states = [dict(zip(cqm.variables, bits, strict=True)) for bits in itertools.product((0, 1), repeat=8)]
    allowed = [cqm.objective.energy(state) for state in states if cqm.check_feasible(state)]
    found = gl.solve(cqm, device=device, budget=gl.Budget(sweeps=100_000), seed=1)
    assert found.objective == "objective"
    assert found.violations == {}
    assert found.value == min(allowed) == cqm.objective.energy(found.assignment)
    assert set(found.as_dict()["assignment"]) == {f"x{i}" for i in range(8)}
    (tmp_path / "p.lp").write_text(dimod.lp.dumps(cqm))
    assert gl.solve(tmp_path / "p.lp", device=device, budget=gl.Budget(sweeps=100_000), seed=1).value == min(allowed)


def test_a_weak_penalty_is_reported_as_broken_constraints(device):
    found = gl.solve(knapsack(), device=device, budget=gl.Budget(sweeps=100_000), seed=1, penalty=1e-3)
    assert found.violations["three"] == 7  # all eight and twice the first: 10 against 3
    assert found.violations["weight"] == 34 - 15
    hit = gl.solve(knapsack(), device=device, budget=gl.Budget(sweeps=20_000), seed=1, penalty=1e-3, target=-10.0)
    assert hit.seconds_to_target is None  # good enough, but not allowed


def test_what_cannot_be_a_constraint(device, tmp_path):
    cqm = knapsack()
    for penalty in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidModelError, match="penalty"):
            gl.solve(cqm, device=device, penalty=penalty)
    with pytest.raises(InvalidModelError, match="problems with constraints"):
        gl.solve(frustrated(8, 0), device=device, penalty=1.0)
    x, y = dimod.Binary("x"), dimod.Binary("y")
    cqm.add_constraint(x * y <= 0, label="quadratic")
    with pytest.raises(ModelNotSupportedError, match="cannot become penalties"):
        gl.solve(cqm, device=device)
    with pytest.raises(InvalidModelError, match="no variables"):
        gl.solve(dimod.ConstrainedQuadraticModel(), device=device)
    for text in ("rubbish", "", "Minimize\n obj: x +\nSubject To\n c: x + >= \nEnd\n"):
        (tmp_path / "bad.lp").write_text(text)
        with pytest.raises((FileFormatError, InvalidModelError)):
            gl.solve(tmp_path / "bad.lp", device=device)
    with pytest.raises(FileFormatError, match="No such file"):
        gl.solve(tmp_path / "none.lp", device=device)


def test_time_to_solution_covers_the_truth():
    """Runs of an exponential with mean 2 s, cut off at 3 s. 95 % of 2000 intervals, 4 standard errors: above 93 %."""
    rng, covered = np.random.default_rng(1), 0
    for _ in range(2000):
        times = rng.exponential(2.0, 12)
        found = time_to_solution([t if t < 3 else None for t in times], 3.0)
        covered += found.low <= 2 * np.log(100) <= found.high
    assert covered / 2000 > 0.93


def test_time_to_solution_by_hand():
    found = time_to_solution([1.0, None, 2.0], [10.0, 4.0, 10.0])
    assert (found.hits, found.runs, found.mean_seconds) == (2, 3, 3.5)
    assert found.seconds_99 == pytest.approx(3.5 * np.log(100))
    none = time_to_solution([None, None], 5.0)
    assert none.high == np.inf
    assert none.low == pytest.approx(10 / -np.log(0.025) * np.log(100))
    assert none.as_dict()["high"] is None
    for bad in ([], [0.0], [float("nan")]):
        with pytest.raises(InvalidModelError, match="above 0"):
            time_to_solution(bad, 1.0)


@pytest.mark.parametrize("name", ["pbit-king-64", "pbit-rbm-512"])
def test_solve_stays_within_the_range_of_a_chip(name):
    with gl.open_device(f"sim://{name}?seed=1") as chip:
        edges = chip.spec.topology.edges()
        couplings = np.random.default_rng(2).choice([-1.0, 1.0], len(edges))
        model = gl.IsingModel(np.zeros(chip.spec.topology.n_sites), edges, couplings)
        found = gl.solve(model, device=chip, budget=gl.Budget(sweeps=64 * 200), seed=1)
    assert found.energy == model.energies(found.spins) < -6 * len(edges) ** 0.5  # six sigma below a random state


def test_the_first_anneal_of_a_large_problem_keeps_the_time_budget(device):
    """100,000 spins and 64 chains take longer than the budget in one anneal of the usual length."""
    n = 100_000
    ring = gl.IsingModel(np.zeros(n), np.stack([np.arange(n - 1), np.arange(1, n)], axis=1), np.ones(n - 1))
    found = gl.solve(ring, device=device, budget=gl.Budget(seconds=3.0), seed=1)
    assert found.seconds < 12  # a test machine may stall; the anneal of 100 sweeps alone would take longer still
    assert found.energy == ring.energies(found.spins)


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_extreme_units_change_no_solution(device, unit):
    model = frustrated(12, 4)
    scaled = gl.IsingModel(model.fields * unit, model.edges, model.couplings * unit)
    plain, other = (gl.solve(m, device=device, budget=gl.Budget(sweeps=20_000), seed=3) for m in (model, scaled))
    np.testing.assert_array_equal(plain.spins, other.spins)


def test_a_callback_that_raises_ends_the_solve_and_leaves_the_device_usable(device):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gl.solve(frustrated(16, 0), device=device, budget=gl.Budget(seconds=30), on_progress=stop)
    assert gl.solve(frustrated(16, 0), device=device, budget=gl.Budget(sweeps=10_000), seed=1).proven
    assert device.submit(frustrated(16, 0), gl.SamplingSchedule(n_samples=2)).result(30).n_samples == 2


def test_a_callback_that_returns_true_ends_the_solve_with_the_best_so_far(device):
    model = frustrated(64, 0)
    seen = []

    def stop(now):
        seen.append(now)
        return True

    found = gl.solve(model, device=device, budget=gl.Budget(seconds=600), on_progress=stop)
    assert len(seen) == 1
    assert found.seconds < 60
    assert found.energy == model.energies(found.spins) == seen[-1].energy


def test_time_that_is_over_after_setting_up_buys_an_anneal(device):
    model = frustrated(1000, 5)
    found = gl.solve(model, device=device, budget=gl.Budget(seconds=1e-6), seed=1)
    random = model.energies(np.random.default_rng(1).choice(np.array([-1, 1], dtype=np.int8), (100, 1000)))
    assert found.sweeps >= 640
    assert found.energy < random.min() - 3 * random.std()


def test_embedded_jobs_are_metered_by_the_pbits_they_use():
    model = complete(6)
    with gl.open_device("sim://pbit-king-64?seed=3") as chip:
        schedule = gl.SamplingSchedule(n_samples=4, n_chains=2, n_warmup=1)
        estimate = chip.estimate(model, schedule, embed=True, on_overflow="scale")
        samples = chip.submit(model, schedule, embed=True, on_overflow="scale").result(60)
    used = samples.provenance.embedding["device_sites_used"]
    assert used > 6
    assert samples.energy_report.updates == used * 5 * 2 == estimate.updates
    assert samples.energy_report.joules == pytest.approx(estimate.energy.joules)


def test_beta_range_scales_with_the_model():
    model = frustrated(20, 1)
    hot, cold = beta_range(model)
    assert 0 < hot < cold
    scaled = beta_range(model.replace(fields=4 * model.fields, couplings=4 * model.couplings))
    np.testing.assert_allclose(scaled, (hot / 4, cold / 4))
    assert beta_range(gl.IsingModel([0.0], [], [])) == (1.0, 1.0)


def complete(n):
    return gl.IsingModel.from_edges(
        [(i, j, (-1.0) ** (i + j)) for i, j in itertools.combinations(range(n), 2)], {0: 0.5}
    )


def test_embedded_model_has_the_energies_of_the_original_plus_a_constant():
    model, topology = complete(5), King(rows=4, cols=4)
    embedding = find_embedding(model, topology, seed=1)
    placed = embed_model(model, embedding, topology)
    states = np.array(list(itertools.product((-1, 1), repeat=5)), dtype=np.int8)
    on_chip = embedding.spread(states, 1)
    difference = placed.energies(on_chip) - model.energies(states)
    np.testing.assert_allclose(difference, difference[0], atol=1e-12)
    back, broken = embedding.read(on_chip)
    np.testing.assert_array_equal(back, states)
    assert broken == 0.0


def test_broken_groups_are_counted_and_the_majority_decides():
    model, topology = complete(5), King(rows=4, cols=4)
    embedding = find_embedding(model, topology, seed=1)
    largest = max(embedding.groups, key=len)
    assert len(largest) >= 2
    chip = np.ones((1, 16), dtype=np.int8)
    chip[0, largest[-1]] = -1
    spins, broken = embedding.read(chip)
    assert broken == pytest.approx(1 / 5)
    assert (spins == 1).all()


def test_a_model_that_does_not_fit_runs_embedded():
    model = complete(6)
    with gl.open_device("sim://pbit-king-64?seed=3") as chip:
        schedule = gl.AnnealingSchedule(n_sweeps=2000, n_chains=32, beta_start=0.1, beta_end=2.0)
        observe = {"samples", "moments", "energies", "last"}
        job = chip.submit(model, schedule, embed=True, on_overflow="scale", observe=observe, clamp={5: 1})
        samples = job.result(60)
    assert samples.spins.shape == (32, 1, 6)
    assert (samples.spins[..., 5] == 1).all()
    facts = samples.provenance.embedding
    assert 0 <= facts["broken_groups"] < 0.2
    assert facts["largest_group"] >= 2
    states = np.array([s for s in itertools.product((-1, 1), repeat=6) if s[5] == 1])
    assert samples.energies.min() == pytest.approx(model.energies(states).min())
    np.testing.assert_array_equal(samples.moments.sites, samples.spins.sum(axis=1))
    a, b = model.edges[:, 0], model.edges[:, 1]
    np.testing.assert_array_equal(samples.moments.edges, (samples.spins[..., a] * samples.spins[..., b]).sum(axis=1))


def test_an_embedding_that_does_not_exist():
    with gl.open_device("sim://pbit-king-64") as chip, pytest.raises(ModelNotSupportedError, match="no embedding"):
        chip.submit(complete(40), embed=True, on_overflow="scale")


class Ideal(DimodSampler):
    """dimod's suite makes its samplers without arguments."""

    def __init__(self):
        super().__init__(gl.open_device("sim://ideal?seed=2"))


@dimod.testing.load_sampler_bqm_tests(Ideal)
class TestDimodsOwnSuite(unittest.TestCase):
    def test_sampler_api(self):
        dimod.testing.assert_sampler_api(Ideal())


def test_inside_dimods_composites(device):
    bqm = dimod.BinaryQuadraticModel({"a": -1.0}, {("a", "b"): 1.0, ("b", "c"): -2.0}, 0.5, "BINARY")
    exact = dimod.ExactSolver().sample(bqm).first.energy
    sampler = DimodSampler(device)
    # the composites that dimod still has itself; the others are in dwave-preprocessing
    for composite in (dimod.TrackingComposite, lambda inner: dimod.TruncateComposite(inner, 5)):
        found = composite(sampler).sample(bqm, num_reads=20, num_sweeps=100)
        assert found.first.energy == pytest.approx(exact)
        dimod.testing.assert_response_energies(found, bqm)


def test_sampling_at_a_beta_follows_the_law(device):
    bqm = dimod.BinaryQuadraticModel({0: 0.5}, {}, 0.0, "SPIN")
    found = DimodSampler(device).sample(bqm, num_reads=20_000, num_sweeps=1, beta=1.0, seed=4)
    up = float((found.record.sample == 1).mean())
    p = 1 / (1 + np.exp(2 * 0.5))  # dimod's sign: a positive bias pushes the spin down
    assert abs(up - p) < 4.9 * np.sqrt(p * (1 - p) / 20_000)  # alpha 1e-6
    with pytest.raises(InvalidModelError, match="num_sweeps"):
        DimodSampler(device).sample(bqm, num_sweeps=0)
