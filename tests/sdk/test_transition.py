"""Transition matrices of schedules: what they keep, how fast they forget, and what samples of devices say."""

from __future__ import annotations

import itertools
import math

import glauber as gl
import numpy as np
import pytest
from glauber.errors import InvalidModelError
from glauber.testing import (
    ExactLaw,
    autocorrelation_time,
    balance_chi_square,
    check_detailed_balance,
    colour_matrices,
    kernel_chi_square,
    spectral_gap,
    transition_counts,
    transition_matrix,
)
from scipy.stats import norm

ALPHA = 1e-6
HEAT_BATH = gl.SamplingSchedule(beta=0.7)
ASYNCHRONOUS = gl.AsynchronousSchedule(beta=0.7)
METROPOLIS = gl.AnnealingSchedule(table=(0.7,), dynamics="metropolis")


def model_of(n, seed=1):
    rng = np.random.default_rng(seed)
    pairs = np.array(list(itertools.combinations(range(n), 2)))
    edges = pairs[np.sort(rng.choice(len(pairs), min(len(pairs), 2 * n), replace=False))]
    return gl.IsingModel(rng.integers(-2, 3, n) / 4, edges, rng.choice([-0.5, 0.25, 0.75], len(edges)))


POTTS = gl.PottsModel(np.eye(3), [(0, 1), (1, 2)], [0.5, -0.75])


@pytest.mark.parametrize("schedule", [HEAT_BATH, ASYNCHRONOUS, METROPOLIS], ids=["sweep", "asynchronous", "metropolis"])
@pytest.mark.parametrize("model", [model_of(4), model_of(8)], ids=["4 spins", "8 spins"])
def test_the_law_of_spins_is_kept(model, schedule):
    assert_kept(model, schedule)


@pytest.mark.parametrize("schedule", [HEAT_BATH, ASYNCHRONOUS], ids=["sweep", "asynchronous"])
def test_the_law_of_p_dits_is_kept(schedule):
    assert_kept(POTTS, schedule)


def assert_kept(model, schedule):
    law = ExactLaw(model, 0.7).probabilities
    found = check_detailed_balance(transition_matrix(model, schedule), law)
    assert max(found.row_error, found.stationarity_error) < 1e-13
    assert found.ergodic
    assert (found.balance_error < 1e-13) == (schedule is ASYNCHRONOUS)  # a sweep in order keeps the law only
    off = check_detailed_balance(transition_matrix(model, schedule), ExactLaw(model, 0.735).probabilities)
    assert off.stationarity_error > 1e-5  # 5 % more beta is seen


def test_the_blocks_of_a_sweep_are_reversible():
    model = model_of(8)
    law, blocks = ExactLaw(model, 0.7).probabilities, colour_matrices(model, 0.7)
    for block in blocks:
        found = check_detailed_balance(block, law)
        assert found.balance_error < 1e-13
        assert not found.ergodic  # one colour alone never moves the others
    np.testing.assert_allclose(np.linalg.multi_dot(blocks), transition_matrix(model, HEAT_BATH), atol=1e-13)


def test_clamps_masks_anneals_and_thinning():
    model = model_of(5)
    law = ExactLaw(model, 0.7, ((1, 1), (4, -1)))
    held = transition_matrix(model, HEAT_BATH, clamp=law.clamp)
    assert held.shape == (8, 8)
    assert check_detailed_balance(held, law.probabilities).stationarity_error < 1e-13
    masked = gl.PottsModel(np.eye(3), [(0, 1), (1, 2)], [0.5, -0.75], np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], bool))
    found = check_detailed_balance(transition_matrix(masked, HEAT_BATH), ExactLaw(masked, 0.7).probabilities)
    assert found.stationarity_error < 1e-13
    assert found.ergodic  # among the states that are allowed
    one, two = (transition_matrix(model, gl.AnnealingSchedule(table=(beta,))) for beta in (0.3, 0.9))
    np.testing.assert_allclose(transition_matrix(model, gl.AnnealingSchedule(table=(0.3, 0.9))), one @ two)
    thinned = transition_matrix(model, gl.SamplingSchedule(beta=0.3, sweeps_per_sample=3))
    np.testing.assert_allclose(thinned, one @ one @ one)


def test_metropolis_without_a_field_at_beta_zero_never_mixes():
    """Every spin flips in every sweep; the uniform law is kept, but no start tends to it."""
    model = gl.IsingModel.from_edges([(0, 1, 1.0)])
    matrix = transition_matrix(model, gl.AnnealingSchedule(table=(0.0,), dynamics="metropolis"))
    found = check_detailed_balance(matrix, np.full(4, 0.25))
    assert found.stationarity_error == 0.0
    assert not found.ergodic
    assert spectral_gap(matrix).relaxation_time == math.inf


def test_gap_and_autocorrelation_of_one_spin_pair():
    """A single asynchronous pair: in the even sector the rate of s1 s2 is 2; that of s1 + s2 is 1 - tanh(beta J)."""
    matrix = transition_matrix(gl.IsingModel.from_edges([(0, 1, 1.0)]), ASYNCHRONOUS)
    slowest = math.exp(-(1 - math.tanh(0.7)))
    found = spectral_gap(matrix)
    assert found.second == pytest.approx(slowest, rel=1e-12)
    assert found.relaxation_time == pytest.approx(1 / (1 - slowest))
    law = ExactLaw(gl.IsingModel.from_edges([(0, 1, 1.0)]), 0.7)
    tau = autocorrelation_time(matrix, law.probabilities, law.states.sum(axis=1))
    assert tau == pytest.approx((1 + slowest) / (1 - slowest))
    # no observable of a reversible chain is slower than that
    assert autocorrelation_time(matrix, law.probabilities, law.energies) < tau


def draw(schedule, model, seed=3):
    with gl.open_device("sim://ideal") as device:
        return device.submit(model, schedule, seed=seed).result()


LONG = {"n_samples": 60_000, "n_chains": 4, "n_warmup": 50, "beta": 0.7}


def test_estimated_autocorrelation_times_are_the_exact_ones():
    """The MCSE's tau is of the energy, the ESS's of its normal scores; both within 10 % with 240,000 samples."""
    model = model_of(6)
    schedule = gl.SamplingSchedule(**LONG)
    law, matrix = ExactLaw(model, 0.7), transition_matrix(model, schedule)
    result = draw(schedule, model)
    found = result.diagnostics().energy
    exact = autocorrelation_time(matrix, law.probabilities, law.energies)
    n = result.energies.size
    assert found.mcse is not None
    assert n * found.mcse**2 / result.energies.var() == pytest.approx(exact, rel=0.1)
    levels, where = np.unique(np.round(law.energies, 9), return_inverse=True)
    share = np.bincount(where, law.probabilities)
    scores = norm.ppf(np.cumsum(share) - share / 2)  # ties share their middle rank
    assert len(levels) > 5
    assert found.tau_int == pytest.approx(autocorrelation_time(matrix, law.probabilities, scores[where]), rel=0.1)


def test_samples_of_devices_show_their_kernel():
    """Transitions between the 16 states of 4 spins, alpha 1e-6; 5 % more beta, and one delay, are seen."""
    model = model_of(4)
    law = ExactLaw(model, 0.7)
    for schedule, reversible in ((gl.SamplingSchedule(**LONG), False), (gl.AsynchronousSchedule(**LONG), True)):
        counts = transition_counts(law, draw(schedule, model).states)
        assert counts.sum() == 4 * 59_999
        assert kernel_chi_square(counts, transition_matrix(model, schedule)).p_value > ALPHA
        wrong = transition_matrix(model, schedule.model_copy(update={"beta": 0.735}))
        assert kernel_chi_square(counts, wrong).p_value < ALPHA
        assert (balance_chi_square(counts).p_value > ALPHA) == reversible
    late = transition_counts(law, draw(gl.AsynchronousSchedule(**LONG, delay=1.0), model).states)
    assert kernel_chi_square(late, transition_matrix(model, ASYNCHRONOUS)).p_value < ALPHA


def test_transitions_of_eight_spins():
    """65,536 pairs of states, most too rare to be counted alone."""
    model, schedule = model_of(8), gl.AsynchronousSchedule(**LONG)
    counts = transition_counts(ExactLaw(model, 0.7), draw(schedule, model).states)
    assert kernel_chi_square(counts, transition_matrix(model, schedule)).p_value > ALPHA
    assert balance_chi_square(counts).p_value > ALPHA


def walks(matrix, law, repeats, chains, steps, seed):
    """Transition counts of independent runs of a matrix, each of some chains that start in the law."""
    rng, cumulated, n = np.random.default_rng(seed), matrix.cumsum(axis=1), len(law)
    at = rng.choice(n, size=(repeats, chains), p=law)
    counts = np.zeros((repeats, n * n), dtype=np.int64)
    for _ in range(steps):
        to = np.minimum((rng.random(at.shape)[..., None] > cumulated[at]).sum(axis=-1), n - 1)
        np.add.at(counts, (np.arange(repeats)[:, None], at * n + to), 1)
        at = to
    return counts.reshape(repeats, n, n)


@pytest.mark.parametrize("chains", [1, 200])
def test_false_alarms_of_the_tests_of_transitions(chains):
    """200 runs of 4000 steps. Kernel: alpha 0.05, 1e-4 limits of its binomial. Balance: at most that, as it says."""
    model = model_of(3)
    matrix, law = transition_matrix(model, ASYNCHRONOUS), ExactLaw(model, 0.7).probabilities
    runs = walks(matrix, law, 200, chains, 4000 // chains, seed=5)
    kernel = sum(kernel_chi_square(counts, matrix).p_value < 0.05 for counts in runs)
    balance = sum(balance_chi_square(counts).p_value < 0.05 for counts in runs)
    assert 1 <= kernel <= 23  # of 10 expected
    assert balance <= 23


def test_what_cannot_be_tested_is_refused():
    model = model_of(4)
    with pytest.raises(InvalidModelError, match="more than 1024 states"):
        transition_matrix(model_of(11), HEAT_BATH)
    with pytest.raises(InvalidModelError, match="many chains at once"):
        transition_matrix(model, gl.TemperingSchedule(betas=(0.1, 0.2)))
    with pytest.raises(InvalidModelError, match="earlier ones"):
        transition_matrix(model, gl.AsynchronousSchedule(delay=0.5))
    with pytest.raises(InvalidModelError, match="Potts"):
        transition_matrix(POTTS, METROPOLIS)
    with pytest.raises(InvalidModelError, match="does not move"):
        check_detailed_balance(np.eye(3), np.ones(4) / 4)
    with pytest.raises(InvalidModelError, match="negative"):
        check_detailed_balance(np.array([[2.0, -1.0], [0.0, 1.0]]), np.ones(2) / 2)
    for few in (balance_chi_square, lambda counts: kernel_chi_square(counts, np.full((4, 4), 0.25))):
        with pytest.raises(InvalidModelError, match="more samples"):
            few(np.ones((4, 4), dtype=np.int64))
    forbidden = np.array([[50, 50], [0, 100]])
    assert kernel_chi_square(forbidden, np.eye(2)).p_value == 0.0


def test_held_sites_may_be_many():
    chain = gl.IsingModel.from_edges([(i, i + 1, 0.5) for i in range(69)])
    clamp = tuple((i, 1) for i in range(2, 70))
    law = ExactLaw(chain, 0.7, clamp)
    assert_close(check_detailed_balance(transition_matrix(chain, HEAT_BATH, clamp=clamp), law.probabilities))
    walk = law.states[[0, 1, 2, 3, 0]]
    assert law.counts(walk).tolist() == [2, 1, 1, 1]
    assert transition_counts(law, walk[None]).tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]]
    with pytest.raises(InvalidModelError, match="not among the states"):
        transition_counts(law, -walk[None])


def assert_close(found):
    assert max(found.row_error, found.stationarity_error) < 1e-13


def test_rows_of_rare_states_raise_no_false_alarms():
    """Rows whose third cell expects 9.5: 5 % of the lawful ones fall below 0.05, to four standard errors."""
    rng, n, runs = np.random.default_rng(4), 200, 400
    matrix = np.zeros((n, n))
    for k in range(n):
        matrix[k, [k, (k + 1) % n, (k + 2) % n]] = 0.45, 0.455, 0.095
    drawn = [np.array([rng.multinomial(100, row) for row in matrix]) for _ in range(runs)]
    alarms = np.mean([kernel_chi_square(counts, matrix).p_value < 0.05 for counts in drawn])
    assert alarms < 0.05 + 4 * math.sqrt(0.05 * 0.95 / runs)


def test_what_has_no_autocorrelation_time_is_refused():
    law = np.full(2, 0.5)
    with pytest.raises(InvalidModelError, match="constant"):
        autocorrelation_time(np.full((2, 2), 0.5), law, np.array([0.1, 0.1]))
    with pytest.raises(InvalidModelError, match="more than one law"):
        autocorrelation_time(np.eye(2), law, np.array([0.0, 1.0]))


def test_samples_and_clamps_that_are_none_are_refused():
    pair = gl.IsingModel.from_edges([(0, 1, 1.0)])
    law, one = ExactLaw(pair, 1.0), gl.SamplingSchedule(n_samples=1)
    for wrong in (np.zeros((1, 3, 2), int), np.ones((1, 3, 5), int), np.full((1, 3, 2), 3)):
        with pytest.raises(InvalidModelError, match="sample"):
            transition_counts(law, wrong)
    with pytest.raises(InvalidModelError, match="n_chains, n_samples"):
        transition_counts(law, np.ones((3, 2), int))
    with pytest.raises(InvalidModelError, match="not among"):
        law.counts(np.zeros((3, 2), int))
    for clamp in (((5, 1),), ((0, 7),)):
        with pytest.raises(InvalidModelError, match="held"):
            transition_matrix(pair, one, clamp=clamp)
    with pytest.raises(InvalidModelError, match="square"):
        spectral_gap(np.zeros((2, 3)))
    with pytest.raises(InvalidModelError, match="NaN"):
        check_detailed_balance(np.array([[np.nan, 1.0], [0.0, 1.0]]), np.full(2, 0.5))
