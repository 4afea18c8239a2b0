"""Chains of denoising machines against enumeration: likelihood, gradients, what they generate, and a small training."""

from __future__ import annotations

import itertools
import math

import glauber as gl
import pytest
from glauber.errors import InvalidModelError, ModelNotSupportedError
from scipy.stats import chi2

torch = pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")
from glauber.torch.likelihood import annealed_log_weights  # noqa: E402

SPINS = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)))


def make(device, kind="restricted", n_steps=2, kept=0.2, n_context=0):
    torch.manual_seed(5)

    def machine():
        made = (
            gl.torch.RestrictedBoltzmannMachine(4, 2, device)
            if kind == "restricted"
            else gl.torch.BoltzmannMachine(4, 2, device)
        )
        made.fields.data = 0.5 * torch.randn(6)
        made.couplings.data = 0.8 * torch.randn(len(made.couplings))
        return made

    chain = gl.torch.DenoisingChain(machine, n_steps, kept, n_context=n_context)
    for linear, lift in zip(chain.linear, chain.lift, strict=True):
        linear.data = 0.2 * torch.randn(4, 4)
        lift.data = 0.3 * torch.randn(4, 2)
    for given in chain.given:
        given.data = 0.6 * torch.randn(n_context, 6)
    return chain


def log_back(chain, step, context=None):
    """Log p(x_(t-1) | x_t), exactly: rows by x_t, columns by x_(t-1)."""
    extra = chain.condition(SPINS, step, None if context is None else context.expand(16, -1))
    joint = torch.stack([-chain.machines[step - 1].free_energy(SPINS, row).double() for row in extra])
    return torch.log_softmax(joint, 1)


def log_noise(chain, step):
    """Log q(x_t | x_(t-1)), exactly: rows by x_(t-1), columns by x_t."""
    return torch.log_softmax(chain.pull[step - 1] * (SPINS @ SPINS.T).double(), 1)


def exact_log_law(chain, context=None):
    """Log p(x_0) of all states: the sum over all paths."""
    log_law = torch.full((16,), -4 * math.log(2), dtype=torch.float64)
    for step in range(chain.n_steps, 0, -1):
        log_law = torch.logsumexp(log_law[:, None] + log_back(chain, step, context), 0)
    return log_law.detach()


def exact_bound(chain):
    """E_q[log p(x_T) + sum_t log p(x_(t-1) | x_t) - log q(x_t | x_(t-1))] given each x_0, for two steps."""
    first, second = log_noise(chain, 1), log_noise(chain, 2)
    path = first[:, :, None].exp() * second[None].exp()  # by x_0, x_1, x_2
    value = log_back(chain, 1).T[:, :, None] - first[:, :, None] + (log_back(chain, 2).T - second)[None]
    return (path * value).sum((1, 2)).detach() - 4 * math.log(2)


def hold_noise(monkeypatch, chain):
    """The same noise whenever it is asked for: the figures of a row then differ by their normalisations alone."""
    uniform = {}

    def flip(states, correlation):
        drawn = uniform.setdefault((correlation, states.shape), torch.rand(states.shape))
        return torch.where(drawn < (1 + correlation) / 2, states, -states)

    monkeypatch.setattr(chain, "_flip", flip)


def test_noise_keeps_the_correlation_that_is_stated(device):
    chain = make(device, n_steps=3, kept=0.1)
    assert chain.correlation == pytest.approx([1, 0.7, 0.4, 0.1])
    assert [math.tanh(pull) for pull in chain.pull] == pytest.approx([0.7, 4 / 7, 1 / 4])
    data = torch.ones(10_000, 4)
    assert torch.equal(chain._flip(data, 1.0), data)
    assert abs(float(chain._flip(data, chain.correlation[2]).mean()) - 0.4) < 5 / 200


def test_a_chain_that_has_learned_nothing_undoes_the_noise_of_fair_spins(device):
    """Every path says -4 log 2: the noise's own coupling is in the steps back, which `exact_log_law` cannot tell."""
    chain = make(device, n_steps=3)
    for part in chain.parameters():
        part.data.zero_()
    found = chain.log_likelihood(SPINS, n_paths=1)
    assert torch.allclose(found, torch.full_like(found, -4 * math.log(2)), atol=1e-5)


@pytest.mark.parametrize("kind", ["restricted", "dense"])
def test_the_likelihood_against_the_sum_over_all_paths(device, kind):
    """One path each: the exact evidence bound. Many: the exact likelihood, from below. Within five and six errors.

    The dense machine's normalisations are annealed, and that they are estimated flatters each row by a part of their
    variance, which no number of rows averages out. At 6 temperatures that is up to 0.7 nats, at 60 about 0.1.
    """
    chain = make(device, kind)
    law, bound = exact_log_law(chain), exact_bound(chain)
    assert float(law.exp().sum()) == pytest.approx(1.0, abs=1e-6)
    assert (bound < law).all()
    assert float((law - bound).mean()) > 0.1  # so that the two can be told apart
    rows = SPINS[[0, 6, 15]]
    settings = {"n_temperatures": 60, "n_repeats": 8}
    single = chain.log_likelihood(rows.repeat(200, 1), n_paths=1, **settings).reshape(200, 3)
    error = single.std(0) / math.sqrt(200)
    found = (single.mean(0) - bound[[0, 6, 15]]) / error
    assert found.abs().max() < 5
    n_paths = 500 if kind == "restricted" else 50  # paths cost little where nothing is annealed
    many = chain.log_likelihood(rows.repeat(16, 1), n_paths=n_paths, **settings).reshape(16, 3)
    tolerance = 6 * many.std(0) / math.sqrt(16)  # Student's t of 15 degrees of freedom: alpha 2e-5 each
    assert ((many.mean(0) - law[[0, 6, 15]]).abs() < tolerance).all()
    assert ((law - bound)[[0, 6, 15]] > tolerance).all()  # the bound itself would not pass


def test_annealed_weights_with_fields_of_their_own_are_unbiased(device):
    """Mean of exp(w) over chains that have the same field is that Z within five standard errors, at few temperatures,
    where weights of hidden units left from the temperature before are off by ten."""
    chain = make(device)
    machine = chain.machines[0]
    rows = chain.condition(SPINS[[3, 9]], 1).detach()
    log_z = torch.stack([torch.logsumexp(-machine.free_energy(SPINS, row), 0) for row in rows]).double().detach()
    weights = annealed_log_weights(machine, n_chains=20_000, n_temperatures=3, extra_fields=rows.repeat(10_000, 1))
    ratio = torch.exp(weights.reshape(-1, 2) - log_z)
    assert ((ratio.mean(0) - 1).abs() < 5 * ratio.std(0) / 100).all()


def test_normalisations_by_annealing_agree_with_exact_ones(device, monkeypatch):
    """Estimated over exact, the product of both steps: its mean over 2000 rows is 1 within five standard errors.

    Few temperatures, so that the mean of the repeats' logarithms, which is not unbiased, would be far off.
    """
    chain = make(device)
    hold_noise(monkeypatch, chain)
    rows = SPINS[[0, 6, 9, 15]].repeat(500, 1)
    exact = chain.log_likelihood(rows, n_paths=1)
    monkeypatch.setattr("glauber.torch.diffusion.MAX_SUMMED_HIDDEN", 0)
    annealed = chain.log_likelihood(rows, n_paths=1, n_temperatures=4, n_repeats=16)
    ratio = torch.exp(exact - annealed)
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / math.sqrt(len(rows))


def test_a_tolerance_takes_as_many_temperatures_as_it_needs(device, monkeypatch):
    """Two temperatures and two repeats flatter by half a nat or more; with a tolerance the exact figure is met."""
    chain = make(device)
    with torch.no_grad():
        for one in chain.machines:
            one.couplings *= 1.5
    hold_noise(monkeypatch, chain)
    rows = SPINS[[0, 6, 9, 15]].repeat(500, 1)
    settings = {"n_paths": 1, "n_temperatures": 2, "n_repeats": 2}
    exact = chain.log_likelihood(rows, n_paths=1)
    monkeypatch.setattr("glauber.torch.diffusion.MAX_SUMMED_HIDDEN", 0)
    # from two temperatures on, some models need more than 32 times as many
    monkeypatch.setattr("glauber.torch.diffusion.MOST_TIMES", 100)
    few = chain.log_likelihood(rows, **settings)
    enough = chain.log_likelihood(rows, **settings, tolerance=0.1)
    few, enough = few - exact, enough - exact
    assert few.mean() > 2 * 0.1 + 5 * few.std() / math.sqrt(len(rows))  # more than two steps may
    assert enough.mean() < 2 * 0.1 + 5 * enough.std() / math.sqrt(len(rows))
    with pytest.warns(UserWarning, match="temperatures leave"):
        chain.log_likelihood(rows[:4], n_paths=1, n_temperatures=1, n_repeats=2, tolerance=1e-9)
    for wrong in ({"tolerance": 0.0}, {"tolerance": math.nan}, {"tolerance": 0.1, "n_repeats": 1}):
        with pytest.raises(InvalidModelError, match="2 repeats or more"):
            chain.log_likelihood(rows, **wrong)


def test_means_are_where_machines_and_noise_begin(device):
    means = torch.tensor([0.8, -0.5, 0.0, 1.0])
    chain = gl.torch.DenoisingChain(lambda: gl.torch.RestrictedBoltzmannMachine(4, 2, device), 2, 0.1, means)
    for one in chain.machines:
        one.couplings.data.zero_()
    assert torch.allclose(torch.tanh(chain.machines[0].fields[:4]), means.clamp(max=0.98), atol=1e-6)
    assert torch.allclose(torch.tanh(chain.base[-1]), 0.1 * means, atol=1e-6)
    noise = chain.generate(20_000, n_sweeps=1, whole_path=True)[0]
    assert (noise.mean(0) - 0.1 * means).abs().max() < 5 / math.sqrt(20_000)


def test_what_is_generated_has_the_chains_law(device):
    chain = make(device)
    law = exact_log_law(chain).exp()
    drawn = chain.generate(4000, n_sweeps=30)
    counts = torch.bincount((drawn > 0).long() @ torch.tensor([8, 4, 2, 1]), minlength=16)
    assert chi2.sf(float(((counts - 4000 * law) ** 2 / (4000 * law)).sum()), 15) > 1e-6
    path = chain.generate(3000, n_sweeps=5, whole_path=True)
    assert path.shape == (3, 3000, 4)
    assert path[0].mean().abs() < 5 / math.sqrt(12_000)  # noise is fair


def test_a_context_is_a_law_of_its_own(device):
    """Three contexts in one call: each row's likelihood and samples follow the law of its own."""
    chain = make(device, n_context=3)
    contexts = torch.eye(3)
    laws = torch.stack([exact_log_law(chain, row) for row in contexts])
    assert float((laws.exp()[0] - laws.exp()[1]).abs().max()) > 0.05
    many = contexts.repeat_interleave(2000, 0)
    drawn = (chain.generate(6000, n_sweeps=30, context=many) > 0).long() @ torch.tensor([8, 4, 2, 1])
    for k, law in enumerate(laws.exp()):
        counts = torch.bincount(drawn[2000 * k : 2000 * (k + 1)], minlength=16)
        assert chi2.sf(float(((counts - 2000 * law) ** 2 / (2000 * law)).sum()), 15) > 1e-6
    rows, each = SPINS[[0, 6, 15]], torch.arange(3).repeat(16)
    found = chain.log_likelihood(rows.repeat(16, 1), contexts[each], n_paths=500).reshape(16, 3)
    truth = laws[torch.arange(3), [0, 6, 15]]
    assert ((found.mean(0) - truth).abs() < 6 * found.std(0) / math.sqrt(16)).all()  # Student's t: alpha 2e-5 each


def test_a_contexts_gradient_is_that_of_its_conditional_likelihood(device):
    chain = make(device, n_context=2)
    context = torch.tensor([[1.0, -0.5]])
    joint = log_noise(chain, 1)[[3]].exp().mean(0)[:, None] * log_noise(chain, 2).exp()
    loss = -(joint * log_back(chain, 2, context[0]).T).sum()
    (exact,) = torch.autograd.grad(loss, chain.given[1])
    data = SPINS[[3]].repeat(400, 1)
    found = torch.stack(
        [
            torch.autograd.grad(chain.step_loss(data, 2, 100, context.expand(400, -1)), chain.given[1])[0]
            for _ in range(40)
        ]
    )
    error = found.std(0) / math.sqrt(40)
    assert ((found.mean(0) - exact) / error).abs().max() < 6
    assert exact.abs().max() > 10 * error.max()


def test_correlations_of_the_users_own(device):
    chain = make(device, n_steps=2, kept=(0.9, 0.2))
    assert chain.correlation == [1, 0.9, 0.2]
    assert [math.tanh(pull) for pull in chain.pull] == pytest.approx([0.9, 2 / 9])


@pytest.mark.parametrize("kind", ["restricted", "dense"])
def test_a_steps_gradient_is_that_of_its_conditional_likelihood(device, kind):
    """Against the exact gradient of E_q[-log p(x_1 | x_2)] given data, by 40 estimates in equilibrium."""
    chain = make(device, kind)
    machine = chain.machines[1]
    parameters = (machine.fields, machine.couplings, chain.linear[1], chain.lift[1])
    data = SPINS[[1, 1, 1, 12]]
    joint = log_noise(chain, 1)[[1, 1, 1, 12]].exp().mean(0)[:, None] * log_noise(chain, 2).exp()
    exact = torch.autograd.grad(-(joint * log_back(chain, 2).T).sum(), parameters)
    exact = torch.cat([part.ravel() for part in exact]).double()

    def estimate():
        found = torch.autograd.grad(chain.step_loss(data.repeat(100, 1), 2, 300), parameters)
        return torch.cat([part.ravel() for part in found]).double()

    estimates = torch.stack([estimate() for _ in range(40)])
    z = (estimates.mean(0) - exact) / (estimates.std(0) / math.sqrt(40))
    assert z.abs().max() < 6  # at most 45 numbers; Student's t of 39 degrees of freedom: alpha 2e-5
    assert exact.abs().max() > 20 * float((estimates.std(0) / math.sqrt(40)).max())  # and a wrong sign would show


def test_training_learns_two_patterns(device):
    torch.manual_seed(3)
    patterns = torch.tensor([[1.0, 1, 1, 1, -1, -1, -1, -1], [1.0, -1, 1, -1, 1, -1, 1, -1]])
    data = patterns.repeat(64, 1)
    chain = gl.torch.DenoisingChain(lambda: gl.torch.RestrictedBoltzmannMachine(8, 6, device), 3, 0.05)
    rate = torch.optim.Adam(chain.parameters(), lr=0.05)

    def near():
        """Which of the patterns each generated state is within one flip of, counted."""
        overlap = chain.generate(400) @ patterns.T
        return [(overlap[:, k] >= 6).double().mean().item() for k in range(2)]

    assert sum(near()) < 0.2  # of fair spins, 2 x 9/256
    before = chain.log_likelihood(patterns, n_paths=8).mean()
    for _ in range(120):
        rate.zero_grad()
        chain.loss(data, n_sweeps=5).backward()
        rate.step()
    found = near()
    assert min(found) > 0.15  # both, if not alike often
    assert sum(found) > 0.8
    # normalisations are exact here; how near the bound comes is a matter of the paths: 8 may leave it nats below
    after = chain.log_likelihood(patterns, n_paths=1024).mean()
    assert before < -5  # fair spins: -8 log 2
    assert after > -2.5  # two states at most: -log 2


def test_a_device_without_fields_for_each_chain_is_refused():
    with gl.open_device("firmware://host", seed=1) as device:
        chain = make(device)
        with pytest.raises(ModelNotSupportedError, match="one set of fields"):
            chain.generate(2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d, c: gl.torch.DenoisingChain(lambda: torch.nn.Linear(2, 2), 2), "BoltzmannMachine, not a Linear"),
        (lambda d, c: gl.torch.DenoisingChain(lambda: gl.torch.BoltzmannMachine(2, 0, d), 0), "n_steps"),
        (lambda d, c: gl.torch.DenoisingChain(lambda: gl.torch.BoltzmannMachine(2, 0, d), 2, 1.0), "kept"),
        (lambda d, c: gl.torch.DenoisingChain(lambda: c.machines[0], 2, (0.5, 0.5)), "that fall"),
        (lambda d, c: gl.torch.DenoisingChain(lambda: c.machines[0], 2, (0.5,)), "2 of them"),
        (lambda d, c: gl.torch.DenoisingChain(lambda: c.machines[0], 1, (1.0,)), "kept"),
        (lambda d, c: gl.torch.DenoisingChain(lambda: c.machines[0], 1, None), "kept"),
        (lambda d, c: gl.torch.DenoisingChain(lambda: c.machines[0], 3, "0.5"), "kept"),
        (lambda d, c: gl.torch.DenoisingChain(lambda: c.machines[0], 1, (math.nan,)), "kept"),
        (lambda d, c: gl.torch.DenoisingChain(lambda: c.machines[0], 1, n_context=-1), "n_context"),
        (lambda d, c: c.generate(2, context=torch.ones(2, 1)), "context of 0 numbers"),
        (lambda d, c: make(d, n_context=3).generate(2), "context of 3 numbers"),
        (lambda d, c: make(d, n_context=3).loss(SPINS, 2, torch.ones(16, 2)), "context of 3 numbers"),
        (
            lambda d, c: gl.torch.DenoisingChain(
                iter([gl.torch.BoltzmannMachine(2, 0, d), gl.torch.BoltzmannMachine(3, 0, d)]).__next__, 2
            ),
            "same number of visible",
        ),
        (lambda d, c: gl.torch.DenoisingChain(lambda: c.machines[0], 2, means=torch.ones(3)), "means"),
        (lambda d, c: gl.torch.DenoisingChain(lambda: c.machines[0], 2, means=2 * torch.ones(4)), "means"),
        (lambda d, c: c.step_loss(SPINS, 0, 5), "step"),
        (lambda d, c: c.step_loss(SPINS, 3, 5), "step"),
        (lambda d, c: c.step_loss(SPINS[:, :3], 1, 5), "must have shape"),
        (lambda d, c: c.loss(0 * SPINS), "spins"),
        (lambda d, c: c.generate(0), "n must be"),
        (lambda d, c: c.generate(-1), "n must be"),
        (lambda d, c: c.log_likelihood(SPINS, n_paths=0), "n_paths"),
        (lambda d, c: c.log_likelihood(SPINS, n_repeats=0), "n_repeats"),
        (lambda d, c: c.log_likelihood(SPINS[0]), "must have shape"),
    ],
)
def test_bad_requests_are_refused(device, call, message):
    with pytest.raises(InvalidModelError, match=message):
        call(device, make(device))
