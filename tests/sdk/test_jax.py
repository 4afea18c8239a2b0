"""glauber.jax: devices under jit, vmap and grad, and Langevin sampling, held to exact laws.

Alpha is 1e-6 for each test, shared by its comparisons; seeds are fixed.
"""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest

pytest.importorskip("jax", reason="needs the extra jax: pip install -e '.[jax]'")

import glauber as gl
import jax
import jax.numpy as jnp
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.jax import IsingSampler, bits, categorical, langevin
from glauber.testing import ExactLaw, chi_square
from scipy.stats import chi2, norm

ALPHA = 1e-6
EDGES = [(0, 1), (1, 2), (0, 2), (2, 3)]
H, J = jnp.array([0.2, -0.3, 0.4, 0.1]), jnp.array([0.5, -0.4, 0.3, 0.7])
BETA = 0.7


@pytest.fixture
def device():
    with gl.open_device("sim://ideal?seed=11") as opened:
        yield opened


@pytest.fixture
def jobs(device, monkeypatch):
    """The requests of all jobs of the device."""
    seen, submit = [], device.submit_request
    monkeypatch.setattr(device, "submit_request", lambda request: (seen.append(request), submit(request))[1])
    return seen


def z_limit(n: int) -> float:
    return float(norm.isf(ALPHA / (2 * n)))


def assert_frequencies(drawn: np.ndarray, p: np.ndarray) -> None:
    """Means over the first axis against probabilities."""
    z = np.abs(drawn.mean(axis=0) - p) / np.sqrt(p * (1 - p) / len(drawn))
    assert z.max() < z_limit(z.size)


def test_bits_under_jit_and_vmap_are_one_job(device, jobs):
    logits = jnp.linspace(-3, 3, 7)
    draw = jax.jit(partial(bits, device))
    rows = draw(jnp.broadcast_to(logits, (4000, 7)), jax.random.key(1))
    assert len(jobs) == 1
    assert rows.dtype == logits.dtype
    assert set(np.unique(rows).tolist()) == {0.0, 1.0}
    assert_frequencies(np.asarray(rows), np.asarray(jax.nn.sigmoid(logits)))
    mapped = jax.jit(jax.vmap(draw, in_axes=(None, 0)))(logits, jax.random.split(jax.random.key(2), 4000))
    assert len(jobs) == 2
    assert mapped.shape == (4000, 7)
    assert_frequencies(np.asarray(mapped), np.asarray(jax.nn.sigmoid(logits)))
    nested = jax.vmap(jax.vmap(draw, in_axes=(0, None)), in_axes=(None, 0))
    assert nested(jnp.zeros((3, 7)), jax.random.split(jax.random.key(3), 5)).shape == (5, 3, 7)
    assert len(jobs) == 3
    shared = jax.vmap(draw, in_axes=(0, None))(jnp.zeros((2, 64)), jax.random.key(4))
    assert not np.array_equal(shared[0], shared[1]), "rows with the same key must be independent"


def test_the_same_key_gives_the_same_bits(device):
    logits = jnp.zeros(64)
    one, two = (bits(device, logits, jax.random.key(k)) for k in (5, 6))
    np.testing.assert_array_equal(one, bits(device, logits, jax.random.key(5)))
    np.testing.assert_array_equal(one, bits(device, logits, jax.random.PRNGKey(5)))  # old keys
    assert not np.array_equal(one, two)


def test_gradients_of_draws_are_those_of_the_means(device):
    key, weights = jax.random.key(7), jnp.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])
    logits = jnp.array([[0.1, -1.0, 2.0], [0.0, 0.5, -0.5]])
    for draw, mean in ((bits, jax.nn.sigmoid), (categorical, jax.nn.softmax)):

        def loss(of, x):
            return jnp.sum(weights * of(x))

        got = jax.jit(jax.grad(partial(loss, lambda x, draw=draw: draw(device, x, key))))(logits)
        np.testing.assert_allclose(got, jax.grad(partial(loss, mean))(logits), atol=1e-6)


def test_categories_follow_softmax(device, jobs):
    logits = jnp.log(jnp.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]]))
    drawn = jax.jit(jax.vmap(partial(categorical, device), in_axes=(None, 0)))(
        logits, jax.random.split(jax.random.key(8), 5000)
    )
    assert len(jobs) == 1
    np.testing.assert_array_equal(drawn.sum(axis=-1), np.ones((5000, 2)))
    for site in range(2):
        counts = np.asarray(drawn[:, site].sum(axis=0)).astype(np.int64)
        assert chi_square(counts, np.asarray(jax.nn.softmax(logits[site]), float)).p_value > ALPHA


def exact() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, spins, and spins with products, of all states."""
    law = ExactLaw(gl.IsingModel(np.asarray(H), EDGES, np.asarray(J)), BETA)
    pairs = np.stack([law.states[:, a] * law.states[:, b] for a, b in EDGES], axis=1)
    return law.probabilities, law.states, np.concatenate([law.states, pairs], axis=1)


@pytest.fixture
def sampler(device):
    # 20 sweeps leave less than 1e-3 of any correlation of this model; each chain gives one state
    return IsingSampler(device, 4, EDGES, gl.SamplingSchedule(n_samples=1, n_chains=20_000, n_warmup=20, beta=BETA))


def test_moments_and_their_gradients_are_those_of_the_law(sampler):
    p, _, terms = exact()
    means, covariance = p @ terms, np.cov(terms.T, aweights=p, ddof=0)
    n = 20_000
    sites, pairs = jax.jit(sampler.moments)(H, J, jax.random.key(9))
    z = np.abs(np.concatenate([sites, pairs]) - means) / np.sqrt((1 - means**2) / n)
    assert z.max() < z_limit(len(means))

    def all_moments(h, J):
        return jnp.concatenate(sampler.moments(h, J, jax.random.key(10)))

    rows = np.concatenate(jax.jit(jax.jacrev(all_moments, argnums=(0, 1)))(H, J), axis=1)
    centred = terms - means
    fourth = np.einsum("k,ki,kj->ij", p, centred**2, centred**2)
    z = np.abs(rows / BETA - covariance) / np.sqrt((fourth - covariance**2) / n)
    assert z.max() < z_limit(z.size)


def test_the_gradient_of_log_z_and_of_the_likelihood_of_data(sampler):
    p, _, terms = exact()
    means = p @ terms

    def free(h, J):
        return sampler.log_partition_surrogate(h, J, jax.random.key(12))

    grad = np.concatenate(jax.jit(jax.grad(free, argnums=(0, 1)))(H, J))
    assert np.abs((grad / BETA - means) / np.sqrt((1 - means**2) / 20_000)).max() < z_limit(8)
    assert float(free(H, J)) == pytest.approx(float(np.concatenate([H, J]) @ grad), rel=1e-5)

    held = jnp.array([1, 0, 0, -1], jnp.int8)  # the positive phase: data on sites 0 and 3
    law = ExactLaw(gl.IsingModel(np.asarray(H), EDGES, np.asarray(J)), BETA, clamp=((0, 1), (3, -1)))
    pairs = np.stack([law.states[:, a] * law.states[:, b] for a, b in EDGES], axis=1)
    wanted = law.probabilities @ np.concatenate([law.states, pairs], axis=1)
    sites, products = sampler.moments(H, J, jax.random.key(13), held)
    error = np.sqrt(np.maximum(1 - wanted**2, 1e-12) / 20_000)
    assert np.abs((np.concatenate([sites, products]) - wanted) / error).max() < z_limit(8)
    assert (float(sites[0]), float(sites[3])) == (1.0, -1.0)


def test_spins_carry_no_gradient(sampler):
    grad = jax.grad(lambda h: sampler.spins(h, J, jax.random.key(14)).sum())(H)
    np.testing.assert_array_equal(grad, np.zeros(4))


def test_a_vmap_over_fields_is_one_job_and_over_couplings_one_a_row(device, jobs):
    sampler = IsingSampler(device, 4, EDGES, gl.SamplingSchedule(n_samples=1, n_chains=4000, n_warmup=20, beta=BETA))
    keys, hs = jax.random.split(jax.random.key(15), 2), jnp.stack([H, -H])
    together, _ = jax.jit(jax.vmap(sampler.moments, in_axes=(0, None, 0)))(hs, J, keys)
    assert [request.schedule.n_chains for request in jobs] == [8000]
    apart, products = jax.vmap(sampler.moments)(hs, jnp.stack([J, -J]), keys)
    assert len(jobs) == 3
    for row, (sign_h, sign_j) in enumerate(((1, 1), (-1, -1))):
        for drawn, couplings in ((together[row], J), (apart[row], sign_j * J)):
            law = ExactLaw(gl.IsingModel(sign_h * np.asarray(H), EDGES, np.asarray(couplings)), BETA)
            wanted = law.probabilities @ law.states
            assert np.abs((drawn - wanted) / np.sqrt((1 - wanted**2) / 4000)).max() < z_limit(16)
    assert products.shape == (2, 4)


def test_training_by_the_two_phases_reaches_the_data_s_moments(device):
    """Two spins that agree in 80 % of the data: the best coupling is atanh(0.6) / beta, with no fields."""
    sampler = IsingSampler(device, 2, [(0, 1)], gl.SamplingSchedule(n_samples=1, n_chains=2000, n_warmup=40, beta=1.0))
    data = jnp.array([1.0] * 8 + [-1.0] * 2)

    @jax.jit
    def step(coupling, key):
        def loss(coupling):
            return sampler.log_partition_surrogate(jnp.zeros(2), coupling, key) - coupling[0] * data.mean()

        return coupling - 0.5 * jax.grad(loss)(coupling)

    coupling = jnp.zeros(1)
    for key in jax.random.split(jax.random.key(16), 60):
        coupling = step(coupling, key)
    # the last steps average about four jobs, so the mean is off by 0.8 / sqrt(8000) and its slope is 0.64
    assert abs(float(coupling[0]) - np.arctanh(0.6)) < z_limit(1) * 0.8 / np.sqrt(8000) / 0.64


def test_what_cannot_be_is_refused(device):
    key = jax.random.key(0)
    with pytest.raises(InvalidModelError, match=r"a glauber\.Device"):
        bits("sim://ideal", jnp.zeros(2), key)
    with pytest.raises(InvalidModelError, match="floats"):
        bits(device, jnp.zeros(2, int), key)
    with pytest.raises(InvalidModelError, match="two states"):
        categorical(device, jnp.zeros((2, 1)), key)
    with gl.open_device("sim://pbit-king-64") as chip, pytest.raises(ModelNotSupportedError, match="p-bits only"):
        categorical(chip, jnp.zeros((2, 3)), key)
    with gl.open_device("jax://cpu") as on_jax, pytest.raises(InvalidModelError, match="JAX itself"):
        bits(on_jax, jnp.zeros(2), key)
    with pytest.raises(jax.errors.JaxRuntimeError, match="every field must be finite"):
        bits(device, jnp.array([jnp.nan]), key).block_until_ready()
    schedule = gl.SamplingSchedule(n_samples=1)
    with pytest.raises(InvalidModelError, match="SamplingSchedule"):
        IsingSampler(device, 2, [(0, 1)], gl.AnnealingSchedule(n_sweeps=3))
    with pytest.raises(InvalidModelError, match="h must have shape"):
        IsingSampler(device, 2, [(0, 1)], schedule).moments(jnp.zeros(3), jnp.zeros(1), key)
    for wrong in ({"step": 0.0}, {"n_samples": 0}, {"beta": -1.0}):
        with pytest.raises(InvalidModelError, match=next(iter(wrong))):
            langevin(lambda x: x**2, jnp.zeros(()), key, **{"step": 0.1, "n_samples": 3, **wrong})


def test_a_clamp_is_not_cut_to_what_is_legal(device):
    sampler, key = IsingSampler(device, 2, [(0, 1)], gl.SamplingSchedule(n_samples=1)), jax.random.key(0)
    with pytest.raises(InvalidModelError, match="Booleans"):
        sampler.spins(jnp.zeros(2), jnp.zeros(1), key, jnp.array([True, False]))
    for wrong in (jnp.array([256, 0]), jnp.array([0.7, 0.0]), jnp.array([jnp.nan, 0.0])):
        with pytest.raises(jax.errors.JaxRuntimeError, match=r"clamp must be -1, \+1"):
            sampler.spins(jnp.zeros(2), jnp.zeros(1), key, wrong).block_until_ready()
    assert sampler.spins(jnp.zeros(2), jnp.zeros(1), key, jnp.array([-1.0, 1.0])).tolist() == [[[-1.0, 1.0]]]


def test_couplings_are_not_rounded_to_the_type_of_the_fields(device, jobs):
    sampler = IsingSampler(device, 2, [(0, 1)], gl.SamplingSchedule(n_samples=1))
    spins = sampler.spins(jnp.zeros(2, jnp.bfloat16), jnp.array([0.1001]), jax.random.key(0))
    assert spins.dtype == jnp.float32
    assert jobs[-1].model.couplings[0] == float(jnp.float32(0.1001))


def test_one_sample_has_no_gradient_of_moments(device):
    sampler, key = IsingSampler(device, 2, [(0, 1)], gl.SamplingSchedule(n_samples=1)), jax.random.key(0)
    with pytest.raises(InvalidModelError, match="two samples"):
        jax.grad(lambda h: sampler.moments(h, jnp.zeros(1), key)[0].sum())(jnp.zeros(2))
    slope = jax.grad(lambda h: sampler.log_partition_surrogate(h, jnp.zeros(1), key))(jnp.zeros(2))
    assert set(np.abs(slope).tolist()) == {1.0}


def test_when_one_row_is_refused_the_others_do_not_run_on(device, monkeypatch):
    made, submit = [], device.submit
    monkeypatch.setattr(device, "submit", lambda *a, **k: made.append(submit(*a, **k)) or made[-1])
    sampler = IsingSampler(device, 100, [(0, 1)], gl.SamplingSchedule(n_samples=1, n_warmup=10**9))
    couplings = jnp.array([[0.1], [jnp.nan]])
    with pytest.raises(jax.errors.JaxRuntimeError, match="finite"):
        jax.vmap(lambda J: sampler.spins(jnp.zeros(100), J, jax.random.key(0)))(couplings).block_until_ready()
    assert len(made) == 1
    assert made[0].wait(60)
    assert made[0].status is gl.JobStatus.CANCELLED


# Langevin

PRECISION, MEAN, KAPPA = np.array([[2.0, 0.8], [0.8, 1.0]]), np.array([1.0, -0.5]), 1.5


def gaussian_energy(x):
    return (x - MEAN) @ jnp.asarray(PRECISION, jnp.float32) @ (x - MEAN) / 2


def gaussian_chains(adjusted: bool, step: float = 0.3, n: int = 20_000) -> tuple[np.ndarray, float]:
    """Last states of independent chains."""

    def one(key):
        drawn = langevin(
            gaussian_energy, jnp.zeros(2), key, step=step, n_samples=1, n_warmup=100, beta=KAPPA, adjusted=adjusted
        )
        return drawn.states[0], drawn.acceptance

    states, acceptance = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(17), n))
    return np.asarray(states, float), float(acceptance.mean())


def gaussian_p_values(states: np.ndarray, covariance: np.ndarray) -> tuple[float, float]:
    """Of the mean (exact chi-square) and of the covariance (asymptotic: Wishart moments)."""
    n = len(states)
    off = states.mean(axis=0) - MEAN
    p_mean = float(chi2.sf(n * off @ np.linalg.inv(covariance) @ off, 2))
    found, c = np.cov(states.T), covariance
    z = [(found[i, j] - c[i, j]) / np.sqrt((c[i, i] * c[j, j] + c[i, j] ** 2) / n) for i, j in ((0, 0), (0, 1), (1, 1))]
    return p_mean, float(min(1.0, 3 * 2 * norm.sf(np.abs(z).max())))


def test_adjusted_langevin_has_a_gaussian_s_exact_mean_and_covariance():
    states, acceptance = gaussian_chains(adjusted=True)
    assert 0.3 < acceptance < 0.98  # the test of Metropolis does something
    assert min(gaussian_p_values(states, np.linalg.inv(PRECISION) / KAPPA)) > ALPHA


def test_unadjusted_langevin_has_the_covariance_of_its_step():
    """x' = (1 - a) x + noise in each eigendirection, a = beta step lambda: variance 1 / (beta lambda (1 - a / 2))."""
    states, acceptance = gaussian_chains(adjusted=False)
    assert acceptance == 1.0
    values, vectors = np.linalg.eigh(PRECISION)
    wrong = vectors @ np.diag(1 / (KAPPA * values * (1 - KAPPA * 0.3 * values / 2))) @ vectors.T
    assert min(gaussian_p_values(states, wrong)) > ALPHA
    assert gaussian_p_values(states, np.linalg.inv(PRECISION) / KAPPA)[1] < ALPHA, "a step's error must be noticed"


def test_as_many_states_come_as_are_asked_for():
    run = partial(langevin, gaussian_energy, jnp.zeros(2), jax.random.key(18), step=0.3)
    shapes = [run(n_samples=n, steps_per_sample=thin).states.shape for n, thin in itertools.product((1, 5), (1, 3))]
    assert shapes == [(1, 2), (1, 2), (5, 2), (5, 2)]
